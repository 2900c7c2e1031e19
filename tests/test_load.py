"""Many clients that mean no good, or only have a slow line: memory stays bounded, and nobody else notices."""

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.fakes import Origin, Silence, Stall
from tests.real.tidegate import Tidegate, tidegate
from tests.support import MIB, blob_path, digest_of, get, noise, quick, until

SLOW, IDLE, LORIS = 500, 2000, 200
ROOM = 64
"""MiB a worker may grow by: what hundreds of connections weigh, and nothing of what they ask for or send."""
MIRROR, OURS = "registry.k8s.io/pause", "mine.example/app"


@pytest.fixture(autouse=True, scope="module")
def _many_descriptors() -> Iterator[None]:
    """This process holds the clients' ends."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


Limited = Callable[..., Tidegate]


@pytest.fixture
def limited(far: Origin, tmp_path: Path) -> Iterator[Limited]:
    """limited(workers=2, header_timeout="2s", ...) starts a server that can be pushed to, with these limits."""
    with ExitStack() as stack:

        def start(workers: int = 2, **server: object) -> Tidegate:
            config = {"local": {"names": ["mine.example"]}, "server": server, **quick(far.url)}
            return stack.enter_context(tidegate(config, folder=tmp_path / "tidegate", workers=workers))

        yield start


@pytest.fixture
def small(far: Origin) -> tuple[str, bytes]:
    """The path and content of what healthy clients ask for."""
    content = noise(300_000)
    return blob_path(MIRROR, far.add_blob("pause", content)), content


def connect(server: Tidegate, window: int = 0) -> socket.socket:
    """A connection; with `window` the kernel holds little of what is not read."""
    host, _, port = server.host.partition(":")
    link = socket.socket()
    if window:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    link.settimeout(30)
    link.connect((host, int(port)))
    return link


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def answered(link: socket.socket) -> bytes:
    """Everything until the server's end of the connection."""
    pieces = []
    with suppress(ConnectionError):
        while piece := link.recv(1 << 16):
            pieces.append(piece)
    return b"".join(pieces)


def memory(pid: int, name: str) -> float:
    """MiB: VmRSS is now, VmHWM the most there ever was."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def held(pid: int) -> int:
    """Sockets and blobs a worker has open: what a client that was forgotten would leave."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return sum(target.startswith("socket:") or "/blobs/" in target or "/ingest/" in target for target in found)


@contextmanager
def bounded(server: Tidegate, *first: str) -> Iterator[None]:
    """Peak memory is bounded, and what was open before is what is open afterwards. `first` is asked for before that,
    so that what is opened once and for all is open."""
    for path in (*first, "/metrics") * 8:
        get(server, path)
    pids = server.worker_pids()
    until(lambda: settled(pids))
    files, sizes = {pid: held(pid) for pid in pids}, {pid: memory(pid, "VmRSS") for pid in pids}
    yield
    assert server.worker_pids() == pids, "a worker died"
    grown = {pid: memory(pid, "VmHWM") - sizes[pid] for pid in pids}
    assert max(grown.values()) < ROOM, grown
    until(lambda: all(held(pid) <= files[pid] + 2 for pid in pids))  # kept ways to the upstream


def settled(pids: list[int]) -> bool:
    before = [held(pid) for pid in pids]
    time.sleep(0.1)
    return before == [held(pid) for pid in pids]


def ended(server: Tidegate, reason: str) -> float:
    return server.metrics().total("tidegate_connections_ended_total", reason=reason)


# Many at a time


def test_500_slow_readers_of_a_cold_blob(limited: Limited, far: Origin, small: tuple[str, bytes]) -> None:
    server = limited()
    content = noise(24 * MIB)
    path = blob_path(MIRROR, far.add_blob("pause", content))
    with bounded(server, small[0]), ExitStack() as stack:
        slow = [stack.enter_context(connect(server, window=16 << 10)) for _ in range(SLOW)]
        for each in slow:
            each.sendall(head("GET", path))
        assert all(each.recv(12) == b"HTTP/1.1 200" for each in slow)
        for _ in range(3):
            for each in slow:
                assert each.recv(4096), "a slow client was cut"
            assert get(server, path).is_blob(content)
            assert get(server, small[0]).is_blob(small[1])
    assert far.count(contains=path.rpartition("/")[2]) == 1


