"""Bench of pushes and of pulls of what was pushed, beside docker-registry; and one upload of 5 GiB over four workers.

Clients do what docker does: HEAD, POST, PATCH, PUT for every blob, kept-alive connections. Every round has fresh
servers in fresh folders, and what others left to be written is written before its clock starts.
"""

import hashlib
import http.client
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.blobs import GIB
from tests.bench.measure import download, interleaved, peak_memory
from tests.bench.origin import MIB
from tests.bench.report import Row, Target
from tests.bench.world import World
from tests.real.images import OCI_KINDS
from tests.real.servers import docker_registry
from tests.real.tidegate import Tidegate, tidegate
from tests.real.tools import curl
from tests.support import noise, spread

_SETTINGS = {"local": {"upload_ttl": "1h"}}
_REPO = "bench/app"
_SMALL, _SMALL_SIZE = 300, 16 << 10
_PUSHERS, _SHARED, _SHARED_SIZE = 10, 3, 8 * MIB
_LARGE, _CHUNK = 5 * GIB, 64 * MIB
_FREE = 30 * GIB
_LONGEST = 20
_MEMORY = 120


def push(world: World) -> list[Row]:
    """One large blob, many small ones, crowds that share layers; then the 5 GiB."""
    return [*_blob(world), *_small(world), *_crowd(world), *_over_four_workers(world)]


@contextmanager
def _ours(world: World, workers: int = 2) -> Iterator[Tidegate]:
    with world.room() as folder, tidegate(_SETTINGS, workers=workers, folder=folder) as server:
        os.sync()
        yield server


@contextmanager
def _theirs(world: World) -> Iterator[str]:
    with world.room() as folder, docker_registry(folder) as served:
        os.sync()
        yield served.url


def _row(situation: str, seconds: dict[str, float], unit: str = "s") -> Row:
    ratio = Target("of docker-registry", seconds["tidegate"] / seconds["docker-registry"], 1)
    return Row(situation, unit, seconds, (ratio,))


Half = Callable[[str], float]


def _beside(world: World, pushing: Half, pulling: Half) -> tuple[dict[str, float], dict[str, float]]:
    """Medians of a push and of the pull after it, both sides in turn."""
    pulls: dict[str, list[float]] = {"tidegate": [], "docker-registry": []}

    def both(name: str, url: str) -> float:
        seconds = pushing(url)
        pulls[name].append(pulling(url))
        return seconds

    def ours() -> float:
        with _ours(world) as server:
            return both("tidegate", server.url)

    def theirs() -> float:
        with _theirs(world) as url:
            return both("docker-registry", url)

    pushes = interleaved({"tidegate": ours, "docker-registry": theirs})
    return pushes, {name: statistics.median(each) for name, each in pulls.items()}


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


# One large blob


def _blob(world: World) -> list[Row]:
    with world.room() as folder:
        path, digest = _file(folder / "layer", GIB)

        def pushed(url: str) -> None:
            with closing(_Client(url)) as client:
                where = client.begin()
                said = curl("-X", "PATCH", "-T", str(path), "-H", "Content-Type: application/octet-stream", "-H",
                            "Expect:", "-w", "%{http_code} %header{location}", where, timeout=300)  # fmt: skip
                status, location = said.stdout.decode().split()
                assert status == "202", said
                client.finish(location, digest)

        def pulled(url: str) -> float:
            return statistics.median(download(f"{url}/v2/{_REPO}/blobs/{digest}", GIB).total for _ in range(3))

        pushes, pulls = _beside(world, lambda url: _timed(lambda: pushed(url)), pulled)
    return [_row("push, blob of 1 GiB", pushes), _row("pull of it", pulls)]


def _file(path: Path, size: int) -> tuple[Path, str]:
    """A file of a repeating block, and its digest."""
    block, hasher = noise(MIB, "bench"), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(block)
            hasher.update(block)
    return path, f"sha256:{hasher.hexdigest()}"


