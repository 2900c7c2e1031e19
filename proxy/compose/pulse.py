"""What a worker says of itself once a second: that it is there, its connections, its descriptors, how late its loop is.

Any worker may answer for the machine, and none can look into another: so each writes its own figures down, and those
of one that was killed go with the files of its slot. A loop that is held up is seen by a timer that comes late, which
samples it evenly over time.
"""

import asyncio
import os
import resource
from collections.abc import Callable

from proxy import metrics

EVERY = 1.0


async def beat(connections: Callable[[], int]) -> None:
    """For ever; `connections` are those open now."""
    loop = asyncio.get_running_loop()
    metrics.WORKERS.set(1)
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    metrics.DESCRIPTORS_LIMIT.set(limit)
    while True:
        metrics.CONNECTIONS.set(connections())
        metrics.DESCRIPTORS.set(await asyncio.to_thread(_descriptors))
        due = loop.time() + EVERY
        await asyncio.sleep(EVERY)
        metrics.LOOP_DELAY.observe(max(0.0, loop.time() - due))


def _descriptors() -> int:
    """Those of this process. In a thread: a folder of ten thousand takes milliseconds."""
    return len(os.listdir("/proc/self/fd"))
