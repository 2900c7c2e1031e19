"""The faults of an upstream seen through a proxy's CONNECT, with what each costs there: the same as without one.

The upstream speaks TLS and counts requests; the proxy counts tunnels, so that a failure cannot hide as a reconnect.
"""

import socket
from contextlib import ExitStack

import pytest

from tests.fakes import Cut, Drip, Flip, Hangup, Html, Silence, Stall, Status, in_thread, origin_in_thread
from tests.fakes.connect import Connect
from tests.real.certificates import authority
from tests.support import CLIENTS, MIB, assert_few, blob_path, crowd, finished, get, kept, noise, quick, spread

pytestmark = pytest.mark.real("openssl")
REPO = "kube-proxy"
HOST = "registry.example"  # known to the proxy alone
SIZE, BROKEN = 6 * MIB, 5 * MIB  # where the CDN cut bodies once


@pytest.fixture(scope="module")
def corp(tmp_path_factory):
    return authority(tmp_path_factory.mktemp("ca"), hosts=[HOST])


class Tunnelled:
    """An upstream behind a proxy: `far` is what answers, start(**keys) a tidegate of four workers."""

    def __init__(self, far, proxy, start):
        self.far = far
        self.proxy = proxy
        self.start = start
        self.content = noise(SIZE)
        self.digest = far.add_blob(REPO, self.content)
        self.path = blob_path(REPO, self.digest)

    def pulled_by_50(self, **keys):
        """Their answers, and the server."""
        server = self.start(**keys)
        with spread(server, CLIENTS) as clients:
            return crowd(clients, self.path), server

    def tunnels(self):
        """One request needs at most one, and nothing but this host was asked for."""
        assert {(entry.method, entry.path) for entry in self.proxy.log} <= {("CONNECT", f"{HOST}:443")}
        return self.proxy.log.count()


@pytest.fixture
def tunnelled(corp, tidegate):
    with ExitStack() as stack:
        far = stack.enter_context(origin_in_thread(corp.context()))
        proxy = stack.enter_context(in_thread(Connect(names={f"{HOST}:443": far.host})))

        def start(**keys):
            own = {"proxy": proxy.url, "ca_file": str(corp.ca), "allow_private": False, "stall_timeout": "2s", **keys}
            return tidegate(quick(f"https://{HOST}", **own), workers=4)

        yield Tunnelled(far, proxy, start)


REFUSALS = {
    "404": (Status(404), 404, 1),
    "403": (Status(403), 403, 1),
    "429": (Status(429, {"Retry-After": "17"}), 503, 1),
    "500": (Status(500), 503, 4),
    "never": (Silence(), 503, 4),
    "hangs up": (Hangup(), 503, 8),  # aiohttp asks again by itself on a kept-alive connection
    "a web page": (Html(), 503, 4),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refused_blob_costs_one_chain(tunnelled, kind):
    fault, status, most = REFUSALS[kind]
    tunnelled.far.fault(tunnelled.digest, fault)
    answers, server = tunnelled.pulled_by_50(first_byte_deadline="2s")
    assert {(got.status, got.whole) for got in answers} == {(status, True)}
    assert max(got.seconds for got in answers) < 8
    assert tunnelled.tunnels() <= assert_few(tunnelled.far, most)
    assert not finished(server, tunnelled.digest).exists()
    if kind == "429":
        assert {got.headers["Retry-After"] for got in answers} <= {"16", "17"}


BREAKS = {"cut": [Cut(BROKEN)], "stall": [Stall(BROKEN)], "cut, then 400": [Cut(BROKEN), Status(400)]}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_body_that_breaks_at_5_mib_is_resumed_in_a_new_tunnel(tunnelled, kind):
    for fault in BREAKS[kind]:
        tunnelled.far.fault(tunnelled.digest, Drip(512 << 10, 0.02), fault, times=1)
    answers, server = tunnelled.pulled_by_50()
    assert all(got.is_blob(tunnelled.content) for got in answers)
    first, *others = tunnelled.far.log
    assert "range" not in first.headers
    assert len(others) == len(BREAKS[kind])
    for request in others:
        # Where it broke; what was in a buffer, here or at the proxy, may have died with the connection.
        resumed = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
        assert BROKEN - 2 * MIB < resumed <= BROKEN
    assert others[-1].sent == SIZE - resumed
    assert 2 <= tunnelled.tunnels() <= 1 + len(others)
    assert kept(server, tunnelled.digest) == tunnelled.content


def test_one_wrong_byte_is_nobodys_whole_body(tunnelled):
    tunnelled.far.fault(tunnelled.digest, Flip(BROKEN))
    answers, server = tunnelled.pulled_by_50()
    assert not any(got.status == 200 and got.whole for got in answers)
    assert not finished(server, tunnelled.digest).exists()
    assert tunnelled.far.count() == 2
    assert all("range" not in request.headers for request in tunnelled.far.log)
    assert tunnelled.tunnels() <= 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_cold_blob_costs_one_request_in_one_tunnel(tunnelled, method):
    server = tunnelled.start()
    with spread(server, CLIENTS) as clients:
        if method == "GET":
            assert all(got.is_blob(tunnelled.content) for got in crowd(clients, tunnelled.path))
        else:
            assert {each.get(tunnelled.path, "HEAD").headers["Content-Length"] for each in clients} == {str(SIZE)}
    assert [request.method for request in tunnelled.far.log] == [method]
    assert tunnelled.tunnels() == 1


# The proxy's own refusals


@pytest.mark.parametrize("status", [403, 407, 502, 503])
def test_an_answer_to_connect_is_named_and_costs_one_chain(tunnelled, status):
    tunnelled.proxy.status = status
    tunnelled.proxy.offers = ["NTLM"]
    answers, _ = tunnelled.pulled_by_50()
    assert {(got.status, got.whole) for got in answers} == {(503, True)}
    helped = " and only NTLM is offered; this speaks Basic, put a helper in front" if status == 407 else ""
    assert {got.reason for got in answers} == {
        f"tidegate: {HOST}: through proxy 127.0.0.1: CONNECT was answered {status}{helped}; run tidegate doctor"
    }
    assert tunnelled.far.count() == 0
    assert 1 <= tunnelled.tunnels() <= 4


def test_a_proxy_that_takes_the_connection_and_says_nothing_ends_in_time(tunnelled):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        server = tunnelled.start(proxy=url, first_byte_deadline="2s", connect_timeout="1s")
        got = get(server, tunnelled.path)
    assert (got.status, got.whole) == (503, True)
    assert got.seconds < 5
    assert got.headers["Retry-After"]


@pytest.mark.real("openssl")
def test_a_proxy_that_takes_connections_and_says_nothing_is_named(tidegate):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        server = tidegate(quick("https://registry.test", proxy=url, connect_timeout="300ms"), workers=1)
        said = "503 tidegate: registry.test: through proxy 127.0.0.1: no connection in time; run tidegate doctor"
        assert said in f"503 {get(server, '/v2/pause/manifests/3.9').reason}"
