"""What a download may take of this machine: one of an upstream's connections, its bandwidth, room on the disk.

Fills with clients wait for a permit, fills whose clients have left while they waited end; a running fill that lost
its last client goes on only while fewer than half of the permits are spent on such. So nobody makes the cache
download the world with one-byte ranges, and an honest client that hangs up still leaves a finished blob.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

from proxy.store.board import Pace
from proxy.store.lock import Hold, Slots

_POLL = 0.02


class Abandoned(Exception):
    """Nobody waits for this fill any more, and there is no room to finish it for later."""


class Permits:
    """Permits of one data folder."""

    def __init__(self, folder: str, paces: Mapping[str, Pace], room: Callable[[int], Awaitable[bool]]) -> None:
        """`room` makes room for so many bytes, or says that there is none."""
        os.makedirs(folder, exist_ok=True)
        self._folder = folder
        self._paces = paces
        self.room = room
        self._queues: dict[str, asyncio.Lock] = {}

    async def take(self, upstream: str, limit: int, wanted: Callable[[], bool]) -> Hold:
        """A permit to download from `upstream`. Raises Abandoned when nobody wants it before there is one."""
        slots = Slots(self._folder, upstream, limit)
        async with self._queues.setdefault(upstream, asyncio.Lock()):
            # The head of this process's queue polls for all of it: 500 pollers of 16 files each would be a load.
            while wanted():
                held = slots.take()
                if held is not None:
                    return held
                await asyncio.sleep(_POLL)
        raise Abandoned

    async def pace(self, upstream: str, size: int) -> None:
        """Wait until `size` more bytes may come from `upstream`; at once where it has no limit."""
        if (pace := self._paces.get(upstream)) is not None:
            await asyncio.sleep(pace.take(size))

    def take_abandoned(self, upstream: str, limit: int) -> Hold:
        """Permission to go on without clients. Raises Abandoned when too many do."""
        held = Slots(self._folder, f"{upstream}-abandoned", max(1, limit // 2)).take()
        if held is None:
            raise Abandoned
        return held
