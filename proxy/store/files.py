"""Finished blobs: complete, verified, read-only files named by their digest.

The file system is the truth about bytes: a file at its final path needs no second look, because nothing but a rename
of a verified and fsynced part ever puts one there (ingest.py). Small synchronous calls, made on the event loop on
purpose: opening a local file takes 10-20 us, a thread hop about 190.

Who may see a blob stands in the index, and an index can be lost. So what was got without credentials, and is therefore
everybody's, carries a mark in its mode that tar, rsync -a and cp -p take along: the sticky bit, which means nothing on
a file on Linux, needs no right to set, and was on no file of an earlier release, whose mode says nothing about who may
see it. It permits only where nobody can be asked; a file without it is as before, shown when the upstream has said so.
"""

import contextlib
import os
import stat
from collections.abc import Iterator

from proxy.oci.digest import Digest
from proxy.ports import OpenBlob
from proxy.store.lock import try_exclusive, try_shared

FINAL = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
"""The mode of a finished file."""
PUBLIC = FINAL | stat.S_ISVTX
"""The mode of one that was got without credentials."""


class Files:
    """The folder of finished blobs."""

    __slots__ = ("_durable", "folder")

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self._durable = {folder}

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

    def size(self, digest: Digest) -> int | None:
        """Its bytes, None when it is not here. Raises OSError."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            return None

    def touch(self, digest: Digest) -> bool:
        """Say that it is in use now, by the time of its file; False when it is not here. Raises OSError."""
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    def take_over(self, path: str, digest: Digest) -> bool:
        """Have a finished blob of another folder here too, without a copy; False when it has gone. Blocks. Raises
        OSError."""
        mine = self.path(digest)
        make_folder(os.path.dirname(mine), self._durable)
        try:
            os.link(path, mine)
        except FileNotFoundError:
            return False
        except FileExistsError:
            pass
        sync_folder(os.path.dirname(mine))
        return True

    def settle(self, digest: Digest) -> bool:
        """Whether it is here, and then to stay: somebody may have put it here a moment ago and not have synced its
        folder yet. Blocks. Raises OSError."""
        if not self.has(digest):
            return False
        sync_folder(os.path.dirname(self.path(digest)))
        return True

    def adopt(self, part: str, digest: Digest) -> None:
        """Make a verified part final: rename, then fsync of the folders that changed. Blocks. Raises OSError."""
        path = self.path(digest)
        make_folder(os.path.dirname(path), self._durable)
        os.rename(part, path)
        sync_folder(os.path.dirname(path))

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

    def names(self, after: str = "") -> Iterator[str]:
        """Every finished blob's digest in order, those beyond `after`. Blocks, for long. Raises OSError."""
        for algorithm in sorted(os.listdir(self.folder)):
            for prefix in sorted(os.listdir(os.path.join(self.folder, algorithm))):
                if f"{algorithm}:{prefix}" < after[: len(algorithm) + 1 + len(prefix)]:
                    continue
                for name in sorted(os.listdir(os.path.join(self.folder, algorithm, prefix))):
                    # Elsewhere it is no finished blob, and out of order.
                    if name.startswith(prefix) and f"{algorithm}:{name}" > after:
                        yield f"{algorithm}:{name}"

    def walk(self, after: str = "") -> Iterator[tuple[str, os.stat_result]]:
        """The same with the state of each."""
        for digest in self.names(after):
            algorithm, _, name = digest.partition(":")
            with contextlib.suppress(FileNotFoundError):
                yield digest, os.stat(os.path.join(self.folder, algorithm, name[:2], name))

    def is_at(self, digest: Digest, fd: int) -> bool:
        """Whether the open file is the finished blob itself. Raises OSError."""
        return same_file(self.path(digest), fd)


def is_public(fd: int) -> bool:
    """Whether the open file was got without credentials. Raises OSError."""
    return bool(os.fstat(fd).st_mode & stat.S_ISVTX)


def same_file(path: str, fd: int) -> bool:
    """Whether `path` names the file that `fd` has open. Raises OSError."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(fd)
    return (there.st_ino, there.st_dev) == (here.st_ino, here.st_dev)


def make_folder(folder: str, durable: set[str]) -> None:
    """A folder and those above it, each durable in the one above, down from those that are `durable` already. Blocks.
    Raises OSError.

    That a folder is there proves nothing: whoever made it may have been killed, or just not have come to sync it. So
    what this process has not seen synced it syncs, once, with everything that stands beside it.
    """
    if folder in durable and os.path.isdir(folder):
        return
    above = os.path.dirname(folder)
    make_folder(above, durable)
    try:
        os.mkdir(folder, 0o750)
        beside = [folder]
    except FileExistsError:
        beside = [os.path.join(above, name) for name in os.listdir(above)]
    sync_folder(above)
    durable.update(beside)


def sync_folder(folder: str) -> None:
    """What a folder lists is on the disk. Blocks. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
