"""Long work for the event loop: a generator whose every step blocks for a moment, taken step by step in a thread."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import TypeVar

T = TypeVar("T")


async def stepped(work: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """The steps, each taken in a thread. A step is never cancelled: the work is closed when it has been taken."""
    try:
        while True:
            taking = asyncio.ensure_future(asyncio.to_thread(next, work, None))
            try:
                step = await asyncio.shield(taking)
            except asyncio.CancelledError:
                await asyncio.wait([taking])
                raise
            if step is None:
                return
            yield step
    finally:
        await asyncio.to_thread(work.close)
