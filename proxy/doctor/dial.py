"""TCP: one connection to the first of some addresses that takes one."""

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from proxy.doctor.limits import Budget
from proxy.doctor.report import Problem

_BUFFER = 256 << 10  # bytes of one answer's head: pkg.dev's Locations are long, others' longer


@dataclass(slots=True)
class Line:
    """A connection as it stands: TCP at first, then perhaps a tunnel and TLS over it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    issuer: str = ""
    absolute: bool = False
    """Plain http through a proxy, which wants the whole URL in the request line."""
    authorization: str = ""
    """What such a proxy wants in Proxy-Authorization."""

    async def close(self) -> None:
        """At once: nobody waits for the other side's farewell."""
        self.writer.transport.abort()
        await asyncio.sleep(0)


async def dial(host: str, addresses: Sequence[str], port: int, budget: Budget, seconds: float) -> Line:
    """Each address gets its share of the time. Raises Problem."""
    error: OSError = TimeoutError()
    for address in addresses:
        try:
            async with budget.within("tcp", seconds / len(addresses)):
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                return Line(*await asyncio.open_connection(address, port, family=family, limit=_BUFFER))
        except OSError as failed:
            error = failed
    raise _closed(host, addresses[-1], port, seconds, error)


def _closed(host: str, address: str, port: int, seconds: float, error: OSError) -> Problem:
    if isinstance(error, TimeoutError):
        words, seen = f"no connection within {seconds:g} s", "i/o timeout"
    else:
        words = seen = os.strerror(error.errno).lower() if error.errno else "no connection"
    return Problem(
        "tcp",
        f"{host} port {port}: {words}",
        nodes_see=f"dial tcp {address}:{port}: {seen}",
        fix=f"let this machine reach {host} port {port} (firewall), or set [egress] proxy",
    )
