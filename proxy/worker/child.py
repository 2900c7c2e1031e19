"""One worker: accept connections, serve them, drain when told. No decisions about other workers.

We accept by ourselves, one connection per wake-up: asyncio's own server accepts up to its whole backlog in one
wake-up, so the first worker to run would swallow a burst of fifty while three sit idle. All workers watch the same
listening socket; whoever is free takes the next connection.
"""

import asyncio
import errno
import importlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.config import Settings
from proxy.worker import hello
from proxy.worker.notify import notify

ACCEPT_PAUSE = 0.1
SETTLE = 0.1
HANDSHAKE = 10.0
"""Seconds a client may take to its first byte, and again for the handshake."""
SHAKES = 1024
"""Handshakes at a time; no limit of connections counts them yet."""
SHAKING = 2.0
"""Seconds for those that are under way when we leave."""
RETIRED = 3600.0
"""Seconds the answers of a worker may take that others have replaced: a pull is not cut because a setting changed."""
_STRANGER = frozenset({"PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED"})
_log = logging.getLogger("tidegate.tls")
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Service(Protocol):
    """What a worker serves: protocol factories (for the port, the admin socket and the operators' port), the context of
    TLS for the next connection over TCP (None: plain), and a life of start, drain, close."""

    public: Callable[[], asyncio.Protocol]
    admin: Callable[[], asyncio.Protocol]
    desk: Callable[[], asyncio.Protocol]
    tls: Callable[[], ssl.SSLContext | None]

    async def start(self) -> None:
        """Open what is needed; raises StartError."""

    async def drain(self, seconds: float) -> None:
        """Let running responses finish, at most `seconds`; raises nothing. May be cancelled and asked again."""

    async def close(self) -> None:
        """Give everything back; raises nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker gets from its supervisor: its slot, the socket for each of the service's factories by its name, the
    pipe whose end is the supervisor's, and whom to tell when it serves."""

    slot: int
    listening: Mapping[str, socket.socket]
    lifeline: int
    ready: Callable[[], None]


def run(settings: Settings, place: Place, compose_module: str) -> None:
    """The life of a worker; returns after a drain. Raises what building the service raises."""
    # prometheus_client reads its folder from the environment when it is imported, so whatever imports it is
    # imported by name and late: after the supervisor has wiped that folder and set the variable.
    compose: Any = importlib.import_module(compose_module)
    asyncio.run(_serve(lambda: compose.build(settings, place.slot), settings.server.drain, place))


async def _serve(build: Callable[[], Service], drain: float, place: Place) -> None:
    """SIGTERM ends it within `drain` seconds. SIGUSR1 says that others have taken its place: what it has begun it
    finishes."""
    loop = asyncio.get_running_loop()
    end, stop = asyncio.Event(), asyncio.Event()
    loop.add_reader(place.lifeline, os._exit, 1)
    loop.add_signal_handler(signal.SIGTERM, _all, stop.set, end.set)
    loop.add_signal_handler(signal.SIGUSR1, end.set)
    service = build()
    await service.start()
    doors = [
        _Door(listener, getattr(service, name), _plain if name == "admin" else service.tls)
        for name, listener in place.listening.items()
    ]
    for door in doors:
        door.open()
    notify("READY=1")
    place.ready()
    await end.wait()
    await asyncio.gather(*(door.close() for door in doors))
    # What was accepted a moment ago has not brought its request yet; draining now would close it as an idle one.
    await asyncio.sleep(SETTLE)
    if not stop.is_set():
        await _finish(service, stop)
    if stop.is_set():
        await service.drain(drain)
    await service.close()


def _all(*calls: Callable[[], None]) -> None:
    for call in calls:
        call()


async def _finish(service: Service, stop: asyncio.Event) -> None:
    """Let everything end by itself, unless told to stop."""
    finishing, told = asyncio.create_task(service.drain(RETIRED)), asyncio.create_task(stop.wait())
    await asyncio.wait((finishing, told), return_when=asyncio.FIRST_COMPLETED)
    for task in (finishing, told):
        task.cancel()
    await asyncio.gather(finishing, told, return_exceptions=True)


def _plain() -> None:
    """The context of a socket that is never spoken TLS to."""


class _Door:
    """One listening socket, watched by this worker's loop."""

    def __init__(
        self,
        listener: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        tls: Callable[[], ssl.SSLContext | None],
    ) -> None:
        self._listener = listener
        self._factory = factory
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._connecting: dict[asyncio.Task[None], None] = {}
        self._pause: asyncio.TimerHandle | None = None

    def open(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    async def close(self) -> None:
        """Accept no more, and give back our copy of the socket.

        Where the service manager or anybody else holds another copy, connections go on queueing for the next
        instance; where nobody does, the last worker's close makes the kernel refuse them at once.
        """
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        if self._connecting:
            _, waiting = await asyncio.wait(self._connecting, timeout=SHAKING)
            for task in waiting:
                task.cancel()  # a handshake that has not come so far has brought no request
            await asyncio.gather(*waiting, return_exceptions=True)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was quicker, or the client has gone
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            # The connection stays in the queue and would wake us again at once: leave it to others for a moment.
            self._loop.remove_reader(self._listener)
            self._pause = self._loop.call_later(ACCEPT_PAUSE, self.open)
            return
        connection.setblocking(False)
        task = self._loop.create_task(self._connect(connection))
        self._connecting[task] = None
        task.add_done_callback(self._connecting.pop)
        if len(self._connecting) > SHAKES:
            next(iter(self._connecting)).cancel()  # whoever began first and has not got far

    async def _connect(self, connection: socket.socket) -> None:
        # asyncio sets TCP_NODELAY on every stream transport, this one included.
        context = self._tls()
        try:
            if context is None:
                await self._loop.connect_accepted_socket(self._factory, connection)
            else:
                await self._connect_tls(connection, context)
        except ssl.SSLError as error:
            connection.close()
            if error.reason in _STRANGER:
                _log.info("a client was not let in: %s", error.reason.replace("_", " ").lower())
        except (OSError, asyncio.CancelledError):
            connection.close()

    async def _connect_tls(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        """Raises OSError."""
        async with asyncio.timeout(HANDSHAKE):
            first = await hello.first_byte(connection)
        if first == hello.HANDSHAKE:
            await self._loop.connect_accepted_socket(
                self._factory,
                connection,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE,
                ssl_shutdown_timeout=HANDSHAKE,
            )
            return
        if first is not None:
            hello.refuse_plain(connection)
        connection.close()
