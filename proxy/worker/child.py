"""One worker: accept connections, serve them, drain when told. No decisions about other workers.

We accept by ourselves, one connection per wake-up: asyncio's own server accepts up to its whole backlog in one
wake-up, so the first worker to run would swallow a burst of fifty while three sit idle. All workers watch the same
listening socket; whoever is free takes the next connection.
"""

import asyncio
import errno
import importlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from proxy.config import Settings
from proxy.worker.notify import notify

ACCEPT_PAUSE = 0.1
SETTLE = 0.1
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Service(Protocol):
    """What a worker serves: protocol factories (for the port, the admin socket and the operators' port) and a life of
    start, drain, close."""

    public: Callable[[], asyncio.Protocol]
    admin: Callable[[], asyncio.Protocol]
    desk: Callable[[], asyncio.Protocol]

    async def start(self) -> None:
        """Open what is needed; raises StartError."""

    async def drain(self, seconds: float) -> None:
        """Let running responses finish, at most `seconds`; raises nothing."""

    async def close(self) -> None:
        """Give everything back; raises nothing."""


def run(
    settings: Settings, slot: int, listening: Mapping[str, socket.socket], lifeline: int, compose_module: str
) -> None:
    """The life of the worker in `slot`; returns after a drain. `listening` holds the socket for each of the service's
    factories, by its name. Raises what building the service raises."""
    # prometheus_client reads its folder from the environment when it is imported, so whatever imports it is
    # imported by name and late: after the supervisor has wiped that folder and set the variable.
    compose: Any = importlib.import_module(compose_module)
    asyncio.run(_serve(lambda: compose.build(settings, slot), settings.server.drain, listening, lifeline))


async def _serve(
    build: Callable[[], Service], drain: float, listening: Mapping[str, socket.socket], lifeline: int
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_reader(lifeline, os._exit, 1)
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    service = build()
    await service.start()
    doors = [_Door(listener, getattr(service, name)) for name, listener in listening.items()]
    for door in doors:
        door.open()
    notify("READY=1")
    await stop.wait()
    for door in doors:
        await door.close()
    # What was accepted a moment ago has not brought its request yet; draining now would close it as an idle one.
    await asyncio.sleep(SETTLE)
    await service.drain(drain)
    await service.close()


class _Door:
    """One listening socket, watched by this worker's loop."""

    def __init__(self, listener: socket.socket, factory: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._factory = factory
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[None]] = set()
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
        await asyncio.gather(*self._connecting)

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
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: socket.socket) -> None:
        # asyncio sets TCP_NODELAY on every stream transport, this one included.
        try:
            await self._loop.connect_accepted_socket(self._factory, connection)
        except OSError:
            connection.close()
