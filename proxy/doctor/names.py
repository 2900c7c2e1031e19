"""DNS: a name to addresses, each of them allowed."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from typing import TypeVar

from proxy.doctor.limits import Budget
from proxy.doctor.report import Problem
from proxy.upstream.rules import literal

T = TypeVar("T")


async def resolve(host: str, port: int, budget: Budget, seconds: float) -> list[str]:
    """The addresses of a name, one of each. Raises Problem."""
    if literal(host) is not None:
        return [host]
    try:
        async with budget.within("dns", seconds):
            found = await _aside(lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except TimeoutError:
        raise _unknown(host, f"no name server answered within {seconds:g} s", "i/o timeout") from None
    except (OSError, UnicodeError):
        raise _unknown(host, "the name cannot be resolved", "no such host") from None
    return list(dict.fromkeys(str(row[4][0]) for row in found))


def _unknown(host: str, what: str, seen: str) -> Problem:
    fix = f"make this machine's name servers (/etc/resolv.conf) answer for {host}"
    if "." in host:
        fix += '; or go out through a proxy: [egress] proxy = "http://proxy.corp:3128"'
    return Problem("dns", f"{host}: {what}", nodes_see=f"dial tcp: lookup {host}: {seen}", fix=fix)


async def _aside(call: Callable[[], T]) -> T:
    """The result of a call that blocks and cannot be stopped: in a thread nobody waits for at the end, so that a dead
    name server holds up neither the report nor the process."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def told(tell: Callable[[], None]) -> None:
        if not result.done():
            tell()

    def run() -> None:
        try:
            value = call()
        except (OSError, UnicodeError) as error:
            failed = error
            answer: Callable[[], None] = lambda: result.set_exception(failed)  # noqa: E731
        else:
            answer = lambda: result.set_result(value)  # noqa: E731
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(told, answer)

    threading.Thread(target=run, name="doctor dns", daemon=True).start()
    return await result
