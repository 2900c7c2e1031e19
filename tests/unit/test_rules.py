"""upstream/rules.py: host patterns and addresses, as tables; whatever text comes as a host, an answer or a refusal."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from proxy.upstream.rules import Refused, Rules, literal, public

OPEN = Rules.of(["*"], [], False, [])


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
    ],
)
def test_public_means_global_after_unwrapping(address: str, expected: bool) -> None:
    assert public(ipaddress.ip_address(address)) is expected


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "017700000001", "[::1]", "LOCALHOST"]
)
def test_an_address_written_as_a_name_is_refused(host: str) -> None:
    if host == "LOCALHOST":
        OPEN.check_host(host, 80)  # a name: what it resolves to is checked when it is resolved
    else:
        with pytest.raises(Refused, match="private address"):
            OPEN.check_host(host, 80)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text: str) -> None:
    found = literal(text)
    assert found is None or isinstance(found, ipaddress.IPv4Address | ipaddress.IPv6Address)


def test_deny_wins_over_allow_and_names_its_pattern() -> None:
    rules = Rules.of(["*.pkg.dev", "registry.k8s.io"], ["asia-*"], False, [])
    rules.check_host("us-central1-docker.pkg.dev", 443)
    rules.check_host("Registry.K8S.io.", 443)
    with pytest.raises(Refused, match=r'deny = "asia-\*"'):
        rules.check_host("asia-docker.pkg.dev", 443)
    with pytest.raises(Refused, match=r"evil.example: not allowed by \[egress\] allow"):
        rules.check_host("evil.example", 443)
    with pytest.raises(Refused):
        rules.check_host("pkg.dev.evil.example", 443)


def test_what_the_configuration_names_may_be_private_by_host_and_port() -> None:
    rules = Rules.of(["*"], [], False, [URL("http://10.0.0.5:5000"), URL("https://mirror.corp")])
    rules.check_host("10.0.0.5", 5000)
    rules.check_address("mirror.corp", 443, ipaddress.ip_address("10.0.0.6"))
    for host, port in (("10.0.0.5", 9200), ("10.0.0.6", 5000)):
        with pytest.raises(Refused):
            rules.check_host(host, port)
    with pytest.raises(Refused):
        rules.check_address("mirror.corp", 80, ipaddress.ip_address("10.0.0.6"))


def test_allow_private_allows_it() -> None:
    Rules.of(["*"], [], True, []).check_host("127.0.0.1", 80)
