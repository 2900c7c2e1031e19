"""Bodies on the wire: no response runs into the next one, no cut looks whole, ranges and conditions as RFC 9110 says.

Pipelining is done on a bare socket, because every client library hides what comes behind a body.
"""

import itertools
import os
import signal
import socket
import threading
from dataclasses import dataclass

import pytest

from tests.fakes import Cut, Drip, Flip, NoLength, Stall, Status
from tests.support import (
    MIB,
    blob_path,
    digest_of,
    get,
    kept,
    leader,
    noise,
    quick,
    spread,
    until,
    written,
)

REPO = "etcd"
BIG = 3 * MIB
MANIFEST = b'{"schemaVersion": 2}'
PING = b"GET /v2/ HTTP/1.1\r\nHost: cache\r\nConnection: close\r\n\r\n"


def exchange(server, path, *lines, method="GET", version="1.1", behind=PING):
    """Everything that comes back for one request with another one right behind it, until the connection ends."""
    host, port = server.host.split(":")
    request = "\r\n".join([f"{method} {path} HTTP/{version}", "Host: cache", *lines, "", ""]).encode()
    pieces = []
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        sock.sendall(request + behind)
        try:
            while piece := sock.recv(1 << 20):
                pieces.append(piece)
        except ConnectionResetError:
            pass
    return b"".join(pieces)


