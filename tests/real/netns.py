"""Network namespaces of the tests' own, as separate machines: one that can reach nothing but its gate, one behind it.

They have no name in the file system: the kernel removes them, with their links and addresses, when the last process in
them has ended and the last descriptor is closed, however a test run ends. A block entered with `within` acts there:
what it starts (processes, threads, sockets) stays there after the block. Needs root. What is served where is the
test's to say.
"""

import asyncio
import ctypes
import ipaddress
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.real.processes import program

GATE = "198.18.0.1"  # of the range for benchmarks of networks: nobody's, and no other namespace sees it
_NEW_NETWORK = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_A, _FOUND, _UNKNOWN = 1, 0x8180, 0x8183


@dataclass(frozen=True, slots=True)
class Fence:
    """`inside` has one link, to `GATE` at the edge of `outside`, and no default route; neither knows this machine."""

    inside: int
    outside: int


@contextmanager
def fence() -> Iterator[Fence]:
    """Both namespaces until the block ends."""
    with namespace() as inside, namespace() as outside:
        with within(outside):
            far_end = f"/proc/{os.getpid()}/fd/{inside}"
            _ip("link", "add", "gate", "type", "veth", "peer", "name", "way", "netns", far_end)
            _ip("address", "add", f"{GATE}/30", "dev", "gate")
            _ip("link", "set", "gate", "up")
        with within(inside):
            _ip("address", "add", "198.18.0.2/30", "dev", "way")
            _ip("link", "set", "way", "up")
        yield Fence(inside, outside)


@contextmanager
def namespace() -> Iterator[int]:
    """A new network with a loopback and nothing else; the descriptor keeps it alive."""
    here = os.open(_OWN, os.O_RDONLY)
    try:
        _call("unshare", _NEW_NETWORK)
        try:
            made = os.open(_OWN, os.O_RDONLY)
            _ip("link", "set", "lo", "up")
        finally:
            _call("setns", here, _NEW_NETWORK)
    finally:
        os.close(here)
    try:
        yield made
    finally:
        os.close(made)


@contextmanager
def within(network: int) -> Iterator[None]:
    """This thread, and what it starts meanwhile, is in `network`."""
    here = os.open(_OWN, os.O_RDONLY)
    try:
        _call("setns", network, _NEW_NETWORK)
        yield
    finally:
        _call("setns", here, _NEW_NETWORK)
        os.close(here)


def answer_at(address: str) -> None:
    """Gives the namespace we are in one more address of its own, whatever it is elsewhere."""
    if not ipaddress.ip_address(address).is_loopback:
        _ip("address", "add", address, "dev", "lo")


def routes() -> list[str]:
    """The routes of the namespace we are in."""
    return _ip("route", "show").splitlines()


class Names(asyncio.DatagramProtocol):
    """The name server every program here asks, in a namespace of ours: `async with Names({name: [address, ...]})`.

    The answers of a name are given in turn, the last one again and again. `asked` holds every name asked for an IPv4
    address. Other types are answered empty, other names are unknown.
    """

    def __init__(self, answers: Mapping[str, Sequence[str]]) -> None:
        self.asked: list[str] = []
        self._answers = answers
        self._transport: Any = None  # asyncio's own is no DatagramTransport by class

    async def __aenter__(self) -> Self:
        address = _name_server()
        answer_at(address)
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: self, local_addr=(address, 53))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()
        await asyncio.sleep(0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        name, end = _question(data)
        kind = int.from_bytes(data[end : end + 2], "big")
        found = self._answers.get(name, ())
        flags, records = _FOUND if found else _UNKNOWN, b""
        if kind == _A:
            address = found[min(self.asked.count(name), len(found) - 1)] if found else ""
            self.asked.append(name)
            records = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4" + socket.inet_aton(address) if address else b""
        counts = (flags, 1, int(bool(records)), 0, 0)
        head = data[:2] + b"".join(count.to_bytes(2, "big") for count in counts)
        self._transport.sendto(head + data[12 : end + 4] + records, addr)


def _question(data: bytes) -> tuple[str, int]:
    """The name asked for and where it ends."""
    labels, at = [], 12
    while size := data[at]:
        labels.append(data[at + 1 : at + 1 + size].decode())
        at += 1 + size
    return ".".join(labels).lower(), at + 1


def _name_server() -> str:
    """The one that programs of this machine ask first."""
    found = re.search(r"^nameserver\s+([^\s%]+)", Path("/etc/resolv.conf").read_text(), re.MULTILINE)
    return found[1] if found else "127.0.0.1"


def _ip(*args: str) -> str:
    command = [program("ip") or "ip", *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _call(name: str, *args: int) -> None:
    """A system call Python 3.11 has no name for."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
