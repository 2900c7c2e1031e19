"""One asker per name per machine: who holds the turn asks the upstream, the others read what the first one wrote.

The same pattern as for blobs, for answers small enough to wait for: under the lock, look again.
    A misses, takes the turn, asks.    B misses, waits for the turn.    A writes the row, lets go.
    B gets the turn: without the second look it would ask the same thing again.
"""

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from proxy.errors import LoopDetected
from proxy.store.lock import Hold, hold_named

T = TypeVar("T")
_POLL = 0.01


class Turns:
    """Turns of one data folder. In one process a turn is one task, which outlives a caller that leaves."""

    def __init__(self, folder: str) -> None:
        os.makedirs(folder, exist_ok=True)
        self._folder = folder
        self._tasks: dict[str, asyncio.Task[Any]] = {}

    def running(self, key: str) -> bool:
        """Whether somebody in this process holds or waits for the turn."""
        return key in self._tasks

    async def run(self, key: str, look: Callable[[], T | None], act: Callable[[], Awaitable[T]]) -> T:
        """What `look` finds, else what `act` brings. Raises what they raise.

        A loop that somebody else's Via has made is theirs: who only joined asks again."""
        while True:
            task, joined = self._tasks.get(key), True
            if task is None:
                joined = False
                task = self._tasks[key] = asyncio.create_task(self._run(key, look, act))
                task.add_done_callback(lambda done: self._ended(key, done))
            try:
                result: T = await asyncio.shield(task)
                return result
            except LoopDetected:
                if not joined:
                    raise

    def _ended(self, key: str, task: asyncio.Task[Any]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody waiting is no error

    async def _run(self, key: str, look: Callable[[], T | None], act: Callable[[], Awaitable[T]]) -> T:
        held = await self._take(key)
        try:
            found = look()
            return found if found is not None else await act()
        finally:
            if held is not None:
                held.release()

    async def _take(self, key: str) -> Hold | None:
        """The turn; None on a disk that takes no lock file, where every process asks for itself."""
        path = os.path.join(self._folder, hashlib.sha256(key.encode()).hexdigest()[:32])
        try:
            while (held := hold_named(path)) is None:
                await asyncio.sleep(_POLL)
        except OSError:
            return None
        return held

    async def close(self) -> None:
        """Cancel what is under way."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
