"""The bench of scale: a cache of a million blobs and names beside one of a thousand, both served in the same run.

Start-up, hits, eviction beside hits, counting again beside hits, what pages for operators cost, memory, descriptors.
What is asked for is the same thousand names in both, each in turn; the mass around them is what differs.
Under five minutes, most of it making the mass (hoard.py) and removing it; about 1.5 GB of disk, a million inodes.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from proxy.store.lock import hold
from tests.bench.hoard import OLD_SIZE, UPSTREAM, Hoard, hoard
from tests.bench.measure import Load, download, peak_memory, wrk
from tests.bench.origin import MIB
from tests.bench.report import Row, Target
from tests.bench.world import World
from tests.real.images import ACCEPT
from tests.real.processes import fetch, free_port
from tests.real.tidegate import Tidegate, tidegate, upstream_config
from tests.real.tools import curl

COUNT, FEW, GONE = 1_000_000, 1000, 10_000
_COMING = 64 * MIB
_ROUNDS = 5
_QUIET = 5
_BESIDE = f"with {FEW:,}"
_MEMORY = 120


class Bench:
    """Both hoards, and how a server is started on one."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.few, self.many = hoard(folder / "few", FEW), hoard(folder / "many", COUNT)

    @contextmanager
    def serve(self, content: Hoard, max_size: int = 1 << 40) -> Iterator[tuple[Tidegate, float]]:
        """A server, and the seconds from its exec to the first 200 for a cached manifest."""
        keys = {"tag_ttl": "7d"}  # nothing may ask the upstream but what is cold
        config = {"cache": {"max_size": f"{max_size}B"}, **upstream_config(self.world.origin.url, UPSTREAM, **keys)}
        port = free_port()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(_first_answer, f"http://127.0.0.1:{port}{content.by_tag[0]}")
            with tidegate(config, data=content.data, workers=2, port=port) as server:
                yield server, first.result()

    def load(self, server: Tidegate, paths: tuple[str, ...], seconds: int = 1) -> Load:
        """All of these paths in turn, 32 connections."""
        script = self.folder / "paths.lua"
        listed = ",".join(f'"{path}"' for path in paths)
        turn = "request = function() n = n % #paths + 1; return wrk.format('GET', paths[n]) end"
        script.write_text(f"local paths, n = {{{listed}}}, 0\n{turn}\n")
        return wrk(server.url, seconds=seconds, script=script)


def _first_answer(url: str) -> float:
    began = time.perf_counter()
    while time.perf_counter() - began < 60:
        try:
            if fetch(url, ACCEPT, timeout=60)[0] == 200:
                return time.perf_counter() - began
        except OSError:
            time.sleep(0.005)
    raise AssertionError(f"{url} did not answer within a minute")


def scale(world: World) -> list[Row]:
    """All of it, on one pair of hoards."""
    with world.room() as folder:
        bench = Bench(world, folder)
        with bench.serve(bench.few) as (few, first_few), bench.serve(bench.many) as (many, first_many):
            rows = [_start("clean", first_many, first_few), *_hits(bench, few, many), *_pages(few, many)]
            rows += _size("serving hits", many, few)
            many.kill()
        with bench.serve(bench.few) as (few, first_few), bench.serve(bench.many) as (many, first_many):
            rows.append(_start("after kill -9", first_many, first_few))
            rows += [_counting(bench, many), *_size("after counting", many, few)]
        return [*rows, *_eviction(bench)]


def _start(how: str, many: float, few: float) -> Row:
    target = Target("s", many, 2)
    return Row(f"exec to first cached manifest, {COUNT:,} blobs, {how}", "s", _pair(many, few), (target,), _BESIDE)


def _pair(many: float, few: float) -> dict[str, float]:
    return {"tidegate": many, "yardstick": few}


def _hits(bench: Bench, few: Tidegate, many: Tidegate) -> list[Row]:
    """Rounds interleaved; each server has answered every name before."""
    kinds = {
        "manifest by digest": (bench.many.by_digest, bench.few.by_digest),
        "manifest by tag": (bench.many.by_tag, bench.few.by_tag),
        "small blob": (bench.many.blobs, bench.few.blobs),
    }
    return [_hit(kind, *_rounds(bench, (many, paths), (few, others))) for kind, (paths, others) in kinds.items()]


Asked = tuple[Tidegate, tuple[str, ...]]


def _rounds(bench: Bench, many: Asked, few: Asked) -> tuple[float, float]:
    for asked in (many, few):
        bench.load(*asked)
    pairs = [(bench.load(*many).rate, bench.load(*few).rate) for _ in range(_ROUNDS)]
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def _hit(kind: str, many: float, few: float) -> Row:
    target = Target(f"of {FEW:,}", many / few, 0.95, least=True)
    return Row(f"hit, {kind}, {COUNT:,} blobs", "req/s", _pair(many, few), (target,), _BESIDE)


