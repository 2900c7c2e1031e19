"""The index: small rows about names. The only file that imports diskcache.

diskcache is used for what it does well, many processes on one SQLite file, and kept from what it does badly:
* its Disk unpickles what it finds (CVE-2025-69872, no fixed release; JSONDisk too): ours takes and gives `str` only and
  refuses every other row, so that a planted row is an error and never code;
* no eviction of its own (policy none, cull_limit 0): with LRU every read becomes a write, 205-225 us instead of 38-58;
* no blob ever goes through it: with files named by content a second `set` deletes the file of the first.
Reads are made inline on the event loop (38-58 us, a thread hop costs more); writes go through one thread a process, in
batches that share a transaction. Rows are cheap to lose: every one can be asked for again upstream. So a database that
is damaged, at a start or in use, is set aside and begun anew (mend.py), and so is one of a later version, which its
user_version tells: whoever goes back to this release starts. It is not mapped into memory: reads are no slower for
that, and a file that is cut short under a mapping kills whoever reads it.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diskcache

from proxy.store.mend import NewerVersion, Place, is_damage, set_aside

VERSION = 1
_DATABASE = "cache.db"
_LOOK = 0.5
_QUIET = 60.0
_log = logging.getLogger("tidegate.store")
_SETTINGS: dict[str, Any] = {
    "eviction_policy": "none",
    "cull_limit": 0,
    "statistics": 0,
    "tag_index": 0,
    "size_limit": 2**62,
    "disk_min_file_size": 2**40,
    "sqlite_synchronous": 1,
    "sqlite_auto_vacuum": 0,
    # Pages: 8 MiB for each thread that opens it. A read of one of a million rows takes 14 us with that, with four times
    # as much, and with 64 MiB mapped; only the memory of a worker differs, by 90 MiB.
    "sqlite_cache_size": 2048,
    "sqlite_mmap_size": 0,
    "sqlite_journal_mode": "wal",
    "disk_pickle_protocol": 0,
}


class ForeignRow(Exception):
    """A row that this program did not write."""


class _TextDisk(diskcache.Disk):  # type: ignore[misc]
    """Text in, text out, in the database itself."""

    def hash(self, key: Any) -> int:
        return int(super().hash(key))

    def put(self, key: Any) -> tuple[str, bool]:
        return _text(key), True

    def get(self, key: Any, raw: Any) -> str:
        if not raw:
            raise ForeignRow("a key that is not text")
        return _text(key)

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, None, str]:
        return 0, diskcache.core.MODE_RAW, None, _text(value)

    def remove(self, file_path: str) -> None:
        """Rows have no files; a planted row that names one must not get it deleted."""

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> str:
        if mode != diskcache.core.MODE_RAW or filename is not None:
            raise ForeignRow("a row that is not text")
        return _text(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ForeignRow(f"{type(value).__name__} instead of text")
    return value


_Batch = Mapping[str, tuple[str | None, float | None]]


def _open(folder: str) -> diskcache.Cache:
    """Raises sqlite3.Error, diskcache.Timeout, OSError; NewerVersion before anything is changed."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with contextlib.closing(sqlite3.connect(os.path.join(folder, _DATABASE), timeout=10)) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise NewerVersion(f"version {version}, and this reads {VERSION}")
    cache = diskcache.Cache(folder, timeout=10, disk=_TextDisk, **_SETTINGS)
    if version != VERSION:
        with contextlib.closing(sqlite3.connect(os.path.join(folder, _DATABASE), timeout=10)) as database:
            database.execute(f"PRAGMA user_version = {VERSION}")
    return cache


