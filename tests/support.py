"""Clients that see what really came over the wire, each on the worker a test wants, many at a time.

Nothing here decides what is right; a Got only says whether a body ended as it was announced. Where a test needs a
certain worker, the others are stopped while the connection is made, because the kernel would choose otherwise.
"""

import contextlib
import hashlib
import http.client
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real.tidegate import Tidegate, upstream_config

MIB = 1 << 20
CLIENTS = 50


@dataclass(frozen=True, slots=True, repr=False)
class Got:
    """One answer. `status` 0: the connection ended before one. `whole`: the body ended as its framing announced."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    whole: bool = False
    reason: str = ""
    seconds: float = 0.0

    def __repr__(self) -> str:
        return f"<Got {self.status} {self.reason!r} {len(self.body)} bytes{'' if self.whole else ', cut'}>"

    def is_blob(self, content: bytes) -> bool:
        """A complete 200 with exactly this content."""
        return self.status == 200 and self.whole and self.body == content


class Client:
    """One kept-alive connection."""

    def __init__(self, server: Tidegate, timeout: float = 30) -> None:
        host, port = server.host.split(":")
        self._connection = (
            http.client.HTTPSConnection(host, int(port), timeout=timeout, context=server.trust)
            if server.trust
            else http.client.HTTPConnection(host, int(port), timeout=timeout)
        )
        self._connection.connect()
        self.socket = self._connection.sock
        self.pid = 0  # the worker's, where spread() has placed this

    def send(self, path: str, method: str = "GET", **headers: str) -> None:
        """The request alone."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, headers=named)

    def start(self, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
        """The answer's head; its body is the caller's to read."""
        self.send(path, method, **headers)
        return self._connection.getresponse()

    def response(self) -> http.client.HTTPResponse:
        """The answer to what was sent."""
        return self._connection.getresponse()

    def get(self, path: str, method: str = "GET", **headers: str) -> Got:
        """The whole exchange. Raises TimeoutError when nothing comes any more."""
        began = time.monotonic()
        try:
            response = self.start(path, method, **headers)
        except (ConnectionError, http.client.HTTPException):
            return Got(0, {})
        body, whole = read_all(response)
        return Got(response.status, response.headers, body, whole, response.reason, time.monotonic() - began)

    def leave(self) -> None:
        """Ends the connection at once, as a killed client does, without waiting for the rest."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.close()

    def close(self) -> None:
        self._connection.close()


def read_all(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """What came of a body, and whether it is all of it."""
    pieces = []
    try:
        while piece := response.read1(256 << 10):
            pieces.append(piece)
    except (ConnectionError, http.client.HTTPException):
        return b"".join(pieces), False
    finally:
        response.close()  # read1 leaves it open at its end, and the connection would take no other request
    return b"".join(pieces), not response.length


@contextmanager
def client(server: Tidegate, timeout: float = 30) -> Iterator[Client]:
    """One connection to whichever worker takes it."""
    with contextlib.closing(Client(server, timeout)) as connected:
        yield connected


def get(server: Tidegate, path: str, method: str = "GET", **headers: str) -> Got:
    """One request on a connection of its own."""
    with client(server) as connected:
        return connected.get(path, method, **headers)


@contextmanager
def spread(server: Tidegate, count: int, timeout: float = 30) -> Iterator[list[Client]]:
    """`count` connections, dealt evenly to the workers, each knowing its worker's pid."""
    pids = server.worker_pids()
    with ExitStack() as stack:
        dealt = []
        for number, pid in enumerate(pids):
            with only(pid, pids):
                for _ in range(number, count, len(pids)):
                    made = stack.enter_context(client(server, timeout))
                    assert made.get("/v2/").status == 200
                    made.pid = pid
                    dealt.append(made)
        yield dealt


@contextmanager
def only(pid: int, pids: Sequence[int]) -> Iterator[None]:
    """All other workers stand still."""
    with ExitStack() as stack:
        for other in pids:
            if other != pid:
                stack.enter_context(stopped(other))
        yield


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process stands still until the block ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def crowd(clients: Sequence[Client], path: str, **headers: str) -> list[Got]:
    """All of them ask the same at the same time."""
    with ThreadPoolExecutor(len(clients)) as pool:
        return list(pool.map(lambda each: each.get(path, **headers), clients))


def assert_few(far: Any, most: int) -> int:
    """One chain of GETs; where its pauses add up to more than 2 s (they are jittered) the crowd also asks, once,
    whether it may have the blob, with a HEAD that is repeated once. How many requests that may be together."""
    methods = [request.method for request in far.log]
    assert 1 <= methods.count("GET") <= most, methods
    assert methods.count("HEAD") <= most // 2, methods
    return most + most // 2


def until(holds: Callable[[], Any], seconds: float = 10) -> Any:
    """What `holds` returns once that is true; fails when it does not become so."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.005)
    return found


def noise(size: int, seed: object = 0) -> bytes:
    """Bytes that nothing compresses, the same for the same seed."""
    return random.Random(f"{seed}/{size}").randbytes(size)


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def blob_path(repo: str, digest: str) -> str:
    return f"/v2/{repo}/blobs/{digest}"


def part(server: Tidegate, digest: str) -> Path:
    """Where a running fill writes."""
    return server.data / "ingest" / f"{digest.replace(':', '-')}.part"


def finished(server: Tidegate, digest: str) -> Path:
    """Where a finished blob lies."""
    algorithm, _, name = digest.partition(":")
    return server.data / "blobs" / algorithm / name[:2] / name


def kept(server: Tidegate, digest: str) -> bytes:
    """What the store has of a digest, once it has it: clients are not kept waiting for the disk."""
    until(finished(server, digest).exists)
    return finished(server, digest).read_bytes()


def written(server: Tidegate, digest: str) -> int:
    """Bytes a fill has written so far."""
    with contextlib.suppress(FileNotFoundError):
        return part(server, digest).stat().st_size
    return 0


def leader(server: Tidegate, digest: str) -> int:
    """The pid that holds the part's lock, 0 when none does."""
    with contextlib.suppress(FileNotFoundError):
        inode = part(server, digest).stat().st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[3] == "WRITE" and fields[5].endswith(f":{inode}"):
                return int(fields[4])
    return 0


def quick(url: str, **keys: Any) -> dict[str, Any]:
    """A configuration whose patience fits a test."""
    return upstream_config(url, **{"first_byte_deadline": "3s", "stall_timeout": "1s", **keys})
