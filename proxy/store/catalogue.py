"""What is cached, by use and by name: the books that care/ keeps house by. The only file that opens this database.

The answer path never reads it: bytes are where their file is, names are in the index. Here stand the size on disk and
the last use of every finished blob, in the order in which they would be evicted, and which images were asked for. The
sums are kept by triggers, in the transaction that changes a row, so no start and no scrape adds up a million rows.
SQLite of the standard library, because diskcache cannot be asked in an order of ours: its LRU makes every read a write.

A row stands before its file does, and goes after it, so no file is unaccounted; a row without a file is found when its
turn to be evicted comes. Uses are collected in memory and written in batches. All of it can be rebuilt from the files
(care/census.py), so a database that cannot be read, or that a later version wrote, is set aside.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

VERSION = 1
_PAGE = 200
_SCHEMA = """
CREATE TABLE objects (digest TEXT PRIMARY KEY, size INTEGER, used REAL, uses INTEGER, rank REAL) WITHOUT ROWID;
CREATE INDEX by_rank ON objects (rank, digest);
CREATE TABLE images (repository TEXT, reference TEXT, digest TEXT, asked REAL,
                     PRIMARY KEY (repository, reference)) WITHOUT ROWID;
CREATE TABLE sums (bytes INTEGER, objects INTEGER);
INSERT INTO sums VALUES (0, 0);
CREATE TRIGGER came AFTER INSERT ON objects
    BEGIN UPDATE sums SET bytes = bytes + NEW.size, objects = objects + 1; END;
CREATE TRIGGER went AFTER DELETE ON objects
    BEGIN UPDATE sums SET bytes = bytes - OLD.size, objects = objects - 1; END;
CREATE TRIGGER grew AFTER UPDATE OF size ON objects
    BEGIN UPDATE sums SET bytes = bytes - OLD.size + NEW.size; END;
