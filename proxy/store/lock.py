"""The only file that names flock.

Every election on this machine is one: who fills a digest, who revalidates a tag, who may open one more connection.
The kernel drops a lock when its holder dies, however it dies, so there are no leases, no heartbeats and nothing to
sweep. flock belongs to the open file description: two descriptors of one process exclude each other like two
processes do, and closing one releases only its own lock. A local file system is required.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def try_exclusive(fd: int) -> bool:
    """True when this open file description now holds the exclusive lock; never waits."""
    return _try(fd, fcntl.LOCK_EX)


def try_shared(fd: int) -> bool:
    """True when this open file description now holds a shared lock; never waits."""
    return _try(fd, fcntl.LOCK_SH)


@contextmanager
def briefly(path: str) -> Iterator[None]:
    """Hold `path` exclusively for a few microseconds of arithmetic; waits for others who do the same. A disk that
    takes no lock file (read-only, full) costs the exclusion: a step of the arithmetic may be lost."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def waiting(path: str, *, shared: bool = False) -> Iterator[None]:
    """Hold `path`, exclusively or with others who share it; waits in the kernel, so only from a thread. Where
    `briefly` goes on without, this does not. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Hold:
    """A lock file held until `release`, or until the process dies; `path` is removed with it where there is one."""

    __slots__ = ("_fd", "_path")

    def __init__(self, fd: int, path: str = "") -> None:
        self._fd = fd
        self._path = path

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._fd >= 0:
            if self._path:
                os.unlink(self._path)
            os.close(self._fd)
            self._fd = -1


def hold(path: str) -> Hold | None:
    """The lock file at `path` held exclusively, or None when somebody else holds it; never waits."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if try_exclusive(fd):
        return Hold(fd)
    os.close(fd)
    return None


def hold_named(path: str) -> Hold | None:
    """Like `hold`, for names without number: the file exists only while somebody holds it.

    A opens the file, B unlinks and closes it, C makes it anew: A's lock is on a file nobody else can find. So whoever
    gets a lock looks whether the file is still the one at its path.
    """
    held = hold(path)
    if held is None:
        return None
    try:
        there = os.stat(path).st_ino
    except FileNotFoundError:
        there = 0
    if there != os.fstat(held._fd).st_ino:
        held.release()
        return None
    held._path = path
    return held


class Slots:
    """At most `count` holders of a name on this machine: one lock file a slot."""

    __slots__ = ("_count", "_prefix")

    def __init__(self, folder: str, name: str, count: int) -> None:
        os.makedirs(folder, exist_ok=True)
        self._prefix = os.path.join(folder, name.replace("/", "_"))
        self._count = count

    def take(self) -> Hold | None:
        """A free slot, or None when all are held; never waits."""
        for number in range(self._count):
            held = hold(f"{self._prefix}.{number}")
            if held is not None:
                return held
        return None