class Index:
    """Rows of text under keys of text, shared by all workers of one data folder."""

    def __init__(self, folder: str) -> None:
        """Raises sqlite3.Error, diskcache.Timeout, OSError."""
        self._cache = _open(folder)
        self._place = Place(folder, _DATABASE)
        self._suspect = False
        self._writer = ThreadPoolExecutor(1, "index")
        self._waiting: dict[str, tuple[str | None, float | None]] = {}
        self._quiet_until = 0.0
        self._last: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    def get(self, key: str) -> str | None:
        """The row, or None. Never waits for a writer."""
        try:
            row: str | None = self._cache.get(key)
        except (ForeignRow, sqlite3.Error, diskcache.Timeout) as error:
            # A row that cannot be read is a row that is not there; what it said can be asked again.
            self._suspect |= isinstance(error, sqlite3.Error) and is_damage(error)
            return None
        return row

    async def read(self, keys: Iterable[str]) -> dict[str, str | None]:
        """Many rows, in the order of `keys`, without holding up the loop: in the writer's thread, because every thread
        that reads costs a connection and its pages."""
        wanted = list(keys)
        call = asyncio.get_running_loop().run_in_executor
        return await call(self._writer, lambda: {key: self.get(key) for key in wanted})

    async def put(self, rows: Mapping[str, str | None], lifetime: float | None = None) -> None:
        """Write rows, None to remove one; returns when every process sees them. `lifetime` is seconds after which
        they are as if never written. Raises OSError."""
        self._waiting |= {key: (value, lifetime) for key, value in rows.items()}
        if self._next is None:
            self._next = asyncio.create_task(self._write(self._last))
        await asyncio.shield(self._next)

    async def note(self, rows: Mapping[str, str | None], lifetime: float | None = None) -> bool:
        """Like `put`, for what can be learned again: a disk that cannot be written costs the note, never the answer.
        Whether it was written; the log says why not, once a minute."""
        try:
            await self.put(rows, lifetime)
        except OSError as error:
            if time.monotonic() > self._quiet_until:
                self._quiet_until = time.monotonic() + _QUIET
                _log.error("%s; what is learned meanwhile is not kept", error)
            return False
        return True

    async def _write(self, previous: asyncio.Task[None] | None) -> None:
        """Once the previous batch is done, write everything that waits by then in one transaction."""
        if previous is not None and not previous.done():
            await asyncio.wait([previous])
        batch, self._waiting = self._waiting, {}
        self._last, self._next = self._next, None
        await asyncio.get_running_loop().run_in_executor(self._writer, self._commit, batch)

    def _commit(self, batch: _Batch) -> None:
        """In the writer's thread. Raises OSError."""
        try:
            try:
                self._store(batch)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
                self._renew(str(error))
                self._store(batch)
        except (sqlite3.Error, diskcache.Timeout) as error:
            raise OSError(f"the index cannot be written: {error}") from error

    def _store(self, batch: _Batch) -> None:
        with self._cache.transact(retry=True):
            for key, (value, lifetime) in batch.items():
                if value is None:
                    self._cache.delete(key)
                else:
                    self._cache.set(key, value, expire=lifetime)

    def _renew(self, reason: str) -> None:
        """Go on with a new database, or with the one somebody else has begun. Raises OSError, sqlite3.Error."""
        with self._place.renewing() as aside:
            self._cache = _open(self._place.folder)
            self._suspect = False
        if aside:
            _log.error("the index is damaged (%s): set aside as %s, names will be asked for again", reason, aside)

    async def watch(self) -> None:
        """Notice damage that a read met, and a database that somebody else has set aside, for ever."""
        while True:
            await asyncio.sleep(_LOOK)
            if self._suspect or self._place.moved():
                with contextlib.suppress(OSError, sqlite3.Error, diskcache.Timeout):
                    await asyncio.get_running_loop().run_in_executor(self._writer, self._renew, "a row cannot be read")

    def keys(self) -> Iterable[str]:
        """Every key, by row; slow on large indexes, never on the event loop of a server."""
        keys: Iterable[str] = iter(self._cache)
        return keys

    def expire(self) -> None:
        """Remove rows whose lifetime is over. Blocks."""
        with contextlib.suppress(sqlite3.Error, diskcache.Timeout):
            self._cache.expire()

    def check(self) -> None:
        """Read something. Raises sqlite3.DatabaseError, diskcache.Timeout when the database cannot be used."""
        len(self._cache)

    def close(self) -> None:
        """Wait for writes under way, close the database."""
        self._writer.submit(self._cache.close)  # a connection belongs to the thread that opened it
        self._writer.shutdown(wait=True)
        self._cache.close()


def prepare(folder: str) -> str:
    """Create or check the index once, before any worker opens it. Blocks.

    A database that cannot be read is set aside, because everything in it can be asked for again. Returns a sentence
    for the log, empty when all is well. Raises OSError.
    """
    try:
        _probe(folder)
    except (sqlite3.DatabaseError, diskcache.Timeout) as error:
        aside = set_aside(folder)
        _probe(folder)
        return f"the index could not be read ({error}): set aside as {aside}, names will be asked for again"
    return ""


def usable(folder: str) -> Index:
    """The index, begun anew where it was damaged after `prepare`: a worker that died of that would die again.

    Raises OSError, sqlite3.Error, diskcache.Timeout.
    """
    place = Place(folder, _DATABASE)
    try:
        return Index(folder)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        with place.renewing() as aside:
            _log.error("the index is damaged (%s): set aside as %s, names will be asked for again", error, aside)
        return Index(folder)


def _probe(folder: str) -> None:
    index = Index(folder)
    try:
        index.check()
    finally:
        index.close()