"""


@dataclass(frozen=True, slots=True)
class Held:
    """One finished blob: bytes on disk, wall-clock seconds of its last use."""

    digest: str
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Named:
    """An image somebody asked for: `repository` with its upstream, `reference` a tag or the digest itself."""

    repository: str
    reference: str
    digest: str
    asked: float


Rank = Callable[[float, int, int], float]
"""Who goes first, the lowest: last use, size, number of uses."""


class Catalogue:
    """The catalogue of one data folder; every process opens its own. Calls block for as long as SQLite takes, 20 to
    100 us; they may come from any thread."""

    def __init__(self, folder: str, rank: Rank, clock: Callable[[], float] = time.time) -> None:
        """Raises sqlite3.Error."""
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._rank = rank
        self._clock = clock
        self._touched: dict[str, int] = {}
        self._writing, self._reading = threading.Lock(), threading.Lock()
        with contextlib.ExitStack() as stack:
            path = os.path.join(folder, "catalogue.db")
            self._writer = stack.enter_context(contextlib.closing(_connect(path)))
            self._create()
            # Of its own, so that whoever reads on the event loop never waits for a batch that is being written.
            self._reader = stack.enter_context(contextlib.closing(_connect(path)))
            self._open = stack.pop_all()

    def _create(self) -> None:
        with self._changing() as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise sqlite3.DatabaseError(f"version {version}, and this reads {VERSION}")
            if version == 0:
                for statement in _statements(_SCHEMA):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises sqlite3.Error."""
        with self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # a full disk has rolled it back already
                    self._writer.execute("ROLLBACK")
                raise

    def add(self, digest: str, size: int) -> None:
        """A blob is about to be put in its place; `size` is bytes on disk. Raises OSError."""
        now = self._clock()
        row = (digest, size, now, 1, self._rank(now, size, 1))
        with _as_os_error(), self._changing() as db:
            db.execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE"
                " SET size = excluded.size, used = excluded.used, uses = uses + 1, rank = excluded.rank",
                row,
            )

    def take_in(self, found: Iterable[Held]) -> None:
        """Files that have no row, as old as they are; rows that are there stay as they are. Raises OSError."""
        rows = [(each.digest, each.size, each.used, 1, self._rank(each.used, each.size, 1)) for each in found]
        with _as_os_error(), self._changing() as db:
            db.executemany("INSERT OR IGNORE INTO objects VALUES (?, ?, ?, ?, ?)", rows)

    def touch(self, digest: str) -> None:
        """A blob was used; written with the next `flush`."""
        self._touched[digest] = self._touched.get(digest, 0) + 1

    def flush(self) -> None:
        """Write down what was touched. Raises OSError."""
        touched, self._touched, now = self._touched, {}, self._clock()
        if not touched:
            return
        with _as_os_error(), self._changing() as db:
            for digest, times in list(touched.items()):
                row = db.execute("SELECT size, uses FROM objects WHERE digest = ?", (digest,)).fetchone()
                if row is not None:
                    uses = row[1] + times
                    change = (now, uses, self._rank(now, row[0], uses), digest)
                    db.execute("UPDATE objects SET used = ?, uses = ?, rank = ? WHERE digest = ?", change)

    def remove(self, gone: Iterable[Held]) -> None:
        """Their files are gone; a row that was used or written since it was read belongs to a new file and stays.

        Raises OSError."""
        with _as_os_error(), self._changing() as db:
            db.executemany(
                "DELETE FROM objects WHERE digest = ? AND used <= ?", [(each.digest, each.used) for each in gone]
            )

    def set_back(self, now: float) -> None:
        """No last use lies after `now`. Raises OSError."""
        # Read outside the transaction: a million rows take 0.3 s, and nobody could write meanwhile.
        late = self._rows("SELECT digest, size, uses FROM objects WHERE used > ?", now)
        with _as_os_error(), self._changing() as db:
            for digest, size, uses in late:
                change = (now, self._rank(now, size, uses), digest)
                db.execute("UPDATE objects SET used = ?, rank = ? WHERE digest = ?", change)

    def get(self, digest: str) -> Held | None:
        """A blob's row. Raises OSError."""
        rows = self._rows("SELECT digest, size, used FROM objects WHERE digest = ?", digest)
        return Held(*rows[0]) if rows else None

    def lowest_first(self) -> Iterator[Held]:
        """Every blob, the first to be evicted first, read in pages. Raises OSError."""
        last = (-float("inf"), "")
        while True:
            rows = self._rows(
                "SELECT digest, size, used, rank FROM objects WHERE (rank, digest) > (?, ?)"
                f" ORDER BY rank, digest LIMIT {_PAGE}",
                *last,
            )
            for digest, size, used, rank in rows:
                yield Held(digest, size, used)
                last = (rank, digest)
            if len(rows) < _PAGE:
                return

    def all(self, after: str = "") -> Iterator[Held]:
        """Every blob by digest, beyond `after`, read in pages. Raises OSError."""
        while True:
            rows = self._rows(
                f"SELECT digest, size, used FROM objects WHERE digest > ? ORDER BY digest LIMIT {_PAGE}", after
            )
            for row in rows:
                yield Held(*row)
                after = row[0]
            if len(rows) < _PAGE:
                return

    def sums(self) -> tuple[int, int]:
        """Bytes on disk and number of all blobs. Raises OSError."""
        ((size, count),) = self._rows("SELECT bytes, objects FROM sums")
        return size, count

    def oldest(self) -> float | None:
        """When the blob that would go first was last used, None where there is none. Raises OSError."""
        rows = self._rows("SELECT used FROM objects ORDER BY rank, digest LIMIT 1")
        return float(rows[0][0]) if rows else None

    def name(self, repository: str, reference: str, digest: str) -> None:
        """Somebody asked for this image and got this manifest. Raises OSError."""
        with _as_os_error(), self._changing() as db:
            db.execute(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", (repository, reference, digest, self._clock())
            )

    def images(self, repository: str = "") -> list[Named]:
        """The images of a repository, or of all. Raises OSError."""
        where, args = (" WHERE repository = ?", (repository,)) if repository else ("", ())
        return [Named(*row) for row in self._rows(f"SELECT * FROM images{where} ORDER BY 1, 2", *args)]

    def unname(self, repository: str, reference: str) -> None:
        """Forget an image's name. Raises OSError."""
        with _as_os_error(), self._changing() as db:
            db.execute("DELETE FROM images WHERE repository = ? AND reference = ?", (repository, reference))

    def _rows(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        with _as_os_error(), self._reading:
            return self._reader.execute(query, args).fetchall()

    def close(self) -> None:
        """Write down what was touched, close. Raises nothing: a full disk costs the last uses."""
        with contextlib.suppress(OSError):
            self.flush()
        self._open.close()


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        # Not mapped: two connections with 64 MiB each were 128 MiB of a worker after a walk through a million rows.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: executescript would end the transaction we are in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """To those who keep house a database that cannot be written is a disk that cannot be written."""
    try:
        yield
    except sqlite3.Error as error:
        raise OSError(f"the catalogue cannot be used: {error}") from error


def prepare(folder: str) -> tuple[bool, str]:
    """Create or check the catalogue once, before any worker opens it. Blocks.

    Returns whether it is new, so that the files have to be counted, and a sentence for the log, empty when all is
    well. Raises OSError.
    """
    new = not os.path.exists(os.path.join(folder, "catalogue.db"))
    try:
        _probe(folder)
    except sqlite3.Error as error:
        aside = f"{folder}.damaged-{int(time.time())}"
        os.rename(folder, aside)
        _probe(folder)
        return True, f"the catalogue could not be read ({error}): set aside as {aside}, files will be counted again"
    return new, ""


def _probe(folder: str) -> None:
    catalogue = Catalogue(folder, lambda used, size, uses: used)
    try:
        catalogue.sums()
        next(catalogue.lowest_first(), None)
    except OSError as error:
        raise sqlite3.DatabaseError(str(error)) from error
    finally:
        catalogue.close()
