"""Where we may connect: host patterns, and addresses that are nobody's business outside. Pure decisions.

A redirect or a token realm is written by somebody else, so every hop is checked anew, as a name before it is resolved
and as the addresses it resolves to. Places the configuration names itself (`urls`, the proxy) may be private: a mirror
inside is a normal thing to configure, and never a normal thing to be redirected to. They are exempt by host and port,
and only where we go there of our own accord: `named` is false for redirects and token services, whose every host must
be public, the one that sent us included. Names are compared in ASCII, as they go over the wire.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate

from yarl import URL

from proxy.errors import Unavailable

_CARRIERS = tuple(
    # NAT64 (RFC 6052, 8215); IPv4-translated (RFC 2765); IPv4-compatible (RFC 4291), which holds :: and ::1 too.
    ipaddress.IPv6Network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96")
)
"""Networks whose addresses end in an IPv4 address."""
_THIS_MACHINE = re.compile(r"(?:.+\.)?localhost6?(?:\.localdomain6?)?\Z|ip6-(?:localhost|loopback)\Z")
"""Names no look-up is needed for, and none is made behind a proxy."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Refused(Unavailable):
    """A host this machine may not connect to; `rule` is the setting that says so."""

    def __init__(self, host: str, rule: str) -> None:
        super().__init__(f"{host}: not allowed by [egress] {rule}", retry_after=60, label="refused")
        self.host = host
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one upstream. `own` are the places the configuration names, `proxies` those of them that pass things
    on."""

    allow: tuple[re.Pattern[str], ...]
    deny: tuple[tuple[str, re.Pattern[str]], ...]
    allow_private: bool
    own: frozenset[tuple[str, int]]
    proxies: frozenset[tuple[str, int]]

    @classmethod
    def of(
        cls, allow: Iterable[str], deny: Iterable[str], allow_private: bool, urls: Iterable[str], proxy: str = ""
    ) -> "Rules":
        """Patterns are shell patterns of host names; `*` stands for any number of any characters, dots too."""
        return cls(
            tuple(re.compile(translate(pattern.lower())) for pattern in allow),
            tuple((pattern, re.compile(translate(pattern.lower()))) for pattern in deny),
            allow_private,
            frozenset(map(_place, urls)),
            frozenset({_place(proxy)} if proxy else ()),
        )

    def check_host(self, host: str, port: int, *, named: bool) -> None:
        """Raises Refused for a name, or an address written as one, that may not be connected to. `named`: the
        configuration sends us there, not somebody else."""
        name = _name(host)
        for pattern, shape in self.deny:
            if shape.match(name):
                raise Refused(host, f'deny = "{pattern}"')
        if not any(shape.match(name) for shape in self.allow):
            raise Refused(host, "allow")
        if not self.allow_private and not (named and (name, port) in self.own):
            if (name, port) in self.proxies:
                raise Refused(host, f"allow_private = false: {host}:{port} is our own proxy")
            if _THIS_MACHINE.match(name):
                raise Refused(host, f"allow_private = false: {host} is this machine")
        address = literal(name)
        if address is not None:
            self.check_address(host, port, address, named=named)

    def check_address(self, host: str, port: int, address: Address, *, named: bool) -> None:
        """Raises Refused when `host` is, or resolves to, an address that is not public."""
        if self.allow_private or (named and (_name(host), port) in self.own | self.proxies) or public(address):
            return
        raise Refused(host, f"allow_private = false: {address} is a private address")

    def exempt(self, host: str, port: int) -> bool:
        """Whether this place may be private when we go there of our own accord."""
        return not self.allow_private and (_name(host), port) in self.own | self.proxies


def _place(url: str) -> tuple[str, int]:
    parsed = URL(url)
    return _name(parsed.raw_host or ""), parsed.port or 0


def _name(host: str) -> str:
    return host.lower().rstrip(".")


def literal(host: str) -> Address | None:
    """The address a host is written as: dotted, bracketed, or in the short and octal forms that resolvers accept."""
    bare = host.strip("[]").partition("%")[0]
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        return _old_form(bare)


def _old_form(text: str) -> ipaddress.IPv4Address | None:
    """inet_aton's forms (`127.1`, `0x7f000001`, `017700000001`), which a resolver connects to without a look-up."""
    parts = text.split(".")
    if not 1 <= len(parts) <= 4 or not all(re.fullmatch(r"0[xX][0-9a-fA-F]+|[0-9]+", part) for part in parts):
        return None
    try:
        numbers = [
            int(part, 0) if part[:2].lower() == "0x" else int(part, 8 if part[0] == "0" else 10) for part in parts
        ]
        *high, last = numbers
        value = sum(number << (24 - 8 * place) for place, number in enumerate(high))
        fits = last < 1 << (8 * (4 - len(high))) and all(number < 256 for number in high)
        return ipaddress.IPv4Address(value + last) if fits else None
    except ValueError:
        return None


def public(address: Address) -> bool:
    """Whether an address is global, after unwrapping the forms that carry an IPv4 address inside an IPv6 one."""
    inner = _inside(address)
    if isinstance(address, ipaddress.IPv6Address) and address.is_site_local:
        return False  # fec0::/10, which Python counts as global since it was given up (RFC 3879)
    return all(one.is_global and not one.is_multicast for one in (inner or (address,)))


def _inside(address: Address) -> tuple[ipaddress.IPv4Address, ...]:
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if any(address in network for network in _CARRIERS):
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()
