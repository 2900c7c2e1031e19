"""Benches of blobs: hits, one cold download at loopback and at network speed, a crowd, first bytes."""

import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.bench.measure import ROUNDS, Download, crowd, download, interleaved
from tests.bench.origin import MIB, Blob
from tests.bench.report import Row, Target
from tests.bench.world import World
from tests.bench.yardsticks import yardstick

GIB = 1024 * MIB
_GIGABIT = 125e6
_CLIENTS = 20
_FIRST_BYTES = 15


def hit(world: World) -> list[Row]:
    """A warm blob of 1 GiB."""
    blob = world.origin.add(GIB, seed=1)
    with world.tidegate() as ours, world.docker_registry() as theirs:
        urls = {"tidegate": ours.url, "docker-registry": theirs, "nginx": world.origin.url}
        for url in urls.values():
            download(url + blob.path, blob.size)
        time.sleep(2)  # docker-registry puts its copy into place after the answer
        seconds = interleaved({name: _total(url + blob.path, blob) for name, url in urls.items()})
    fastest = min(seconds["nginx"], seconds["docker-registry"])
    return [Row("hit, blob of 1 GiB", "s", seconds, (Target("of the fastest", seconds["tidegate"] / fastest, 1.05),))]


def _total(url: str, blob: Blob) -> Callable[[], float]:
    return lambda: download(url, blob.size).total


def cold(world: World) -> list[Row]:
    """A blob of 1 GiB nobody has yet, one client, as fast as loopback goes."""
    blob = world.origin.add(GIB, seed=1)

    def ours() -> float:
        with world.tidegate() as server:
            return download(server.url + blob.path, blob.size).total

    def theirs() -> float:
        with world.docker_registry() as url:
            return download(url + blob.path, blob.size).total

    with yardstick(world.folder / "floor", "floor", world.origin.url, str(world.folder / "floor.blob")) as floor:
        seconds = interleaved({
            "tidegate": ours,
            "docker-registry": theirs,
            "nginx": _total(world.origin.url + blob.path, blob),
            "yardstick": _total(floor + blob.path, blob),
        })  # fmt: skip
    targets = (
        Target("of docker-registry", seconds["tidegate"] / seconds["docker-registry"], 1),
        Target("of the floor", seconds["tidegate"] / seconds["yardstick"], 1.5),
    )
    yardstick_name = "receive, SHA-256, write, sendfile and nothing else"
    return [Row("cold, blob of 1 GiB (nginx: the origin itself)", "s", seconds, targets, yardstick_name)]


def gigabit(world: World) -> list[Row]:
    """The same behind an origin that sends 1 Gbit/s."""
    blob = world.origin.add(GIB // 2, seed=1)
    path = str(world.origin.static) + blob.path
    found: dict[str, list[Download]] = {"tidegate": [], "yardstick": []}
    with yardstick(world.folder / "slow", "slow", path, str(_GIGABIT)) as slow:
        for _ in range(ROUNDS):
            with world.tidegate(slow) as server:
                found["tidegate"].append(download(server.url + blob.path, blob.size))
            found["yardstick"].append(download(slow + blob.path, blob.size))
    total = {name: statistics.median(each.total for each in runs) for name, runs in found.items()}
    first = {name: 1000 * statistics.median(each.first for each in runs) for name, runs in found.items()}
    return [
        Row("cold, blob of 512 MiB, origin at 1 Gbit/s", "s", total,
            (Target("of direct", total["tidegate"] / total["yardstick"], 1.02),), "direct"),
        Row("its first byte", "ms", first,
            (Target("ms later than direct", first["tidegate"] - first["yardstick"], 10),), "direct"),
    ]  # fmt: skip


def many(world: World) -> list[Row]:
    """20 clients at once, one cold blob of 32 MiB: time, and what it costs the upstream."""
    blob = world.origin.add(32 * MIB, seed=2)
    sent: dict[str, float] = {}
    failed: dict[str, float] = {}

    def measured(name: str, url: str) -> float:
        world.origin.forget()
        seconds, failures = crowd(url + blob.path, blob.size, _CLIENTS)
        failed[name] = failed.get(name, 0) + failures
        sent[name] = max(sent.get(name, 0), world.origin.sent() / MIB)
        return seconds

    def ours() -> float:
        with world.tidegate() as server:
            return measured("tidegate", server.url)

    def theirs() -> float:
        with world.docker_registry() as url:
            return measured("docker-registry", url)

    seconds = interleaved({"tidegate": ours, "docker-registry": theirs})
    situation = f"cold, {_CLIENTS} clients, one blob of 32 MiB"
    ratio = Target("of docker-registry", seconds["tidegate"] / seconds["docker-registry"], 1)
    return [
        Row(situation, "s", seconds, (ratio,)),
        Row("bytes that took from the upstream", "MiB", sent, (Target("MiB", sent["tidegate"], 32),)),
        Row(f"clients of {ROUNDS * _CLIENTS} that got no whole body", "clients", failed,
            (Target("clients", failed["tidegate"], 0),)),
    ]  # fmt: skip


def first_byte(world: World) -> list[Row]:
    """How long until a small blob begins, new connection each, on a miss and on a hit."""
    blobs = [world.origin.add(64 << 10, seed=10 + number) for number in range(_FIRST_BYTES)]
    rows = []
    with ExitStack() as stack:
        ours = stack.enter_context(world.tidegate())
        urls = {"tidegate": ours.url, "docker-registry": stack.enter_context(world.docker_registry())}
        urls["nginx"] = world.origin.url
        for situation in ("miss", "hit"):
            found: dict[str, list[float]] = {name: [] for name in urls}
            for blob in blobs:
                for name, url in urls.items():
                    found[name].append(1000 * download(url + blob.path, blob.size).first)
            figures = {name: statistics.median(values) for name, values in found.items()}
            later = Target("ms later than nginx", figures["tidegate"] - figures["nginx"], 10)
            rows.append(Row(f"first byte of a blob of 64 KiB, {situation}", "ms", figures, (later,)))
            time.sleep(1)
    return rows
