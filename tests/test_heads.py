"""Request heads that are too large: each way to make one gets the same answer, an end, and is counted once."""

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes import Origin, Silence
from tests.real.tidegate import Tidegate, tidegate
from tests.support import blob_path, get, quick, until

KIB = 1 << 10
LIMIT = 64 * KIB
LINE = f"a line of the request's head is longer than {LIMIT} bytes"
HEAD = f"the request's head is longer than {LIMIT} bytes"
HEADERS = "the request has more than 128 headers"
INSTEAD = "send less, or raise server.max_header_size"
START = b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tidegate]:
    config = {"upstreams": {"registry.k8s.io": {}}}
    with tidegate(config, folder=tmp_path_factory.mktemp("tidegate"), workers=1) as running:
        yield running


@pytest.fixture
def once(shared: Tidegate) -> Iterator[Tidegate]:
    """A server that has one more connection to count after the test than before it."""
    before = counted(shared)
    yield shared
    assert counted(shared) == before + 1


@contextmanager
def connected(server: Tidegate) -> Iterator[socket.socket]:
    host, _, port = server.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as link:
        yield link


def answered(link: socket.socket) -> tuple[bytes, bytes]:
    """Status line and body of everything until the server's end of the connection. A reset is a failure: it may take
    the answer back."""
    pieces = []
    while piece := link.recv(1 << 16):
        pieces.append(piece)
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], body


def counted(server: Tidegate) -> float:
    return server.metrics().total("tidegate_connections_ended_total", reason="size")


def refused(link: socket.socket, sentence: str) -> None:
    line, body = answered(link)
    said = f"{sentence}: {INSTEAD}"
    assert line.decode().startswith(f"HTTP/1.1 431 tidegate: {said}")
    (error,) = json.loads(body)["errors"]
    assert error["code"] == "SIZE_INVALID"
    assert error["message"].startswith(said)
    assert "\n" not in error["message"]


WHOLE = {
    "many short headers": (START + b"a: b\r\n" * 8000 + b"\r\n", HEADERS),
    "one header more than allowed": (START + b"a: b\r\n" * 128 + b"\r\n", HEADERS),
    "one long header": (START + b"a: " + b"b" * 70 * KIB + b"\r\n\r\n", LINE),
    "one long name": (START + b"a" * 70 * KIB + b": b\r\n\r\n", LINE),
    "a long URL": (b"GET /" + b"a" * 70 * KIB + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", LINE),
    "some headers of middling size": (START + (b"a: " + b"b" * 4000 + b"\r\n") * 20 + b"\r\n", HEAD),
    "a URL and a header that are too long together": (
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\na: " + b"b" * 40_000 + b"\r\n\r\n",
        HEAD,
    ),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_head_that_is_too_large(once: Tidegate, kind: str) -> None:
    sent, sentence = WHOLE[kind]
    with connected(once) as link:
        link.sendall(sent)
        refused(link, sentence)


LONGER = f" is longer than {LIMIT} bytes"
ENDLESS = {
    "short headers": (START, b"a: b\r\n" * 100, HEADERS),
    "long headers": (START, b"a: " + b"b" * 8000 + b"\r\n", LONGER),
    "one header": (START + b"a: ", b"b" * 1000, LONGER),
    "a URL": (b"GET /", b"a" * 1000, LONGER),
    "empty lines": (b"", b"\r\n" * 500, LONGER),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_head_without_an_end(once: Tidegate, kind: str) -> None:
    """Who is still sending hears the answer: a connection closed with bytes unread would lose it."""
    first, piece, sentence = ENDLESS[kind]
    with connected(once) as link:
        link.sendall(first)
        until(lambda: heard(link, piece))
        for _ in range(5):
            time.sleep(0.02)  # for what closes the connection at once to have done it
            link.sendall(piece)
        line, body = answered(link)
    assert line.startswith(b"HTTP/1.1 431 tidegate: ")
    message = json.loads(body)["errors"][0]["message"]
    assert sentence in message
    assert INSTEAD in message
    assert get(once, "/v2/").status == 200


def heard(link: socket.socket, piece: bytes) -> bool:
    """Whether there is an answer; else sends more."""
    if select.select([link], [], [], 0.01)[0]:
        return True
    link.sendall(piece)
    return False


def test_who_never_stops_is_cut(once: Tidegate) -> None:
    with connected(once) as link:
        link.sendall(START)
        until(lambda: cut(link))


def cut(link: socket.socket) -> bool:
    try:
        link.sendall(b"a: b\r\n" * 100)
    except ConnectionError:
        return True
    return False


def test_a_head_behind_an_answer_ends_the_connection_after_it(far: Origin, tmp_path: Path) -> None:
    """There is no answering out of turn; it is counted all the same."""
    path = blob_path("registry.k8s.io/pause", far.add_blob("pause", b"late"))
    far.fault(path.rpartition("/")[2], Silence())
    with tidegate(quick(far.url), folder=tmp_path / "tidegate", workers=1) as server, connected(server) as link:
        link.sendall(START.replace(b"/v2/", path.encode()) + b"\r\n" + START)
        link.sendall(b"a: " + b"b" * 30_000 + b"\r\n")
        until(lambda: counted(server) or link.sendall(b"a: " + b"b" * 30_000 + b"\r\n"))
        line, _ = answered(link)
        assert line.startswith(b"HTTP/1.1 503 ")
        assert counted(server) == 1


@pytest.mark.parametrize("more", [b"a: b\r\n" * 120, b"a: " + b"b" * 60_000 + b"\r\n"], ids=["many", "long"])
def test_a_head_within_the_limits(shared: Tidegate, more: bytes) -> None:
    """And the next one on the same connection begins to count from zero."""
    before = counted(shared)
    with connected(shared) as link:
        for _ in range(2):
            link.sendall(START + more + b"\r\n")
            assert link.recv(15) == b"HTTP/1.1 200 OK"
            until(lambda: b"{}" in link.recv(1 << 16))
    assert counted(shared) == before


def test_a_larger_limit_allows_more_headers(tmp_path: Path) -> None:
    config = {"server": {"max_header_size": "128KiB"}}
    with tidegate(config, folder=tmp_path / "tidegate", workers=1) as server, connected(server) as link:
        link.sendall(START + b"a: b\r\n" * 200 + b"\r\n")
        assert link.recv(15) == b"HTTP/1.1 200 OK"
