"""One finished file read again: piece by piece, and without spoiling the page cache for those who are served from it.

It is read without a lock: evicted meanwhile, it is read to its end and forgotten. What follows from the verdict is
scrub.py's.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.oci.digest import Digest
from proxy.store.files import Files
from proxy.store.quarantine import PIECE


@dataclass(frozen=True, slots=True)
class Read:
    """A piece of `size` bytes was read."""

    size: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A file of `size` bytes is read; `wrong` says why it is not what its name says, empty where it is."""

    digest: Digest
    fd: int
    size: int
    wrong: str = ""


def reread(files: Files, digest: Digest) -> Iterator[Read | Verdict]:
    """Pieces, then the verdict, whose descriptor is open until the next step; nothing where the file is not there.

    Blocks a piece at a time. Raises OSError.
    """
    try:
        fd = os.open(files.path(digest), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        hasher, at, wrong = digest.hasher(), 0, ""
        try:
            while piece := _read(fd, at):
                hasher.update(piece)
                at += len(piece)
                yield Read(len(piece))
        except OSError as error:  # a sector that cannot be read is as bad as one that reads wrong
            wrong = error.strerror or str(error)
        if not wrong and hasher.hexdigest() != digest.hex:
            wrong = "its bytes have changed"
        yield Verdict(digest, fd, at, wrong)
    finally:
        os.close(fd)


def _read(fd: int, at: int) -> bytes:
    """A piece; pages that were not in memory before are given back at once."""
    cold = not _resident(fd, at)
    piece = os.pread(fd, PIECE, at)
    if cold:
        os.posix_fadvise(fd, at, PIECE, os.POSIX_FADV_DONTNEED)
    return piece


def _resident(fd: int, at: int) -> bool:
    try:
        os.preadv(fd, [bytearray(1)], at, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system that cannot tell: leave everybody's pages alone
    return True
