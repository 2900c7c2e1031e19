"""The growing file: one writer per digest per machine, elected by the kernel; everybody else reads what it writes.

A part lies at ingest/<algorithm>-<hex>.part, and whoever holds its flock leads. Two rules carry everything:

* st_size is the position. No preallocation, writes only ever contiguous, so a follower in any process, and a
  successor after a crash, know from fstat alone what is there.
* The last byte is withheld from the file until the digest has matched. So `st_size` is what may be sent, in every
  process, and a file that has all its bytes is a verified file; nobody waits for fsync to finish a response.

Beside the part lies a note of 20 characters, written in one pwrite: the total where it is known, and whether this
leader's upstream has delivered a byte (only then may responses start: bytes of an earlier life prove nothing about
what the upstream says today).

claim(): (1) finished? (2) open the part (3) flock refused? follow (4) not the file at that path any more? again
(5) finished *now*, or an outcome newer than my arrival? take that (6) lead. Steps 4 and 5 are what makes it right.
A opens the part; B, leading, renames it away and closes; A gets the lock of a file that is finished elsewhere. Without
the second look a race of 8 processes over 400 digests committed about 670 times.
"""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from proxy.oci.digest import Digest
from proxy.ports import Gone, OpenBlob, Seen
from proxy.store.catalogue import Catalogue
from proxy.store.files import FINAL, PUBLIC, Files, same_file
from proxy.store.growing import Growing
from proxy.store.lock import try_exclusive, try_shared
from proxy.store.parts import BLOCK, Parts, drop_unsynced, forget, read_note


@dataclass(frozen=True, slots=True)
class _Place:
    """Where one digest's part and note lie, and what a leader needs to finish it."""

    digest: Digest
    part: str
    note: str
    files: Files
    pool: Executor
    sync_pool: Executor
    catalogue: Catalogue
    is_public: Callable[[Digest], bool]

    def read_note(self) -> tuple[int | None, bool]:
        return read_note(self.note)

    def write_note(self, total: int | None, live: bool) -> None:
        fd = os.open(self.note, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, b"%19d%s" % (-1 if total is None else total, b"L" if live else b"P"), 0)
        finally:
            os.close(fd)

    def forget(self) -> None:
        """Remove part and note; whoever calls this holds the lock."""
        forget(self.part, self.note)


class Leading:
    """The only writer on this machine. Satisfies ports.Lead."""

    def __init__(self, place: _Place, fd: int) -> None:
        self._place = place
        self.fd = fd
        self.total, live = place.read_note()
        found = os.fstat(fd).st_size
        if found > (self.total if self.total is not None else found):
            os.ftruncate(fd, 0)
        self._file = Growing(fd, place.digest.hasher(), place.pool)
        if self._file.offset or live:
            place.write_note(self.total, live=False)

    @property
    def offset(self) -> int:
        return self._file.offset

    @property
    def received(self) -> int:
        """Bytes received, the withheld one included: where the next byte belongs."""
        return self._file.received

    def on_progress(self, call: Callable[[], None]) -> None:
        self._file.on_progress = call

    def announce(self, total: int | None) -> None:
        self.total = total
        self._place.write_note(total, live=True)

    async def write(self, chunk: bytes) -> None:
        await self._file.write(chunk)

    async def settle(self) -> None:
        await self._file.settle()

    async def seal(self) -> bool:
        return await self._file.seal(self._place.digest.hex)

    async def publish(self) -> None:
        await self._file.run(self._publish, self._place.sync_pool)

    def _publish(self) -> None:
        place = self._place
        os.fchmod(self.fd, PUBLIC if place.is_public(place.digest) else FINAL)
        os.fsync(self.fd)
        place.catalogue.add(str(place.digest), os.fstat(self.fd).st_blocks * BLOCK)
        place.files.adopt(place.part, place.digest)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.note)  # an empty blob, and content that came whole, has none

    async def close(self, *, discard: bool) -> None:
        if self.fd < 0:
            return
        await self._file.stop()
        if discard and same_file(self._place.part, self.fd):
            self._place.forget()
        os.close(self.fd)
        self.fd = -1

    def __repr__(self) -> str:
        return f"<Leading {self._place.digest.short} {self.offset} of {self.total}>"