# Many small blobs


def _small(world: World) -> list[Row]:
    blobs = [noise(_SMALL_SIZE, number) for number in range(_SMALL)]

    def every(url: str, each: Callable[["_Client", bytes], object]) -> float:
        def share(number: int) -> None:
            with closing(_Client(url)) as client:
                for blob in blobs[number::4]:
                    each(client, blob)

        return _timed(lambda: _at_once(share, 4))

    pushes, pulls = _beside(
        world,
        lambda url: every(url, lambda client, blob: client.blob(blob)),
        lambda url: every(url, lambda client, blob: client.get(f"/v2/{_REPO}/blobs/{_digest(blob)}")),
    )
    what = f"{_SMALL} blobs of {_SMALL_SIZE >> 10} KiB, 4 clients"
    return [_row(f"push, {what}", pushes), _row(f"pull, {what}", pulls)]


def _at_once(call: Callable[[int], None], count: int) -> None:
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(call, range(count)))


# Images that share layers


def _crowd(world: World) -> list[Row]:
    shared = [noise(_SHARED_SIZE, number) for number in range(_SHARED)]

    def one(url: str, number: int) -> None:
        config = json.dumps({"number": number}).encode()
        layers = [*shared, noise(MIB, f"own{number}")]
        with closing(_Client(url)) as client:
            for blob in (config, *layers):
                client.blob(blob)
            client.manifest(f"v{number}", config, layers)

    def back(url: str, number: int) -> None:
        with closing(_Client(url)) as client:
            manifest = json.loads(client.get(f"/v2/{_REPO}/manifests/v{number}"))
            for entry in (manifest["config"], *manifest["layers"]):
                assert len(client.get(f"/v2/{_REPO}/blobs/{entry['digest']}")) == entry["size"]

    pushes, pulls = _beside(
        world,
        lambda url: _timed(lambda: _at_once(lambda number: one(url, number), _PUSHERS)),
        lambda url: _timed(lambda: _at_once(lambda number: back(url, number), _PUSHERS)),
    )
    what = f"{_PUSHERS} clients at once, images sharing {_SHARED} layers of {_SHARED_SIZE // MIB} MiB"
    return [_row(f"push, {what}", pushes), _row(f"pull, {what}", pulls)]


# 5 GiB over four workers


