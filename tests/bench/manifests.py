"""Benches of small answers: a manifest by digest and by tag, alone and beside readers of cold pages."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.measure import SECONDS, Load, download, interleaved, wrk
from tests.bench.origin import MIB, Blob
from tests.bench.report import Row, Target
from tests.bench.world import World
from tests.bench.yardsticks import yardstick
from tests.real.processes import running
from tests.real.tidegate import ROOT, Tidegate

_READERS = 20


def manifest(world: World) -> list[Row]:
    """A manifest of 1.5 KB, 32 connections: by digest and by tag."""
    origin = world.origin
    with ExitStack() as stack:
        enter = stack.enter_context
        body = str(origin.static) + origin.by_digest
        urls = {
            "tidegate": enter(world.tidegate()).url,
            "docker-registry": enter(world.docker_registry()),
            "nginx": origin.url,
            "yardstick": enter(yardstick(world.folder / "aiohttp", "aiohttp", body)),
        }
        for url in urls.values():
            for path in (origin.by_digest, origin.by_tag, origin.by_digest, origin.by_tag):
                download(url + path, origin.manifest.size)
        paths = {"digest": origin.by_digest, "tag": origin.by_tag}
        rates = interleaved({
            (kind, name): _rate(url + path)
            for name, url in urls.items() for kind, path in paths.items() if (kind, name) != ("tag", "yardstick")
        })  # fmt: skip
    digest, tag = ({name: rate for (kind, name), rate in rates.items() if kind == each} for each in ("digest", "tag"))
    return [_by_digest(digest), _by_tag(tag, digest)]


def _rate(url: str) -> Callable[[], float]:
    return lambda: wrk(url).rate


def _by_digest(rate: Mapping[str, float]) -> Row:
    ours = rate["tidegate"]
    targets = (
        Target("times docker-registry", ours / rate["docker-registry"], 14, least=True),
        Target("of bare aiohttp", ours / rate["yardstick"], 0.7, least=True),
    )
    return Row("hit, manifest by digest, 32 connections", "req/s", rate, targets, "bare aiohttp, two processes")


def _by_tag(rate: Mapping[str, float], digest: Mapping[str, float]) -> Row:
    ours = rate["tidegate"]
    targets = (
        Target("times docker-registry", ours / rate["docker-registry"], 40, least=True),
        Target("of by digest", ours / digest["tidegate"], 0.9, least=True),
    )
    return Row("hit, manifest by tag, 32 connections", "req/s", rate, targets)


def beside_cold_pages(world: World) -> list[Row]:
    """p99 of manifest hits while 20 clients read blobs whose pages are dropped before each read.

    The yardstick is the same with those clients at nginx instead: what two cores and one disk leave to anybody.
    """
    blobs = [world.origin.add(32 * MIB, seed=100 + number) for number in range(_READERS)]
    with world.tidegate() as server:
        url = server.url + world.origin.by_digest
        for blob in blobs:
            download(server.url + blob.path, blob.size)
        download(url, world.origin.manifest.size)
        kept = {blob.path: _kept(server, blob) for blob in blobs}
        static = {blob.path: Path(str(world.origin.static) + blob.path) for blob in blobs}
        idle, busy, beside = [], [], []
        for _ in range(3):
            idle.append(wrk(url))
            with _readers(world, server.url, kept):
                busy.append(wrk(url))
            with _readers(world, world.origin.url, static):
                beside.append(wrk(url))
    return _cold_rows(*(sorted(runs, key=lambda load: load.p99)[1] for runs in (idle, busy, beside)))


def _cold_rows(idle: Load, busy: Load, beside: Load) -> list[Row]:
    situation = f"manifest p99 beside {_READERS} readers of dropped pages"
    target = Target("times idle", busy.p99 / idle.p99, 3)
    return [
        Row("manifest p99, idle otherwise", "ms", {"tidegate": idle.p99}),
        Row(situation, "ms", {"tidegate": busy.p99, "yardstick": beside.p99}, (target,), "those readers at nginx"),
        Row("requests meanwhile", "req/s", {"tidegate": busy.rate, "yardstick": beside.rate}, (),
            "those readers at nginx"),
    ]  # fmt: skip


def _kept(server: Tidegate, blob: Blob) -> Path:
    hex_ = blob.digest.partition(":")[2]
    return server.data / "blobs/sha256" / hex_[:2] / hex_


@contextmanager
def _readers(world: World, url: str, files: Mapping[str, Path]) -> Iterator[None]:
    """A process that keeps one client per file busy until the block ends."""
    pairs = [f"{path}={file}" for path, file in files.items()]
    command = [sys.executable, "-m", "tests.bench.manifests", url, str(SECONDS + 5), *pairs]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with running(command, world.folder, "readers", env=env) as process:
        while not process.stdout:
            process.check()
        yield


async def _read(host: str, port: int, path: str, file: str) -> None:
    """Drop the file's pages, read it over HTTP, again and again."""
    while True:
        fd = os.open(file, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        reader, writer = await asyncio.open_connection(host, port, limit=MIB)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        got = 0
        while data := await reader.read(MIB):
            got += len(data)
        assert got > os.stat(file).st_size, f"{path} was cut at {got}"
        writer.close()


async def _main(url: str, seconds: str, *pairs: str) -> None:
    host, _, port = url.removeprefix("http://").partition(":")
    print("reading", flush=True)  # noqa: T201  whoever started this waits for it
    async with asyncio.timeout(float(seconds)):
        await asyncio.gather(*(_read(host, int(port), *pair.split("=")) for pair in pairs))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