def test_2000_idle_connections_keep_nobody_out(limited: Limited, small: tuple[str, bytes]) -> None:
    server = limited(max_connections=IDLE // 2)
    with bounded(server, small[0]), ExitStack() as stack:
        for _ in range(2):
            for _ in range(IDLE // 2):
                stack.enter_context(connect(server))
            time.sleep(1.2)  # who has just come is left alone for a second
        assert sum(held(pid) for pid in server.worker_pids()) > IDLE * 0.4, "the idle ones are not even there"
        for _ in range(50):
            assert get(server, small[0]).is_blob(small[1])
        assert ended(server, "idle") > 0


def test_slow_loris(limited: Limited, small: tuple[str, bytes]) -> None:
    """A head that comes byte by byte gets 408; a fat one that never ends holds no more than its limit."""
    server = limited(header_timeout="2s")
    with bounded(server, small[0]), ExitStack() as stack:
        loris = [stack.enter_context(connect(server)) for _ in range(LORIS)]
        for number, each in enumerate(loris):
            each.sendall(head("GET", "/v2/")[:-2] + f"X: {'x' * (60_000 if number % 2 else 1)}".encode())
        for _ in range(8):
            time.sleep(0.1)
            for each in loris:
                each.sendall(b"x")
            assert get(server, small[0]).is_blob(small[1])
        for each in loris:
            answer = answered(each)
            assert answer.startswith(b"HTTP/1.1 408 tidegate: no whole request within 2 s\r\n")
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["errors"][0]["code"] == "UNKNOWN"
        assert ended(server, "header") == LORIS


def test_heads_behind_an_answer_that_takes_its_time(limited: Limited, far: Origin) -> None:
    """Pipelining would be a way to have heads kept without an end to wait for."""
    server = limited()
    path = blob_path(MIRROR, far.add_blob("pause", b"late"))
    far.fault(path.rpartition("/")[2], Silence())
    with bounded(server), ExitStack() as stack:
        links = [stack.enter_context(connect(server)) for _ in range(LORIS // 2)]  # 90 MB, were they kept
        for each in links:
            each.sendall(head("GET", path) + head("GET", "/v2/")[:-2])
            flood(each, b"X: " + b"x" * 8000 + b"\r\n", 900_000)
        assert get(server, "/v2/").status == 200
        for each in links:
            assert answered(each).count(b"HTTP/1.1 503") == 1


# Bodies


def flood(link: socket.socket, piece: bytes, most: int) -> None:
    """Sends until the other side has had enough, or `most` bytes have gone."""
    with suppress(ConnectionError):
        for _ in range(0, most, len(piece)):
            link.sendall(piece)


CHUNK = b"%x\r\n%b\r\n" % (MIB, bytes(MIB))
FRAMES = {"announced": (f"Content-Length: {10 << 30}", bytes(MIB)), "endless": ("Transfer-Encoding: chunked", CHUNK)}
UNWANTED = {
    200: ("GET", "/v2/"),
    405: ("PUT", f"/v2/{MIRROR}/manifests/1"),
    202: ("POST", f"/v2/{OURS}/blobs/uploads/"),
    413: ("PUT", f"/v2/{OURS}/manifests/1"),
}


def forever(server: Tidegate, method: str, path: str, framing: str) -> bytes:
    """What is answered to a body that does not end."""
    line, piece = FRAMES[framing]
    with connect(server) as link:
        link.sendall(head(method, path, line))
        sender = threading.Thread(target=flood, args=(link, piece, 10 << 30))
        sender.start()
        got = answered(link)
        sender.join(20)
        assert not sender.is_alive(), "it is still taken"
    return got


@pytest.mark.parametrize("framing", FRAMES)
def test_bodies_nobody_wants(limited: Limited, small: tuple[str, bytes], framing: str) -> None:
    """Answered, and the connection closed, although the client would go on for ever."""
    server = limited()
    with bounded(server, small[0]), ThreadPoolExecutor(len(UNWANTED)) as pool:
        answers = [pool.submit(forever, server, *asked, framing) for asked in UNWANTED.values()]
        assert get(server, small[0]).is_blob(small[1])
        for status, got in zip(UNWANTED, answers, strict=True):
            assert got.result().startswith(f"HTTP/1.1 {status} ".encode())
            assert b"\r\nConnection: close\r\n" in got.result()


@pytest.mark.parametrize("framing", FRAMES)
def test_a_push_that_is_far_too_large_goes_to_the_disk_alone(
    limited: Limited, small: tuple[str, bytes], framing: str
) -> None:
    server = limited()
    line, piece = FRAMES[framing]
    path = f"/v2/{OURS}/blobs/uploads/?digest={digest_of(b'never')}"
    with bounded(server, small[0]):
        with connect(server) as link:
            link.sendall(head("POST", path, line))
            flood(link, piece, 2 * ROOM * MIB)
            assert get(server, small[0]).is_blob(small[1])
        until(lambda: not any((server.data / "local/uploads").iterdir()))


def test_a_head_or_framing_without_end(limited: Limited) -> None:
    """What is no body is held in memory: it has a size."""
    server = limited(max_header_size="16KiB")
    field = b"X: " + b"x" * 8000 + b"\r\n"
    with bounded(server):
        with connect(server) as link:
            link.sendall(head("GET", "/v2/")[:-2])
            flood(link, field, MIB)
            assert answered(link).startswith(b"HTTP/1.1 431 tidegate: the request's head is longer than 16384 bytes")
        with connect(server) as link:
            link.sendall(head("GET", "/v2/")[:-2] + b"X: " + b"x" * 17_000 + b"\r\n\r\n")
            assert b" 431 tidegate: a line of the request's head is longer" in answered(link)
        with connect(server) as link:
            link.sendall(head("PUT", f"/v2/{OURS}/manifests/1", "Transfer-Encoding: chunked") + b"1")
            flood(link, b";" + b"x" * 60_000, 100 * MIB)
            answered(link)
        assert ended(server, "size") == 3


# One who does not go on


def test_a_stalled_upload_is_told_and_can_be_gone_on_with(limited: Limited) -> None:
    server = limited(body_timeout="1s")
    session = get(server, f"/v2/{OURS}/blobs/uploads/", "POST").headers["Location"]
    with connect(server) as link:
        link.sendall(head("PATCH", session, "Content-Length: 6") + b"abc")
        answer = answered(link)
    assert answer.startswith(b"HTTP/1.1 408 tidegate: nothing more of the body within 1 s\r\n")
    assert get(server, session).headers["Range"] == "0-2"
    with connect(server) as link:
        link.sendall(head("PUT", f"{session}?digest={digest_of(b'abcdef')}", "Content-Length: 3", "Connection: close"))
        time.sleep(0.5)
        link.sendall(b"def")
        assert answered(link).startswith(b"HTTP/1.1 201 ")


def test_who_takes_nothing_is_cut_and_who_takes_little_is_not(limited: Limited, far: Origin) -> None:
    server = limited(write_timeout="1s")
    content = noise(24 * MIB)
    path = blob_path(MIRROR, far.add_blob("pause", content))
    assert get(server, path).is_blob(content)
    with bounded(server), connect(server, 16 << 10) as stuck, connect(server, 16 << 10) as slow:
        for each in (stuck, slow):
            each.sendall(head("GET", path))
        for _ in range(12):
            assert slow.recv(8192)
            time.sleep(0.25)
        assert ended(server, "write") == 1
        assert len(answered(stuck)) < MIB
        assert slow.recv(8192), "it was taking"
    assert "127.0.0.1 GET blob" in server.stdout
    until(lambda: "the client took nothing for 1 s" in server.stdout)


def test_a_client_that_waits_for_us_is_not_cut(limited: Limited, far: Origin) -> None:
    """The upstream stalls, longer than a client may."""
    server = limited(write_timeout="300ms", body_timeout="300ms", header_timeout="300ms")
    content = noise(MIB)
    digest = far.add_blob("pause", content)
    far.fault(digest, Stall(MIB // 2), times=1)
    got = get(server, blob_path(MIRROR, digest))
    assert got.is_blob(content)
    assert got.seconds > 0.9


def test_where_all_are_in_use_a_new_one_is_told_to_come_back(limited: Limited, far: Origin) -> None:
    server = limited(workers=1, max_connections=2)
    content = noise(24 * MIB)
    path = blob_path(MIRROR, far.add_blob("pause", content))
    assert get(server, path).is_blob(content)
    until(lambda: settled(server.worker_pids()))  # that connection has ended
    with connect(server, 16 << 10) as one, connect(server, 16 << 10) as two:
        for each in (one, two):
            each.sendall(head("GET", path))
            assert each.recv(12) == b"HTTP/1.1 200"
        refused = get(server, "/v2/")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert json.loads(refused.body)["errors"][0]["code"] == "UNAVAILABLE"
    until(lambda: get(server, "/v2/").status == 200)
    assert ended(server, "full") >= 1
    assert "all 2 connections of this worker are in use" in server.stderr
