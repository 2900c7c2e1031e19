"""Makes the connections of one listening socket, keeps them to their number, and looks at all of them now and then.

Nobody has a right to a place by having been first: where there is none, whoever has waited longest for its next
request goes, so that two thousand idle connections keep nobody out. Only where every place is in use is a new one
answered 503.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from proxy.errors import Unavailable
from proxy.http.connection import Connection, Limits

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
SETTLED = 1.0
"""Seconds a connection may wait before its place can be taken: its first request is on its way."""
_TURNED_AWAY = 256
"""Connections that are being told to go, at most; the others go at once."""
_COMPLAINT = 60.0
_quiet = logging.getLogger("tidegate.aiohttp")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False  # its lines quote the start of what could not be parsed: a token, when that was too long
_log = logging.getLogger("tidegate.http")


def places(connections: int, workers: int) -> int:
    """How many of so many connections one of the workers may hold: its even share."""
    return math.ceil(connections / workers)


def descriptors(connections: int) -> int:
    """How many files a worker with so many connections has open at most: each may read a file, and 256 are for
    everything else."""
    return 2 * connections + 256


class Front(web.Server):
    """`front()` is a protocol for `connect_accepted_socket`."""

    def __init__(self, handler: Handler, limits: Limits | None = None) -> None:
        """Without `limits` nothing is ended but what is idle."""
        self._limits = limits or Limits()
        self._more: dict[str, Any] = {
            "access_log": None,
            "logger": _quiet,
            "auto_decompress": False,
            "lingering_time": 2.0,
        }
        super().__init__(handler)
        self._held: set[Connection] = set()
        self._leaving: set[Connection] = set()
        self._complained = -math.inf
        self._watch: asyncio.TimerHandle | None = None
        if limits is not None:
            self._every = min(1.0, min(limits.header, limits.body, limits.write) / 10)
            self._watch = self._loop.call_later(self._every, self._look)

    def __call__(self) -> Connection:
        full = None
        if len(self._held) >= self._limits.connections and not self._make_room():
            full = Unavailable("every connection is in use; try again in a moment", retry_after=1)
            self._complain()
        return Connection(self, self._limits, full, loop=self._loop, **self._more)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """A connection begins."""
        super().connection_made(handler, transport)
        assert isinstance(handler, Connection), "only we make them"
        (self._leaving if handler.refused else self._held).add(handler)
        if len(self._leaving) > _TURNED_AWAY:
            self._leaving.pop().force_close()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """A connection has ended."""
        super().connection_lost(handler, exc)
        assert isinstance(handler, Connection), "only we make them"
        self._held.discard(handler)
        self._leaving.discard(handler)

    def _make_room(self) -> bool:
        """Takes the place of whoever has waited longest; False where nobody can be spared."""
        settled = self._loop.time() - SETTLED
        idle = [each for each in self._held if each.waits and each.waiting_since < settled]
        if not idle:
            return False
        longest = min(idle, key=lambda each: each.waiting_since)
        self._held.discard(longest)
        longest.make_room()
        return True

    def _complain(self) -> None:
        now = self._loop.time()
        if now - self._complained > _COMPLAINT:
            self._complained = now
            _log.warning(
                "all %d connections of this worker are in use: new ones are answered 503; see server.max_connections",
                self._limits.connections,
            )

    def _look(self) -> None:
        self._watch = self._loop.call_later(self._every, self._look)
        now = self._loop.time()
        for each in tuple(self._held):
            each.check(now)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Ends everything, what is being answered after `timeout` seconds."""
        if self._watch is not None:
            self._watch.cancel()
        await super().shutdown(timeout)