class Following:
    """A reader of somebody else's part. Satisfies ports.Follow."""

    def __init__(self, place: _Place, fd: int) -> None:
        self._place = place
        self.fd = fd

    def look(self, settled: Callable[[], None]) -> Seen | Gone | Leading | OpenBlob:
        place = self._place
        if place.files.is_at(place.digest, self.fd):
            return self._finished()
        state = os.fstat(self.fd)
        if state.st_nlink == 0:
            return Gone()
        if not try_exclusive(self.fd):
            total, live = place.read_note()
            return Seen(state.st_size, total, live)
        # Nobody leads: look again under the lock, the leader may have finished or failed between the lines above.
        if place.files.is_at(place.digest, self.fd):
            return self._finished()
        if not same_file(place.part, self.fd):
            return Gone()
        settled()
        lead = Leading(place, self.fd)
        self.fd = -1
        return lead

    def _finished(self) -> OpenBlob:
        """The size is read now: one read before the rename was seen may lack the last byte."""
        size = os.fstat(self.fd).st_size
        return OpenBlob(self._place.digest, self._give_up_fd(), size)

    def _give_up_fd(self) -> int:
        fd, self.fd = self.fd, -1
        return fd

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Store:
    """The content-addressed store of one data folder. Satisfies ports.BlobStore."""

    def __init__(
        self,
        data: str,
        pool: Executor,
        sync_pool: Executor,
        catalogue: Catalogue,
        is_public: Callable[[Digest], bool] = lambda digest: False,
    ) -> None:
        """`is_public` says of what is about to be final whether it was got without credentials; asked in a thread."""
        self.files = Files(os.path.join(data, "blobs"))
        self.parts = Parts(os.path.join(data, "ingest"))
        self._pool = pool
        self._sync_pool = sync_pool  # apart: four fsyncs of a gigabyte must not keep every other fill from writing
        self._catalogue = catalogue
        self._is_public = is_public

    def open(self, digest: Digest) -> OpenBlob | None:
        return self.files.open(digest)

    def growing(self, digest: Digest) -> Seen | None:
        """A look without a claim: one who claims in this very moment follows for a poll, finds nobody and leads. A disk
        that cannot even be read is the claim's to report."""
        place = self._place(digest)
        try:
            fd = os.open(place.part, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return None if try_shared(fd) else Seen(os.fstat(fd).st_size, *place.read_note())
        finally:
            os.close(fd)

    def claim(self, digest: Digest, settled: Callable[[], None]) -> Leading | Following | OpenBlob:
        while True:
            if done := self.files.open(digest):
                return done
            claimed = self._claim(self._place(digest), settled)
            if claimed is not None:
                return claimed

    def _claim(self, place: _Place, settled: Callable[[], None]) -> Leading | Following | OpenBlob | None:
        """One pass over steps 2 to 6; None: start over."""
        fd = os.open(place.part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not try_exclusive(fd):
                mine, fd = fd, -1
                return Following(place, mine)
            if not same_file(place.part, fd):
                return None
            if done := self.files.open(place.digest):
                place.forget()
                return done
            self._check_settled(place, fd, settled)
            drop_unsynced(fd)
            lead = Leading(place, fd)
            fd = -1
            return lead
        finally:
            if fd >= 0:
                os.close(fd)

    def _check_settled(self, place: _Place, fd: int, settled: Callable[[], None]) -> None:
        """An outcome ends the claim; an empty part that only this look created goes with it."""
        try:
            settled()
        except Exception:
            if os.fstat(fd).st_size == 0:
                place.forget()
            raise

    def _place(self, digest: Digest) -> _Place:
        stem = self.parts.path(f"{digest.algorithm}-{digest.hex}")
        pools = self._pool, self._sync_pool
        return _Place(digest, f"{stem}.part", f"{stem}.note", self.files, *pools, self._catalogue, self._is_public)
