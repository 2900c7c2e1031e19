"""What all who push share on this machine: who may keep and who may remove a blob, and how many bytes there are.

Whoever links a blob holds its lock with the others who do; whoever puts a file in its place, or removes a link or a
file because nothing needs it, holds it alone, and looks again. Without it:

    gc sees an old file without link    push mounts it: links the file that is there
    gc unlinks the file                 the link leads nowhere

One lock file for every two hex digits: gc waits for the few pushes of that slot only, and they for one unlink. The
count is a word of the board that every worker moves on; it is counted anew at every start (a worker that is killed
leaves up to a step too much). Blocks: from a thread, but for the arithmetic.
"""

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from proxy.config import format_size
from proxy.errors import NoSpace
from proxy.oci.digest import Digest
from proxy.store.board import PUSHED
from proxy.store.lock import briefly, waiting


class Yard:
    """The locks and the count of one data folder's pushed content."""

    def __init__(self, folder: str, words: memoryview | list[int], limit: Callable[[], int]) -> None:
        """`words` are the board's, one of which is the count; `limit` in bytes, 0 for none."""
        os.makedirs(folder, exist_ok=True)
        with contextlib.suppress(OSError):  # now, because a full disk takes none when room is made
            for slot in range(256):
                os.close(os.open(os.path.join(folder, f"{slot:02x}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._folder = folder
        self._count = os.path.join(folder, "count")
        self._words = words
        self._limit = limit

    def keeping(self, digest: Digest) -> AbstractContextManager[None]:
        """While this is held nobody removes what there is of the blob. Raises OSError."""
        return waiting(self._lock(digest), shared=True)

    def changing(self, digest: Digest) -> AbstractContextManager[None]:
        """While this is held nobody else links, replaces or removes the blob. Raises OSError."""
        return waiting(self._lock(digest))

    def _lock(self, digest: Digest) -> str:
        return os.path.join(self._folder, digest.hex[:2])

    @property
    def bytes(self) -> int:
        """Bytes pushed here, uploads under way included."""
        return self._words[PUSHED]

    @property
    def limit(self) -> int:
        """Bytes there may be; 0: no limit."""
        return self._limit()

    def check(self, size: int) -> None:
        """Whether so many bytes more would be taken. Raises NoSpace."""
        limit = self._limit()
        if limit and self.bytes + size > limit:
            raise NoSpace(
                f"{format_size(self.bytes)} are pushed here, and {format_size(size)} more would pass local.max_size of"
                f" {format_size(limit)}: remove images, then run tidegate gc"
            )

    def take(self, size: int) -> None:
        """Count so many bytes more, before they are written. Raises NoSpace, which counts nothing."""
        with briefly(self._count):
            self.check(size)
            self._words[PUSHED] += size

    def give(self, size: int) -> None:
        """So many bytes are no longer here, or have never come."""
        with briefly(self._count):
            self._words[PUSHED] = max(0, self._words[PUSHED] - size)