def _over_four_workers(world: World) -> list[Row]:
    free = shutil.disk_usage(world.folder).free
    assert free > _FREE, f"{free / GIB:.0f} GiB free; {_FREE // GIB} are wanted"
    block = noise(MIB, "bench") * (_CHUNK // MIB)
    hasher = hashlib.sha256()
    for _ in range(_LARGE // _CHUNK):
        hasher.update(block)
    digest = f"sha256:{hasher.hexdigest()}"
    with _ours(world, workers=4) as server:
        with spread(server, 4, timeout=120) as dealt:
            connections = [http.client.HTTPConnection(server.host, timeout=120) for _ in dealt]
            for connection, each in zip(connections, dealt, strict=True):
                connection.sock = each.socket
            total, longest = _chunks(connections, block, digest)
        memory = max(peak_memory(pid) for pid in server.worker_pids())
        pulled = download(f"{server.url}/v2/{_REPO}/blobs/{digest}", _LARGE, timeout=300).total
    with _theirs(world) as url:
        connections = [http.client.HTTPConnection(urlsplit(url).netloc, timeout=300) for _ in range(4)]
        their_total, their_longest = _chunks(connections, block, digest)
        for connection in connections:
            connection.close()
        their_pull = download(f"{url}/v2/{_REPO}/blobs/{digest}", _LARGE, timeout=300).total
    return [
        _row("push of 5 GiB in chunks of 64 MiB, each by another of 4 workers",
             {"tidegate": total, "docker-registry": their_total}),
        Row("the longest wait for an answer after its last byte", "s",
            {"tidegate": longest, "docker-registry": their_longest}, (Target("s", longest, _LONGEST),)),
        Row("peak memory of a worker meanwhile", "MiB", {"tidegate": memory}, (Target("MiB", memory, _MEMORY),)),
        _row("pull of it", {"tidegate": pulled, "docker-registry": their_pull}),
    ]  # fmt: skip


def _chunks(connections: Sequence[http.client.HTTPConnection], block: bytes, digest: str) -> tuple[float, float]:
    """Seconds for all of it, and of the longest wait."""
    began, longest = time.perf_counter(), 0.0
    where, _ = _asked(connections[0], "POST", f"/v2/{_REPO}/blobs/uploads/", 202)
    for number in range(_LARGE // len(block)):
        place = f"{number * len(block)}-{(number + 1) * len(block) - 1}"
        where, waited = _asked(connections[number % len(connections)], "PATCH", where, 202, block, place)
        longest = max(longest, waited)
    _, waited = _asked(connections[1], "PUT", _named(where, digest), 201)
    return time.perf_counter() - began, max(longest, waited)


def _asked(
    connection: http.client.HTTPConnection, method: str, path: str, status: int, body: bytes = b"", place: str = ""
) -> tuple[str, float]:
    """Where it goes on, and how long the answer took once everything was sent."""
    headers = {"Content-Type": "application/octet-stream"} | ({"Content-Range": place} if place else {})
    connection.request(method, _relative(path), body=body, headers=headers)
    sent = time.perf_counter()
    response = connection.getresponse()
    response.read()
    assert response.status == status, (method, path, response.status)
    return response.headers["Location"], time.perf_counter() - sent


def _relative(where: str) -> str:
    """A Location, which may name the host too."""
    return urlsplit(where)._replace(scheme="", netloc="").geturl()


def _named(where: str, digest: str) -> str:
    return f"{where}{'&' if '?' in where else '?'}digest={digest}"


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class _Client:
    """One kept-alive connection that pushes and pulls as docker does."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
        self._url = url

    def close(self) -> None:
        self._connection.close()

    def _ask(
        self, method: str, path: str, *expected: int, body: bytes = b"", kind: str = "application/octet-stream"
    ) -> tuple[http.client.HTTPResponse, bytes]:
        self._connection.request(
            method, _relative(path), body=body, headers={"Content-Type": kind, "Accept": ", ".join(OCI_KINDS)}
        )
        response = self._connection.getresponse()
        content = response.read()
        assert response.status in expected, (method, path, response.status, content[:300])
        return response, content

    def get(self, path: str) -> bytes:
        return self._ask("GET", path, 200)[1]

    def begin(self) -> str:
        """A session's URL."""
        where = self._ask("POST", f"/v2/{_REPO}/blobs/uploads/", 202)[0].headers["Location"]
        return where if where.startswith("http") else self._url + where

    def finish(self, where: str, digest: str) -> None:
        self._ask("PUT", _named(where, digest), 201)

    def blob(self, content: bytes) -> None:
        """Unless it is there."""
        digest = _digest(content)
        if self._ask("HEAD", f"/v2/{_REPO}/blobs/{digest}", 200, 404)[0].status == 404:
            where = self._ask("PATCH", self.begin(), 202, body=content)[0].headers["Location"]
            self.finish(where, digest)

    def manifest(self, tag: str, config: bytes, layers: Sequence[bytes]) -> None:
        kinds = [OCI_KINDS[0], *[OCI_KINDS[1]] * len(layers)]
        entries = [{"mediaType": kind, "digest": _digest(blob), "size": len(blob)}
                   for kind, blob in zip(kinds, (config, *layers), strict=True)]  # fmt: skip
        document = {"schemaVersion": 2, "mediaType": OCI_KINDS[2], "config": entries[0], "layers": entries[1:]}
        body = json.dumps(document).encode()
        self._ask("PUT", f"/v2/{_REPO}/manifests/{tag}", 201, body=body, kind=OCI_KINDS[2])
