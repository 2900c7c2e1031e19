"""Where a request comes from: the client's address behind proxies we trust, and whether it is this very machine.

What must not live here: who somebody is, and what they may do (auth). "This machine" is a claim that opens pushing,
so it needs every sign there is, and one sign against it is enough. A reverse proxy on this host makes everybody's
connection come from loopback; a web page can send its visitor's browser here under a name of its own (DNS rebinding),
or with a form. Nothing of a header is believed unless the peer is a trusted proxy.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*?)\.?(?::[0-9]*)?\Z")
_ADDRESS = re.compile(r"\[(?P<six>[^\]]*)\](?::[0-9]+)?\Z|(?P<four>[0-9.]+)(?::[0-9]+)?\Z|(?P<bare>[0-9A-Fa-f:.]+)\Z")
_PAIR = re.compile(r"""\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)|"([^"\\]*)")\s*\Z""")
# What reverse proxies add. A trusted one may; from anybody else it says that there is a proxy we know nothing of.
_PROXIED = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "x-original-host", "client-ip", "true-client-ip"})
_BROWSER = ("Origin", "Sec-Fetch-Site")


@dataclass(frozen=True, slots=True)
class Whence:
    """`address`: the client's, "" when it is not known; `foreign`: why it does not count as this machine, a clause
    such as "it came from 10.0.0.9" (the request), or "" when it does."""

    address: str
    foreign: str


def whence(request: web.BaseRequest, trusted: Networks) -> Whence:
    """Judges a request by its connection and its headers; whatever those hold, nothing is raised."""
    peername = request.transport.get_extra_info("peername") if request.transport is not None else None
    peer = parse_address(peername[0]) if isinstance(peername, tuple) and peername else None
    if peer is None:
        return Whence("", "it did not come over a network address")
    if not _within(peer, trusted):
        return Whence(str(peer), _from(peer) or _proxied(request) or _signs(request))
    hops = _hops(request)
    if hops is None:
        return Whence("", "Forwarded and X-Forwarded-For contradict each other")
    return _behind(peer, hops, trusted, _signs(request))


def parse_address(text: str) -> Address | None:
    """An address as sockets and headers write it, perhaps with a port; IPv4 inside IPv6 is IPv4."""
    match = _ADDRESS.match(text.strip().partition("%")[0])
    if match is None:
        return None
    try:
        found = ipaddress.ip_address(match["six"] or match["four"] or match["bare"] or "")
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def is_local_name(host: str) -> bool:
    """Whether a Host header, its port aside, can mean this machine only."""
    match = _HOST.match(host.strip())
    return match is not None and match[1].lower() in _LOCAL_NAMES


def _behind(peer: Address, hops: Sequence[str], trusted: Networks, signs: str) -> Whence:
    """From the peer back to the first address that no trusted proxy has.

    A loopback address as told by a proxy on another machine is that machine's, so all before it must be ours too.
    """
    if not hops:
        return Whence(str(peer), f"the trusted proxy {peer} does not say for whom it asks")
    client, foreign = peer, _from(peer)
    for hop in reversed(hops):
        found = parse_address(hop)
        if found is None:
            return Whence("", "a proxy names a client that is no address")
        client, foreign = found, foreign or _from(found)
        if not _within(found, trusted):
            break
    return Whence(str(client), foreign or signs)


def _hops(request: web.BaseRequest) -> Sequence[str] | None:
    """Whom the proxies asked for, the nearest last. None: two headers that differ, of which a proxy wrote one and
    passed the other on as the client sent it."""
    simple = [part for line in request.headers.getall("X-Forwarded-For", []) for part in line.split(",")]
    standard = [_for(part) for line in request.headers.getall("Forwarded", []) for part in line.split(",")]
    if simple and standard and [*map(parse_address, simple)] != [*map(parse_address, standard)]:
        return None
    return simple or standard


def _for(element: str) -> str:
    """The `for` of one element of Forwarded (RFC 7239 section 4); "" where it cannot be read.

    Elements are cut at every comma. One inside quotes spoils its own element only, and those nearer to us, which are
    read first, are whole.
    """
    pairs = [_PAIR.match(part) for part in element.split(";")]
    found = [pair[2] or pair[3] for pair in pairs if pair is not None and pair[1].lower() == "for"]
    return found[0] if len(found) == 1 and None not in pairs else ""


def _from(address: Address) -> str:
    return "" if address.is_loopback else f"it came from {address}"


def _proxied(request: web.BaseRequest) -> str:
    for name in map(str.lower, request.headers):
        if name in _PROXIED or name.startswith("x-forwarded"):
            return f"it passed a proxy that is not in auth.trusted_proxies ({name[:20]})"
    # nginx before 1.29.7 speaks 1.0 to what it passes to unless told otherwise, and then adds no header at all; no
    # client pushes over 1.0.
    return "" if request.version >= (1, 1) else "it came over HTTP/1.0, as a proxy asks"


def _signs(request: web.BaseRequest) -> str:
    """What else speaks against this machine's own tools: another name, a web page."""
    hosts = [*request.headers.getall("Host", []), *request.headers.getall("X-Forwarded-Host", [])]
    if len(request.headers.getall("Host", [])) != 1 or not all(map(is_local_name, hosts)):
        return "its Host is not localhost, 127.0.0.1 or [::1]"
    sent = [name for name in _BROWSER if name in request.headers]
    return f"it came from a web page ({sent[0]})" if sent else ""


def _within(address: Address, networks: Networks) -> bool:
    return any(address in network for network in networks)
