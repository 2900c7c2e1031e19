"""upstream/rules.py: host patterns and addresses, as tables; whatever text comes as a host, an answer or a refusal."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from proxy.config import values
from proxy.upstream.auth import Keyring
from proxy.upstream.egress import Door, next_url
from proxy.upstream.ledger import Ledger
from proxy.upstream.rules import Refused, Rules, literal, public
from tests.unit.builders import upstream

OPEN = Rules.of(["*"], [], False, [])
LOCAL = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "ip6-loopback",
]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.0.2.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("::1", False),
        ("::", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:0a00:0001::1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::a00:1", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
        ("fec0::1", False),
        ("feff::1", False),
        ("::ffff:0:127.0.0.1", False),
        ("::ffff:0:8.8.8.8", True),
        ("::127.0.0.1", False),
        ("::10.0.0.1", False),
        ("::8.8.8.8", True),
    ],
)
def test_public_means_global_after_unwrapping(address: str, expected: bool) -> None:
    assert public(ipaddress.ip_address(address)) is expected


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "017700000001", "[::1]"])
def test_an_address_written_as_a_name_is_refused(host: str, named: bool) -> None:
    with pytest.raises(Refused, match="private address"):
        OPEN.check_host(host, 80, named=named)


@pytest.mark.parametrize("host", LOCAL)
def test_this_machine_is_refused_by_name(host: str) -> None:
    """Behind a proxy no name is resolved here, and the proxy's own localhost is nobody's business either."""
    with pytest.raises(Refused, match="is this machine"):
        OPEN.check_host(host, 80, named=False)
    Rules.of(["*"], [], True, []).check_host(host, 80, named=False)
    Rules.of(["*"], [], False, ["http://localhost:5001"]).check_host("localhost", 5001, named=True)


@pytest.mark.parametrize("host", ["localhosts", "localhost.example", "mylocalhost", "registry.k8s.io"])
def test_other_names_are_not_this_machine(host: str) -> None:
    OPEN.check_host(host, 80, named=False)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text: str) -> None:
    found = literal(text)
    assert found is None or isinstance(found, ipaddress.IPv4Address | ipaddress.IPv6Address)


def test_deny_wins_over_allow_and_names_its_pattern() -> None:
    rules = Rules.of(["*.pkg.dev", "registry.k8s.io"], ["asia-*"], False, [])
    rules.check_host("us-central1-docker.pkg.dev", 443, named=False)
    rules.check_host("Registry.K8S.io.", 443, named=False)
    with pytest.raises(Refused, match=r'deny = "asia-\*"'):
        rules.check_host("asia-docker.pkg.dev", 443, named=False)
    with pytest.raises(Refused, match=r"evil.example: not allowed by \[egress\] allow"):
        rules.check_host("evil.example", 443, named=False)
    with pytest.raises(Refused):
        rules.check_host("pkg.dev.evil.example", 443, named=False)


def test_what_the_configuration_names_may_be_private_by_host_and_port() -> None:
    rules = Rules.of(["*"], [], False, ["http://10.0.0.5:5000", "https://mirror.corp"])
    inside = ipaddress.ip_address("10.0.0.6")
    rules.check_host("10.0.0.5", 5000, named=True)
    rules.check_address("mirror.corp", 443, inside, named=True)
    for host, port in (("10.0.0.5", 9200), ("10.0.0.6", 5000)):
        with pytest.raises(Refused):
            rules.check_host(host, port, named=True)
    with pytest.raises(Refused):
        rules.check_address("mirror.corp", 80, inside, named=True)


def test_what_somebody_else_names_is_never_exempt() -> None:
    rules = Rules.of(["*"], [], False, ["http://10.0.0.5:5000", "https://mirror.corp"], "http://proxy.corp:3128")
    with pytest.raises(Refused):
        rules.check_host("10.0.0.5", 5000, named=False)
    with pytest.raises(Refused):
        rules.check_address("mirror.corp", 443, ipaddress.ip_address("10.0.0.6"), named=False)
    with pytest.raises(Refused, match="is our own proxy"):
        rules.check_host("proxy.corp", 3128, named=False)
    rules.check_address("proxy.corp", 3128, ipaddress.ip_address("10.0.0.7"), named=True)


@pytest.mark.parametrize("pattern", ["xn--bcher-kva.example", "bücher.example", "BÜCHER.example", "*cher-kva.example"])
@pytest.mark.parametrize("location", ["http://xn--bcher-kva.example/x", "http://XN--Bcher-KVA.example./x"])
async def test_names_are_compared_in_ascii_however_they_are_written(pattern: str, location: str) -> None:
    denied = Rules.of(["*"], values.patterns([pattern]), False, [])
    settings = upstream().egress
    door = Door("up", settings, Keyring(frozenset(), "", ""), denied, Ledger())
    await door.start()
    try:
        with pytest.raises(Refused, match=r"deny = "):
            async with door.walk("GET", next_url(URL("http://registry.example/"), location), {}, ""):
                pass
    finally:
        await door.close()


def test_a_pattern_that_cannot_be_put_into_ascii_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="wildcards beside ASCII only"):
        values.patterns(["büch*.example"])


def test_allow_private_allows_it() -> None:
    Rules.of(["*"], [], True, []).check_host("127.0.0.1", 80, named=False)