def _counting(bench: Bench, server: Tidegate) -> Row:
    """Hits while files and catalogue are compared in the background, and the same when that is done."""
    marker = server.data / "run/uncounted"
    bench.load(server, bench.many.by_digest)
    during = _while(marker.exists, lambda: bench.load(server, bench.many.by_digest).p99, 10)
    _wait(marker.exists)
    quiet = [bench.load(server, bench.many.by_digest).p99 for _ in range(_QUIET)]
    return _beside("while files are counted after kill -9", during, quiet)


def _while(going: Callable[[], bool], run: Callable[[], float], most: int) -> list[float]:
    """Runs that lie whole within."""
    found: list[float] = []
    while going() and len(found) < most:
        figure = run()
        if going():
            found.append(figure)
    return found


def _beside(what: str, during: list[float], quiet: list[float]) -> Row:
    assert during, f"manifest p99 {what}: over before one run of the load was"
    busy, idle = statistics.median(during), statistics.median(quiet)
    target = Target("times without", busy / idle, 2)
    return Row(f"manifest p99 {what}, {COUNT:,} blobs", "ms", _pair(busy, idle), (target,), "without, same server")


def _eviction(bench: Bench) -> list[Row]:
    """A cold blob needs room; going on to the low mark takes 10,000 others with it."""
    size = bench.many.size
    # The pass frees what is beyond the mark and a 20th of the mark: size + coming - mark + mark / 20.
    mark = int((size + _COMING - GONE * OLD_SIZE) / 0.95)
    assert size < mark < size + _COMING, "a limit that is passed by the cold blob, not before"
    blob = bench.world.origin.add(_COMING, seed=1)
    with bench.serve(bench.many, mark) as (server, _), ThreadPoolExecutor(1) as pool:
        bench.load(server, bench.many.by_digest, 2)
        quiet = [bench.load(server, bench.many.by_digest).p99 for _ in range(_QUIET)]
        before = _objects(server)
        cold = pool.submit(download, server.url + blob.path, blob.size)
        _wait(lambda: not cold.done() and not _passing(server))
        during = _while(lambda: _passing(server), lambda: bench.load(server, bench.many.by_digest).p99, 10)
        first = cold.result().first
        _wait(lambda: _passing(server))
        gone = before + 1 - _objects(server)
        quiet += [bench.load(server, bench.many.by_digest).p99 for _ in range(_QUIET)]
    assert abs(gone - GONE) < GONE / 100, f"{gone} went"
    return [
        _beside(f"while {gone:,} blobs are evicted", during, quiet),
        Row("first byte of the cold blob that needs the room", "s", {"tidegate": first}),
    ]


def _wait(going: Callable[[], bool]) -> None:
    began = time.monotonic()
    while going():
        assert time.monotonic() - began < 600, "not done after ten minutes"
        time.sleep(0.1)


def _passing(server: Tidegate) -> bool:
    """Whether a pass is under way: its lock is held."""
    held = hold(str(server.data / "run/janitor.lock"))
    if held is not None:
        held.release()
    return held is None


def _objects(server: Tidegate) -> int:
    return int(server.metrics().total("tidegate_cache_objects"))


def _pages(few: Tidegate, many: Tidegate) -> list[Row]:
    rows = []
    for what, page in (("/metrics", _metrics), ("status over the admin socket", _status)):
        figures = [statistics.median(page(server) for _ in range(9)) * 1000 for server in (many, few)]
        target = Target(f"times {FEW:,}", figures[0] / figures[1], 2)
        rows.append(Row(f"{what}, {COUNT:,} blobs", "ms", _pair(*figures), (target,), _BESIDE))
    return rows


def _metrics(server: Tidegate) -> float:
    began = time.perf_counter()
    assert fetch(f"{server.url}/metrics")[0] == 200
    return time.perf_counter() - began


def _status(server: Tidegate) -> float:
    said = curl("-f", "-o", "/dev/null", "-w", "%{time_total}", "--unix-socket", str(server.data / "admin.sock"),
                "http://localhost/api/status")  # fmt: skip
    assert said.returncode == 0, said.stderr.decode()
    return float(said.stdout)


def _size(when: str, many: Tidegate, few: Tidegate) -> list[Row]:
    """The largest worker; its connections have gone by now."""
    memory = [max(map(peak_memory, server.worker_pids())) for server in (many, few)]
    files = [max(len(os.listdir(f"/proc/{pid}/fd")) for pid in server.worker_pids()) for server in (many, few)]
    return [
        Row(f"peak memory of a worker, {COUNT:,} blobs, {when}", "MiB", _pair(*memory),
            (Target("MiB", memory[0], _MEMORY),), _BESIDE),
        Row(f"descriptors of a worker, {COUNT:,} blobs, {when}", "open", _pair(*map(float, files)),
            (Target(f"more than {FEW:,}", files[0] - files[1], 16),), _BESIDE),
    ]  # fmt: skip
