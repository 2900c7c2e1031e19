"""Finished blobs: complete, verified, read-only files named by their digest.

The file system is the truth about bytes: a file at its final path needs no second look, because nothing but a rename
of a verified and fsynced part ever puts one there (ingest.py). Small synchronous calls, made on the event loop on
purpose: opening a local file takes 10-20 us, a thread hop about 190.
"""

import os
from collections.abc import Iterator

from proxy.oci.digest import Digest
from proxy.ports import OpenBlob
from proxy.store.lock import try_exclusive, try_shared


class Files:
    """The folder of finished blobs."""

    __slots__ = ("folder",)

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.makedirs(folder, exist_ok=True)

    def path(self, digest: Digest) -> str:
        return os.path.join(self.folder, digest.path)

    def open(self, digest: Digest) -> OpenBlob | None:
        """The finished blob, its size taken from the descriptor that is served; None when it is not here.

        The shared lock tells an evictor that somebody reads. Raises OSError.
        """
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try_shared(fd)
        return OpenBlob(digest, fd, os.fstat(fd).st_size)

    def has(self, digest: Digest) -> bool:
        """Whether it is here. Raises OSError."""
        return os.path.exists(self.path(digest))

    def adopt(self, part: str, digest: Digest) -> None:
        """Make a verified part final: rename, then fsync of the folders that changed. Blocks. Raises OSError."""
        path = self.path(digest)
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            os.makedirs(folder, exist_ok=True)
            _sync_folder(os.path.dirname(folder))
        os.rename(part, path)
        _sync_folder(folder)

    def is_read(self, digest: Digest) -> bool:
        """Whether somebody has it open. Blocks. Raises OSError."""
        try:
            fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not try_exclusive(fd)
        finally:
            os.close(fd)

    def remove(self, digest: Digest) -> bool:
        """Remove a blob that nobody reads; False when somebody does, True when it is not there (any more). Whoever has
        it open reads it to its end. Blocks. Raises OSError."""
        path = self.path(digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            if not try_exclusive(fd):
                return False
            os.unlink(path)
            return True
        finally:
            os.close(fd)

    def walk(self) -> Iterator[str]:
        """Every finished blob's digest, sorted. Blocks, for long. Raises OSError."""
        for algorithm in sorted(os.listdir(self.folder)):
            for prefix in sorted(os.listdir(os.path.join(self.folder, algorithm))):
                for name in sorted(os.listdir(os.path.join(self.folder, algorithm, prefix))):
                    if name.startswith(prefix):  # elsewhere it is no finished blob, and out of order
                        yield f"{algorithm}:{name}"

    def is_at(self, digest: Digest, fd: int) -> bool:
        """Whether the open file is the finished blob itself. Raises OSError."""
        return same_file(self.path(digest), fd)


def same_file(path: str, fd: int) -> bool:
    """Whether `path` names the file that `fd` has open. Raises OSError."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
