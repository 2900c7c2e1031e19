"""What counts as this machine: peers, hosts, headers of proxies and browsers, whatever a client writes into them."""

import ipaddress

import pytest
from aiohttp import HttpVersion10
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.whence import is_local_name, parse_address, whence
from tests.unit.callers import HERE, asked


def networks(*texts):
    return [ipaddress.ip_network(text) for text in texts]


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:5000", "localhost.", "localhost.:80", "127.0.0.1:5000", "[::1]", "[::1]:5000"]
)
def test_this_machine(peer, host):
    assert whence(asked(peer, {"Host": host}), []).foreign == ""


@pytest.mark.parametrize("peer", ["10.0.0.9", "128.0.0.1", "::2", "::ffff:10.0.0.9", "fe80::1%eth0", "0.0.0.0"])
def test_another_machine(peer):
    assert whence(asked(peer), []).foreign.startswith("it came from ")


@pytest.mark.parametrize("peer", [None, "/run/sock", "not an address"])
def test_no_network_address(peer):
    assert whence(asked(peer), []) == whence(asked(None), [])
    assert whence(asked(peer), []).foreign == "it did not come over a network address"


OTHER_HOSTS = [
    "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost", "127.0.0.2", "::1", "",
    "localhost:5000:5000", "localhost:x", "user@localhost", "localhost/", "localhost..", "[::1", "[::1]x", "0.0.0.0",
]  # fmt: skip


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_another_host_is_not_this_machine(host):
    assert "Host" in whence(asked(headers={"Host": host}), []).foreign


@given(st.text(max_size=30))
def test_any_host_is_local_or_not(text):
    if is_local_name(text):
        assert text.strip().lower().startswith(("localhost", "127.0.0.1", "[::1]"))


def test_one_host_and_only_one():
    assert whence(asked(headers={}), []).foreign
    assert whence(asked(headers=[("Host", "localhost"), ("Host", "localhost")]), []).foreign


@pytest.mark.parametrize(
    "name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "x-forwarded-proto", "Via", "X-Real-IP", "Client-IP"]
)
def test_a_sign_of_a_proxy_is_enough(name):
    found = whence(asked(headers={**HERE, name: "127.0.0.1"}), [])
    assert name.lower() in found.foreign
    assert found.address == "127.0.0.1"


def test_a_proxy_that_adds_nothing_but_speaks_http_1_0():
    assert "HTTP/1.0" in whence(asked(version=HttpVersion10), []).foreign


@pytest.mark.parametrize("name", ["Origin", "Sec-Fetch-Site"])
@pytest.mark.parametrize("value", ["http://localhost:5000", "null", ""])
def test_a_web_page_is_not_a_tool(name, value):
    assert "web page" in whence(asked(headers={**HERE, name: value}), []).foreign
    forwarded = {**HERE, name: value, "X-Forwarded-For": "127.0.0.1"}
    assert "web page" in whence(asked(headers=forwarded), networks("127.0.0.1")).foreign


CHAINS = [
    # peer, trusted, X-Forwarded-For, the client, whether it is this machine
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1", "127.0.0.1", True),
    ("::1", ["::1"], "::1", "::1", True),
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.2", "127.0.0.2", True),
    ("127.0.0.1", ["127.0.0.1"], "[::1]:4000", "::1", True),
    ("127.0.0.1", ["127.0.0.1"], "10.0.0.9", "10.0.0.9", False),
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1, 10.0.0.9", "10.0.0.9", False),
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1,10.0.0.9:1234", "10.0.0.9", False),
    ("127.0.0.1", ["127.0.0.1"], "10.0.0.9, 127.0.0.1", "10.0.0.9", False),
    ("127.0.0.1", ["127.0.0.1", "10.0.0.0/8"], "127.0.0.1, 10.0.0.9", "127.0.0.1", False),
    ("10.0.0.2", ["10.0.0.2"], "127.0.0.1", "127.0.0.1", False),
    ("10.0.0.2", ["10.0.0.0/8"], "2001:db8::1, 10.0.0.3", "2001:db8::1", False),
    ("127.0.0.1", ["127.0.0.1"], "unknown", "", False),
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1, ", "", False),
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1, localhost", "", False),
    ("127.0.0.1", ["127.0.0.1"], "", "", False),
    ("127.0.0.1", ["10.0.0.2"], "127.0.0.1", "127.0.0.1", False),
]


@pytest.mark.parametrize(("peer", "trusted", "chain", "client", "here"), CHAINS)
def test_behind_proxies(peer, trusted, chain, client, here):
    found = whence(asked(peer, {**HERE, "X-Forwarded-For": chain}), networks(*trusted))
    assert (found.address, not found.foreign) == (client, here)


FORWARDED = [
    ("for=127.0.0.1", "127.0.0.1", True),
    ('For="[::1]:4711";proto=http', "::1", True),
    ('for=127.0.0.1, for="10.0.0.9:80"', "10.0.0.9", False),
    ('for="127.0.0.1, for=10.0.0.9', "10.0.0.9", False),
    ("for=_hidden", "", False),
    ("for=unknown", "", False),
    ("for=127.0.0.1;for=10.0.0.9", "", False),
    ("for=127.0.0.1;;", "", False),
    ("by=127.0.0.1", "", False),
    ("127.0.0.1", "", False),
]


@pytest.mark.parametrize(("header", "client", "here"), FORWARDED)
def test_the_standard_header(header, client, here):
    found = whence(asked(headers={**HERE, "Forwarded": header}), networks("127.0.0.1"))
    assert (found.address, not found.foreign) == (client, here)


def test_what_a_trusted_proxy_must_say():
    trusted = networks("127.0.0.1")
    assert "does not say" in whence(asked(), trusted).foreign
    chain = {**HERE, "X-Forwarded-For": "127.0.0.1"}
    both = {**chain, "Forwarded": "for=127.0.0.1"}
    assert whence(asked(headers=both), trusted).foreign == ""
    # nginx sets the one and passes on the other, as the client wrote it
    spoofed = {**HERE, "X-Forwarded-For": "10.0.0.9", "Forwarded": "for=127.0.0.1"}
    assert "contradict" in whence(asked(headers=spoofed), trusted).foreign
    assert "Host" in whence(asked(headers={**chain, "X-Forwarded-Host": "evil.example"}), trusted).foreign
    assert "Host" in whence(asked(headers={**chain, "Host": "registry.corp"}), trusted).foreign
    assert whence(asked(headers=chain | {"Via": "1.1 x"}, version=HttpVersion10), trusted).foreign == ""
    lines = [*HERE.items(), ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", "10.0.0.9")]
    assert whence(asked(headers=lines), trusted).address == "10.0.0.9"


@given(
    st.lists(st.sampled_from(["127.0.0.1", "::1", "10.0.0.9", "192.0.2.1", "x", ""]), max_size=5),
    st.sampled_from(["10.0.0.9", "192.0.2.1", "2001:db8::1"]),
)
def test_whatever_a_client_writes_an_honest_proxy_adds_who_it_is(spoofed, client):
    for headers in (
        {"X-Forwarded-For": ", ".join([*spoofed, client])},
        {"Forwarded": ", ".join(f'for="{part}"' for part in [*spoofed, client if "." in client else f"[{client}]"])},
    ):
        found = whence(asked(headers=HERE | headers), networks("127.0.0.0/8", "::1"))
        assert found.address == client
        assert found.foreign


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text):
    found = parse_address(text)
    assert found is None or ipaddress.ip_address(str(found)) == found