def cut_off(raw, method="GET"):
    """One answer from the front: status, headers, body, what stands behind it. A short body takes all there is."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    status = int(first.split()[1])
    if method == "HEAD" or status == 304:
        return status, headers, b"", rest
    if headers.get("transfer-encoding") == "chunked":
        body, rest = dechunk(rest)
        return status, headers, body, rest
    length = int(headers["content-length"])
    return status, headers, rest[:length], rest[length:]


def dechunk(rest):
    body = b""
    while (line := rest.partition(b"\r\n"))[1]:
        size = int(line[0], 16)
        body, rest = body + line[2][:size], line[2][size + 2 :]
        if size == 0:
            break
    return body, rest


@dataclass(frozen=True)
class Shelf:
    """What one test finds at the origin; nobody else asks for it."""

    big: bytes
    small: bytes

    @property
    def path(self):
        return blob_path(REPO, digest_of(self.big))


@pytest.fixture
def shelf(shared, request):
    made = Shelf(noise(BIG, request.node.name), noise(5000, request.node.name))
    for content in (made.big, made.small):
        shared[0].add_blob(REPO, content)
    shared[0].add_manifest(REPO, "v1", MANIFEST)
    return made


BEHIND = {
    "a big blob": ("big", [], "GET", 200),
    "a small blob": ("small", [], "GET", 200),
    "a range": ("big", ["Range: bytes=1000000-2999999"], "GET", 206),
    "a HEAD": ("big", [], "HEAD", 200),
    "a 304": ("small", ["If-None-Match: *"], "GET", 304),
    "a 416": ("small", ["Range: bytes=9999999-"], "GET", 416),
    "a 405": ("small", [], "DELETE", 405),
}


@pytest.mark.parametrize("what", BEHIND)
def test_a_pipelined_request_is_answered_behind(shared, shelf, what):
    kind, lines, method, expected = BEHIND[what]
    content = getattr(shelf, kind)
    bodies = {200: content if method == "GET" else b"", 206: content[1000000:3000000], 304: b""}
    for _ in ("cold", "hit"):
        raw = exchange(shared[1], blob_path(REPO, digest_of(content)), *lines, method=method)
        status, _, body, rest = cut_off(raw, method)
        assert status == expected
        assert body == bodies.get(status, body)
        assert rest.startswith(b"HTTP/1.1 200 ")
        assert cut_off(rest)[0::2] == (200, b"{}")


@pytest.mark.parametrize("path", [f"/v2/{REPO}/manifests/v1", f"/v2/{REPO}/manifests/none", "/v2/%00/manifests/a"])
def test_a_pipelined_request_is_answered_behind_what_is_no_blob(shared, shelf, path):
    status, _, body, rest = cut_off(exchange(shared[1], path))
    assert body == MANIFEST if status == 200 else b"errors" in body
    assert cut_off(rest)[0::2] == (200, b"{}")


def test_a_pipelined_request_is_answered_behind_a_chunked_body(shared, shelf):
    far, server = shared
    far.fault(digest_of(shelf.big), NoLength())
    status, headers, body, rest = cut_off(exchange(server, shelf.path))
    assert (status, headers["transfer-encoding"], body) == (200, "chunked", shelf.big)
    assert cut_off(rest)[0] == 200


CUTS = {
    "wrong byte": [(Flip(MIB),)],
    "wrong byte, size unknown": [(Flip(MIB), NoLength())],
    "cut and then refused": [(Cut(2 * MIB),), (Status(404),)],
    "cut and then refused, size unknown": [(NoLength(), Cut(2 * MIB)), (Status(404),)],
    "stalled and then refused": [(Stall(2 * MIB),), (Status(403),)],
    "wrong byte behind a cut": [(Cut(2 * MIB),), (Flip(2 * MIB + 100),)],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("lines", [[], ["Range: bytes=500-"]], ids=["whole", "range"])
def test_nothing_comes_behind_a_cut(shared, shelf, cut, lines):
    """A short body with another answer behind it on the same connection would be taken for a whole one."""
    far, server = shared
    *first, last = CUTS[cut]
    for faults in first:
        far.fault(digest_of(shelf.big), *faults, times=1)
    far.fault(digest_of(shelf.big), *last)
    status, headers, body, rest = cut_off(exchange(server, shelf.path, *lines))
    if status >= 400:
        assert cut_off(rest)[0] == 200  # an error in time, whole, and so is what follows
        return
    assert len(body) < BIG - (500 if status == 206 else 0)
    assert rest == b""
    assert b"HTTP/1.1 200" not in body
    if "transfer-encoding" not in headers:
        assert int(headers["content-length"]) > len(body)


def test_nothing_comes_behind_the_cut_of_a_killed_leader(tidegate, far):
    content = noise(BIG)
    digest = far.add_blob(REPO, content)
    far.fault(digest, Drip(64 << 10, 0.02))
    server = tidegate(quick(far.url), workers=1)

    def kill():
        until(lambda: written(server, digest) > MIB)
        os.kill(leader(server, digest), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    status, _, body, rest = cut_off(exchange(server, blob_path(REPO, digest)))
    killer.join()
    assert status == 200
    assert len(body) < BIG
    assert content.startswith(body)
    assert rest == b""


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_empty_and_one_byte_blobs(tidegate, far, framing):
    server = tidegate(quick(far.url), workers=2)
    if framing == "chunked":
        far.fault("/v2/", NoLength())
    with spread(server, 6) as clients:
        for content, algorithm in itertools.product((b"", b"x"), ("sha256", "sha512")):
            digest = far.add_blob(REPO, content, algorithm)
            path = blob_path(REPO, digest)
            for got in (each.get(path) for each in clients):
                assert got.is_blob(content)
                assert got.headers["Docker-Content-Digest"] == digest
            assert kept(server, digest) == content
            head = clients[0].get(path, "HEAD")
            assert (head.status, head.headers["Content-Length"]) == (200, str(len(content)))
            beyond = clients[0].get(path, Range="bytes=1-")
            assert (beyond.status, beyond.headers["Content-Range"]) == (416, f"bytes */{len(content)}")
            assert [request.method for request in far.log.select(contains=digest)] == ["GET"]


@pytest.mark.parametrize("content", [b"", b"y"], ids=["empty", "one byte"])
def test_a_tiny_blob_with_the_wrong_digest_never_arrives(shared, content):
    far, server = shared
    digest = digest_of(b"something else than " + content)
    far.add_blob(REPO, content)
    far.repos[REPO].blobs[digest] = content
    got = get(server, blob_path(REPO, digest))
    assert got.status == 503 or not got.whole


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_http_1_0_gets_a_length_or_an_error(shared, shelf, framing):
    far, server = shared
    if framing == "chunked":
        far.fault(digest_of(shelf.big), NoLength(), Drip(MIB, 0.05))
    far.fault(digest_of(shelf.small), NoLength(), Flip(0))
    status, headers, body, rest = cut_off(exchange(server, shelf.path, version="1.0", behind=b""))
    assert (status, headers["content-length"], body, rest) == (200, str(BIG), shelf.big, b"")
    refused = exchange(server, blob_path(REPO, digest_of(shelf.small)), version="1.0", behind=b"")
    assert cut_off(refused)[0] == 503
