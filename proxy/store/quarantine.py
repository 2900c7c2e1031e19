"""Finished files that turned out not to be what they are named: taken out of the store, kept for a look, a few of them.

Disks rot, file systems lose sizes in a power cut, people edit. Whoever meets such a file renames it away, and the next
request is a miss that fetches it again. What is served while that happens is not undone: whoever has the file open
reads it to its end, and every client verifies what it got.

The row in the catalogue may stay behind: a row without a file is found when its turn to be evicted comes, and the file
that is fetched again takes it over.
"""

import contextlib
import logging
import os

from proxy import metrics
from proxy.oci.digest import Digest
from proxy.ports import OpenBlob
from proxy.store.files import Files

PIECE = 1 << 20
_FILES = 8
_BYTES = 1 << 30
_log = logging.getLogger("tidegate.store")


class Quarantine:
    """`<data>/quarantine`, beside the finished files of the same data folder."""

    def __init__(self, data: str, files: Files) -> None:
        self._folder = os.path.join(data, "quarantine")
        self._files = files

    def take(self, digest: Digest, fd: int, why: str) -> bool:
        """Take the file that `fd` has open out of the store; False where another one, or none, stands there by now.

        Blocks for a rename. Raises OSError.
        """
        if not self._files.is_at(digest, fd):
            return False
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        size = os.fstat(fd).st_size
        path = os.path.join(self._folder, f"{digest.algorithm}-{digest.hex}")
        try:
            os.rename(self._files.path(digest), path)
        except FileNotFoundError:
            return False  # somebody else was quicker
        os.utime(path)
        self._bound()
        metrics.CORRUPT.inc()
        _log.error(
            "blob %s of %d bytes is bad (%s): taken out of the store, kept in %s", digest, size, why, self._folder
        )
        return True

    def _bound(self) -> None:
        """The newest stay, a few of them and together at most 1 GiB."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat()
                    found.append((state.st_mtime_ns, state.st_size, entry.path))
        total = 0
        for number, (_, size, path) in enumerate(sorted(found, reverse=True)):
            total += size
            if number >= _FILES or total > _BYTES:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


def matches(opened: OpenBlob) -> bool:
    """Whether an open file is what its digest says, all of it read. Blocks: a second a GiB. Raises OSError."""
    hasher, at = opened.digest.hasher(), 0
    while piece := os.pread(opened.fd, PIECE, at):
        hasher.update(piece)
        at += len(piece)
    return hasher.hexdigest() == opened.digest.hex
