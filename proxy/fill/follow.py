"""Following: another process of this machine downloads, this one reads the file it is writing.

One poll per Fill every 15 ms, not per client, and less often while the leader itself still waits for its first byte; a
dead leader's lock is free at the next poll, and whoever gets it leads.
"""

import asyncio
import time
from collections.abc import Callable

from proxy.errors import Unavailable
from proxy.fill.permits import Abandoned
from proxy.fill.state import Fill
from proxy.ports import Follow, Gone, Lead, OpenBlob, Seen

_POLL = 0.015
_POLL_IDLE = 0.1


async def follow(fill: Fill, followed: Follow, patience: float, settled: Callable[[], None]) -> Lead | None:
    """Until the blob is here or its bytes are discarded (None), or the leader has died (lead on).

    `patience` is seconds without a new byte from a leader that had begun. Raises Unavailable when it is over,
    Abandoned when the last reader has left, what `settled` raises, OSError.
    """
    last, since, pause = None, time.monotonic(), _POLL
    try:
        while True:
            seen = followed.look(settled)
            match seen:
                case Seen():
                    pause = _POLL if seen.live or last is None else min(pause * 1.5, _POLL_IDLE)
                    if seen != last:
                        last, since = seen, time.monotonic()
                        _pass_on(fill, followed.fd, seen)
                    elif seen.live and time.monotonic() - since > patience:
                        raise Unavailable(f"no byte for {patience:.0f} s from the worker that downloads this")
                case OpenBlob():
                    fill.finish(seen.fd, seen.size)
                    seen.close()
                case Gone():
                    fill.discard()
                    return None
                case _:
                    return seen
            if fill.done:
                return None
            if fill.readers == 0:
                raise Abandoned
            await asyncio.sleep(pause)
    finally:
        followed.close()


def _pass_on(fill: Fill, fd: int, seen: Seen) -> None:
    """The last byte is in the file only after the digest matched: a file with all its bytes is a verified one."""
    if not seen.live:
        return
    if seen.available == seen.total and seen.total > 0:
        fill.finish(fd, seen.available)
    else:
        fill.grown(fd, seen.available, seen.total)
