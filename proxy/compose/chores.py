"""What one worker does for the whole machine. Which one: whoever gets the lock, and when it has ended, the next.

No slot has this part, because at a reload there are two workers that would both be the first one for a while.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from proxy.store import lock

_AGAIN = 1.0

Chore = Callable[[], Coroutine[Any, Any, None]]


class Chores:
    """The chores and who does them. `ours` is whether that is this worker."""

    def __init__(self, path: str, chores: Sequence[Chore]) -> None:
        """`path` of the lock."""
        self._path = path
        self._chores = chores
        self.ours = False

    async def keep(self) -> None:
        """Do them from when nobody else does, until cancelled."""
        held = await self._turn()
        self.ours = True
        tasks = [asyncio.create_task(chore()) for chore in self._chores]
        try:
            await asyncio.wait(tasks)
        finally:
            self.ours = False
            for task in tasks:
                task.cancel()
            held.release()

    async def _turn(self) -> lock.Hold:
        while True:
            try:
                held = lock.hold(self._path)
            except OSError:  # a disk that takes no lock file has no need for most chores, and may get well
                held = None
            if held is not None:
                return held
            await asyncio.sleep(_AGAIN)
