"""Uploads on their way in: one file a session, appended to by whoever holds its lock, in whatever worker.

Hashed as it is written. How far that has come is remembered in the worker and handed on in the session's file: nothing
is read again, whichever workers took the upload. Where nothing was handed on (killed in the middle, the machine started
anew, a Python that cannot) one that takes over reads what the others wrote, once, in its thread, while it takes the
next bytes. A session's size is its file's; what a broken connection left is to be found and can be gone on from.

    <folder>/<id>            the bytes, locked while somebody writes
    <folder>/<id>.session    session.py's

Nothing here is durable before the blob is committed: sessions that a power cut takes were never acknowledged.
"""

import contextlib
import os
import secrets
import time
from collections import OrderedDict
from concurrent.futures import Executor

from proxy.errors import BlobUploadUnknown, NoSpace, UploadOutOfOrder
from proxy.oci.digest import Digest
from proxy.store import session
from proxy.store.files import Files
from proxy.store.growing import PIECE, Growing
from proxy.store.hashing import fresh
from proxy.store.lock import try_exclusive
from proxy.store.session import Hashed, Session
from proxy.store.yard import Yard

_REMEMBERED = 1000
_ID = 32
_STEP = 4 << 20
"""Bytes that are counted at once, before they come."""


class Uploads:
    """The upload sessions of one data folder."""

    def __init__(self, folder: str, pool: Executor, yard: Yard) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.yard = yard
        self._folder = folder
        self._pool = pool
        self._hashed: OrderedDict[str, Hashed] = OrderedDict()

    def begin(self, repository: str, algorithm: str = "sha256") -> str:
        """A new session; its id. `algorithm` is what the client says it will name the blob by. Raises OSError."""
        name = secrets.token_hex(_ID // 2)
        path = self._path(name)
        try:
            session.create(f"{path}.session", repository, algorithm)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except BaseException:
            self.forget(name)
            raise
        return name

    def size(self, repository: str, name: str) -> int:
        """Bytes a session holds. Raises BlobUploadUnknown, OSError."""
        self._session(repository, name)
        try:
            return os.stat(self._path(name)).st_size
        except FileNotFoundError:
            raise _unknown(name) from None

    def open(self, repository: str, name: str) -> "Upload":
        """The session, to be written by the caller alone. Raises BlobUploadUnknown, UploadOutOfOrder while somebody
        else writes it, OSError."""
        self._session(repository, name)
        try:
            fd = os.open(self._path(name), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _unknown(name) from None
        try:
            return self._locked(repository, name, fd)
        except BaseException:
            os.close(fd)
            raise

    def _locked(self, repository: str, name: str, fd: int) -> "Upload":
        size = os.fstat(fd).st_size
        if not try_exclusive(fd):
            raise UploadOutOfOrder("another request is writing this upload", size)
        found = self._session(repository, name)  # once more: from now on nobody else changes it
        if not os.path.exists(self._path(name)):  # finished or cancelled before the lock was ours
            raise _unknown(name)
        return Upload(self, name, fd, found, self._known(name, found, os.fstat(fd).st_size))

    def _known(self, name: str, found: Session, size: int) -> Hashed:
        """The best of what is known of the first bytes of a session that holds `size`."""
        known = [each for each in (self._hashed.pop(name, None), found.hashed()) if each and each.upto <= size]
        return max(known, key=lambda each: each.upto, default=Hashed(fresh(found.algorithm), 0))

    def keep(self, files: Files, digest: Digest, content: bytes) -> None:
        """Content that came whole and was verified becomes a blob, durably. The caller is the only one to
        change it (yard.py). Blocks. Raises NoSpace, OSError."""
        if _holds(files, digest, content) and files.settle(digest) and files.touch(digest):
            return
        self.yard.take(len(content))
        path = self._path(f".{secrets.token_hex(_ID // 2)}")
        try:
            with open(path, "xb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
            self.adopt(files, path, digest)
        except BaseException:
            self.yard.give(len(content))
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise

    def adopt(self, files: Files, path: str, digest: Digest) -> None:
        """A file of ours that was counted becomes a blob, in place of the one that may be there. Raises OSError."""
        replaced = files.size(digest)
        os.utime(path)
        files.adopt(path, digest)
        self.yard.give(replaced or 0)

    def cancel(self, repository: str, name: str) -> None:
        """Forget a session. Raises BlobUploadUnknown, OSError."""
        self._session(repository, name)
        self._forget_all_of_it(name)

    def _forget_all_of_it(self, name: str) -> None:
        path = self._path(name)
        size = os.stat(path).st_size if os.path.exists(path) else 0
        self.forget(name)
        self.yard.give(size)

    def forget(self, name: str) -> None:
        """Remove a session's files; what they held is for the caller to count. Raises OSError."""
        self._hashed.pop(name, None)
        for path in (f"{self._path(name)}.session", self._path(name)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def remember(self, name: str, found: Session, hashed: Hashed) -> None:
        """For whoever goes on, here or in another worker. The caller holds the session."""
        self._hashed[name] = hashed
        if len(self._hashed) > _REMEMBERED:
            self._hashed.popitem(last=False)
        session.hand_on(f"{self._path(name)}.session", found, hashed)

    def sweep(self, age: float) -> int:
        """Forget sessions nobody has written to for `age` seconds; how many. What a kill left of one, or of a manifest
        on its way, goes with them. Raises OSError."""
        before, swept = time.time() - age, 0
        names = sorted(os.listdir(self._folder))
        whole = [name for name in names if len(name) == _ID]
        for name in set(names) - {file for each in whole for file in (each, f"{each}.session")}:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(self._path(name)).st_mtime < before:
                    os.unlink(self._path(name))
        for name in whole:
            with contextlib.suppress(FileNotFoundError):
                fd = os.open(self._path(name), os.O_RDWR | os.O_CLOEXEC)
                try:
                    if os.fstat(fd).st_mtime < before and try_exclusive(fd):
                        self._forget_all_of_it(name)
                        swept += 1
                finally:
                    os.close(fd)
        return swept

    def _session(self, repository: str, name: str) -> Session:
        """Raises BlobUploadUnknown where it is none of this repository, OSError."""
        if len(name) != _ID or not name.isalnum():
            raise _unknown(name)
        try:
            found = session.read(f"{self._path(name)}.session")
        except (FileNotFoundError, ValueError):
            raise _unknown(name) from None
        if found.repository != repository:
            raise _unknown(name)
        return found

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


class Upload:
    """One session, locked. Must be closed."""

    def __init__(self, uploads: Uploads, name: str, fd: int, found: Session, known: Hashed) -> None:
        self._uploads = uploads
        self._name = name
        self._fd = fd
        self._session = found
        self._hasher = known.hasher
        self._growing = Growing(fd, known.hasher, uploads._pool, known.upto)
        self._over = self._forgotten = False
        self._taken = self._growing.received  # bytes that are counted

    @property
    def size(self) -> int:
        """Bytes taken so far."""
        return self._growing.received

    async def write(self, chunk: bytes) -> None:
        """Append. Raises NoSpace, OSError."""
        self._take(self.size + len(chunk))
        await self._growing.write(chunk)

    def expect(self, size: int) -> None:
        """Whether there is room for so many bytes more: what is too much is best told before it comes. Raises
        NoSpace."""
        self._uploads.yard.check(size)

    def _take(self, upto: int) -> None:
        """Count a step ahead, or what is left where a step is too much. Raises NoSpace."""
        if upto <= self._taken:
            return
        step = max(upto, self._taken + _STEP)
        try:
            self._uploads.yard.take(step - self._taken)
        except NoSpace:
            step = upto
            self._uploads.yard.take(step - self._taken)
        self._taken = step

    async def settle(self) -> None:
        """Every byte that was taken is in the file. Raises OSError."""
        await self._growing.give()

    async def matches(self, digest: Digest) -> bool:
        """Whether all of it has this digest. Reads everything once more where it was hashed otherwise. Raises
        OSError."""
        await self.settle()
        if digest.algorithm == self._session.algorithm:
            return bool(await self._growing.seal(digest.hex))
        return bool(await self._growing.run(lambda: self._hash_anew(digest) == digest.hex, self._uploads._pool))

    def _hash_anew(self, digest: Digest) -> str:
        hasher, at = digest.hasher(), 0
        while piece := os.pread(self._fd, PIECE, at):
            hasher.update(piece)
            at += len(piece)
        return hasher.hexdigest()

    async def commit(self, files: Files, digest: Digest) -> int:
        """The session becomes a blob, durably; its size. The digest has been compared. Raises OSError."""
        size = self.size
        await self._growing.run(lambda: self._commit(files, digest), self._uploads._pool)
        self._over = True
        return size

    def _commit(self, files: Files, digest: Digest) -> None:
        os.fsync(self._fd)
        with self._uploads.yard.changing(digest):
            self._uploads.adopt(files, self._uploads._path(self._name), digest)
        os.fchmod(self._fd, 0o444)  # not before: a session that a kill leaves read-only could not be gone on from
        self._uploads.forget(self._name)

    def _remember(self) -> None:
        self._uploads.remember(self._name, self._session, Hashed(self._hasher, self._growing.hashed))

    def forget(self) -> None:
        """There is nothing to go on from. Raises OSError."""
        self._over = self._forgotten = True
        self._uploads.forget(self._name)

    async def close(self) -> None:
        """Give the lock up; what has been taken stays. Raises nothing."""
        with contextlib.suppress(OSError):  # else what was hashed is not what is in the file
            await self.settle()
            if not self._over and self._growing.hashed:
                await self._growing.run(self._remember, self._uploads._pool)
        await self._growing.stop()
        kept = 0 if self._forgotten else os.fstat(self._fd).st_size
        self._uploads.yard.give(self._taken - kept)
        os.close(self._fd)


def _unknown(name: str) -> BlobUploadUnknown:
    return BlobUploadUnknown(f"no upload {name[:40]!r} here: finished, cancelled, expired, or another repository's")


def _holds(files: Files, digest: Digest, content: bytes) -> bool:
    """Whether exactly this is there; what a disk has damaged is replaced, as if it were not."""
    opened = files.open(digest)
    if opened is None:
        return False
    try:
        return os.pread(opened.fd, len(content) + 1, 0) == content
    finally:
        opened.close()
