"""The state of one digest's arrival in this process: what its leader or follower writes and its readers read.

No I/O but its own descriptor, no decisions: lead.py and follow.py change it, tail.py waits on it.
"""

import asyncio
import os
from collections.abc import Callable

from proxy import metrics
from proxy.errors import RegistryError
from proxy.oci.digest import Digest
from proxy.ports import BlobSource

_BYPASSES = 4
"""Requests of their own that readers of one fill may have at a time: each holds up to 1 MiB."""


class Fill:
    """`available` bytes may be sent from `fd`; `size` is None until known.

    `live` once an upstream has delivered a byte: before that an answer's status is still free. `generation` grows when
    bytes that may have been sent are discarded. `retired` sources will not be asked again, `used` ones delivered.
    """

    def __init__(self, digest: Digest, arrived: float, ended: "Callable[[Fill], None]") -> None:
        self.digest = digest
        self.arrived = arrived
        self.sources: list[BlobSource] = []
        self.used: list[BlobSource] = []
        self.retired: set[str] = set()
        self.errors: dict[str, RegistryError] = {}
        self.size: int | None = None
        self.available = 0
        self.fd = -1
        self.live = False
        self.done = False
        self.error: RegistryError | None = None
        self.generation = 0
        self.readers = 0
        self.bypasses = asyncio.Semaphore(_BYPASSES)
        self.on_join: Callable[[], None] | None = None
        self._ended = ended
        self._changed: asyncio.Future[None] | None = None

    async def changed(self) -> None:
        """Wait until anything above has changed."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._changed)

    def tell(self) -> None:
        """Wake everybody who waits for a change."""
        if self._changed is not None:
            self._changed.set_result(None)
            self._changed = None

    def join(self, sources: list[BlobSource]) -> None:
        """One more reader; its sources are more ways to the bytes."""
        metrics.FILL_READERS.inc()
        self.readers += 1
        known = {source.key for source in self.sources}
        more = [source for source in sources if source.key not in known]
        self.sources += more
        if more and self.on_join is not None:
            self.on_join()

    def leave(self) -> None:
        """One reader less."""
        metrics.FILL_READERS.dec()
        self.readers -= 1
        self._close_if_over()

    def grown(self, fd: int, available: int, size: int | None) -> None:
        """Bytes can be read from `fd`, `available` of them."""
        if self.fd < 0:
            self.fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        self.available, self.size, self.live = available, size, True
        self.tell()

    def finish(self, fd: int, size: int) -> None:
        """Everything is here and verified."""
        self.done = True
        self.grown(fd, size, size)
        self._end()

    def fail(self, error: RegistryError) -> None:
        """There will be no more bytes."""
        self.error = error
        self.tell()
        self._end()

    def discard(self) -> None:
        """What has been read so far was wrong, or is gone."""
        self.generation += 1
        self.available, self.size, self.live = 0, None, False
        self._close()
        self.tell()

    @property
    def over(self) -> bool:
        return self.done or self.error is not None

    def _end(self) -> None:
        self._ended(self)
        self._close_if_over()

    def _close_if_over(self) -> None:
        if self.over and self.readers == 0:
            self._close()

    def _close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __repr__(self) -> str:
        word = "done" if self.done else "failed" if self.error else "live" if self.live else "waiting"
        return f"<Fill {self.digest.short} {word} {self.available}/{self.size} readers={self.readers}>"
