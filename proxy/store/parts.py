"""The folder of growing files as a whole: what is being written now, what was left behind. What one of them means is
ingest.py's; here they are listed, weighed and, when nobody has led one for long, swept.
"""

import contextlib
import os
import time
from collections.abc import Iterator

from proxy.oci.digest import Digest
from proxy.ports import Seen
from proxy.store.files import same_file
from proxy.store.lock import try_exclusive, try_shared

BLOCK = 512
"""What st_blocks counts, whatever the file system's own blocks are."""
_UNSYNCED = 1 << 20


class Parts:
    """The parts of one data folder."""

    __slots__ = ("_folder",)

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, exist_ok=True)

    def path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def has(self, digest: Digest) -> bool:
        """Whether there is one of this digest. Raises OSError."""
        return os.path.exists(self.path(f"{digest.algorithm}-{digest.hex}.part"))

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self._folder) as entries:
            yield from (entry for entry in entries if entry.name.endswith(".part"))

    def live(self) -> list[tuple[str, Seen]]:
        """Digest and state of every part somebody on this machine is writing now. Raises OSError."""
        names = sorted(entry.name for entry in self._entries())
        found = ((name.removesuffix(".part").replace("-", ":", 1), self._seen(name)) for name in names)
        return [(digest, seen) for digest, seen in found if seen is not None]

    def _seen(self, name: str) -> Seen | None:
        try:
            fd = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            # A shared lock tells a leader from a leftover; it is held for two system calls, and a claim that comes
            # in between follows, polls, and leads 15 ms later.
            if try_shared(fd):
                return None
            return Seen(os.fstat(fd).st_size, *read_note(self.path(f"{name.removesuffix('.part')}.note")))
        finally:
            os.close(fd)

    def bytes(self) -> int:
        """Bytes on disk of all parts. Raises OSError."""
        size = 0
        for entry in self._entries():
            with contextlib.suppress(FileNotFoundError):
                size += entry.stat().st_blocks * BLOCK
        return size

    def settle(self) -> None:
        """Once, before any worker: parts of an earlier boot lose what may never have reached the disk, and their notes
        with it. A worker would do it too when it comes to lead, but a follower might read what is there before that,
        and where all bytes seem to be there take it for a verified file. Raises OSError."""
        for entry in list(self._entries()):
            fd = os.open(entry.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if drop_unsynced(fd):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(f"{entry.path.removesuffix('.part')}.note")
            finally:
                os.close(fd)
        self._sweep_notes(time.time())

    def _sweep_notes(self, before: float) -> None:
        """A leader killed between the rename of its part and the removal of its note leaves a note alone."""
        with os.scandir(self._folder) as entries:
            notes = [entry.path for entry in entries if entry.name.endswith(".note")]
        for path in notes:
            with contextlib.suppress(FileNotFoundError):
                if not os.path.exists(f"{path.removesuffix('.note')}.part") and os.stat(path).st_mtime <= before:
                    os.unlink(path)

    def sweep(self, age: float) -> int:
        """Remove parts nobody leads and nobody has written to for `age` seconds; bytes freed. Raises OSError."""
        before = time.time() - age
        self._sweep_notes(before)
        old = []
        for entry in self._entries():
            with contextlib.suppress(FileNotFoundError):  # finished since it was listed
                if entry.stat().st_mtime < before:
                    old.append(entry.name)
        return sum(self._sweep(name) for name in old)

    def _sweep(self, name: str) -> int:
        """Whoever sweeps a part takes its lock and looks whether it is still the one at its path."""
        path = self.path(name)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            if not try_exclusive(fd) or not same_file(path, fd):
                return 0
            size = os.fstat(fd).st_blocks * BLOCK
            forget(path, self.path(f"{name.removesuffix('.part')}.note"))
            return size
        finally:
            os.close(fd)


def drop_unsynced(fd: int) -> bool:
    """Pages of a part written before the last boot may never have reached the disk: they read as zeros, so its last
    MiB goes. Whether it did. Raises OSError."""
    state, booted = os.fstat(fd), time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    if not state.st_size or state.st_mtime >= booted:
        return False
    os.ftruncate(fd, max(0, state.st_size - _UNSYNCED))
    return True


def read_note(path: str) -> tuple[int | None, bool]:
    """Total and liveness as last noted; what cannot be read says nothing."""
    try:
        with open(path, "rb") as file:
            text = file.read(64)
        total = int(text[:19])
    except (FileNotFoundError, ValueError):
        return None, False
    return (total if total >= 0 else None), text[19:20] == b"L"


def forget(part: str, note: str) -> None:
    """Remove part and note; whoever calls this holds the lock."""
    for path in (note, part):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
