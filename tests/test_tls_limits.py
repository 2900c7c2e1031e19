"""The limits of connections hold under TLS as they do without: tests/test_load.py has all of them."""

import json
import socket
import time
from contextlib import suppress

import pytest

from tests.real.certificates import authority
from tests.support import MIB, blob_path, get, noise, quick, until

pytestmark = pytest.mark.real("openssl")
PATH = "pause"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def limited(far, tidegate, made):
    """limited(write_timeout="1s", ...) is a server with TLS and these limits, a path and its content."""

    def start(**server):
        keys = {"tls": {"cert_file": str(made.certificate), "key_file": str(made.key)}, "server": server}
        running = tidegate(quick(far.url) | keys, workers=1, trust=made.trust())
        content = noise(24 * MIB)
        path = blob_path(PATH, far.add_blob(PATH, content))
        assert get(running, path).is_blob(content)
        return running, path

    return start


def connect(server, trusted):
    """A client whose kernel holds little of what it does not read."""
    host, _, port = server.host.partition(":")
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    plain.settimeout(30)
    plain.connect((host, int(port)))
    return trusted.wrap_socket(plain, server_hostname=host)


def ask(link, path):
    link.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())


def ended(server, reason):
    return server.metrics().total("tidegate_connections_ended_total", reason=reason)


def test_who_takes_nothing_is_cut_and_who_takes_little_is_not(limited, made):
    server, path = limited(write_timeout="1s")
    with connect(server, made.trust()) as stuck, connect(server, made.trust()) as slow:
        ask(stuck, path)
        ask(slow, path)
        for _ in range(12):
            assert slow.recv(8192)
            time.sleep(0.25)
        assert ended(server, "write") == 1
        got = 0
        with suppress(OSError):  # cut: no farewell of TLS either
            while piece := stuck.recv(1 << 16):
                got += len(piece)
        assert got < 8 * MIB
        assert slow.recv(8192), "it was taking"
    until(lambda: "the client took nothing for 1 s" in server.stdout)
    assert "Traceback" not in server.stderr


def test_where_all_are_in_use_a_new_one_is_told_to_come_back(limited, made):
    server, path = limited(max_connections=2)
    with connect(server, made.trust()) as one, connect(server, made.trust()) as two:
        for each in (one, two):
            ask(each, path)
            assert each.recv(12) == b"HTTP/1.1 200"
        refused = get(server, "/v2/")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert json.loads(refused.body)["errors"][0]["code"] == "UNAVAILABLE"
    until(lambda: get(server, "/v2/").status == 200)
    assert ended(server, "full") >= 1


def test_who_does_not_go_on_with_a_head_is_cut(limited, made):
    server, _ = limited(header_timeout="500ms")
    with connect(server, made.trust()) as link:
        link.sendall(b"GET /v2/ HTTP/1.1\r\nHost:")
        assert link.recv(12) == b"HTTP/1.1 408"
    assert ended(server, "header") == 1
