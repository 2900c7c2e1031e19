"""Runs any fake in a thread with a loop of its own, for tests that are synchronous or drive other processes."""

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

from tests.fakes.origin import Origin

T = TypeVar("T")


@contextmanager
def in_thread(server: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enters `server` in a new loop in a new thread; leaves it, its tasks and the loop before returning."""
    running: Future[T] = Future()
    stop: list[Callable[[], object]] = []

    async def run() -> None:
        left = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(left.set))
        try:
            async with server as entered:
                running.set_result(entered)
                await left.wait()
        except Exception as error:
            if running.done():
                raise
            running.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name=f"fake {type(server).__name__}", daemon=True)
    thread.start()
    try:
        yield running.result(10)
    finally:
        for leave in stop:
            leave()
        thread.join(10)


@contextmanager
def origin_in_thread(tls: ssl.SSLContext | None = None) -> Iterator[Origin]:
    """An Origin for synchronous tests. Adding content, faults and reading the log need no lock: each is one append."""
    with in_thread(Origin(tls)) as origin:
        yield origin
