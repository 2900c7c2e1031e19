"""What is cached, by use and by name: the books that care/ keeps house by. The only file that opens this database.

The answer path never reads it: bytes are where their file is, names are in the index. Here stand the size on disk and
the last use of every finished blob, in the order in which they would be evicted, and which images were asked for. The
sums are kept by triggers, in the transaction that changes a row, so no start and no scrape adds up a million rows.
SQLite of the standard library, because diskcache cannot be asked in an order of ours: its LRU makes every read a write.

A row stands before its file does, and goes after it, so no file is unaccounted; a row without a file is found when its
turn to be evicted comes. Uses are collected in memory and written in batches. All of it can be rebuilt from the files
(care/census.py), so a database that cannot be read, or that a later version wrote, is set aside (mend.py). Damage that
is met in use costs the call that met it: whoever is called next has a new database, and `renewed` is told.
"""

import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from proxy.store.mend import NewerVersion, Place, is_damage, set_aside
from proxy.store.sqlite import changing, connect, statements

VERSION = 1
_DATABASE = "catalogue.db"
_PAGE = 200
_log = logging.getLogger("tidegate.store")
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

    def __init__(
        self,
        folder: str,
        rank: Rank,
        clock: Callable[[], float] = time.time,
        renewed: Callable[[], None] = lambda: None,
    ) -> None:
        """`renewed` is called when a damaged database has been replaced in use. Raises sqlite3.Error."""
        self._rank = rank
        self._clock = clock
        self._renewed = renewed
        self._touched: dict[str, int] = {}
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._connect(folder)
        self._place = Place(folder, _DATABASE)

    def _connect(self, folder: str) -> None:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as stack:
            path = os.path.join(folder, _DATABASE)
            self._writer = stack.enter_context(contextlib.closing(connect(path)))
            self._create()
            # Of its own, so that whoever reads on the event loop never waits for a batch that is being written.
            self._reader = stack.enter_context(contextlib.closing(connect(path)))
            self._open = stack.pop_all()

    def _create(self) -> None:
        with changing(self._writer) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise NewerVersion(f"version {version}, and this reads {VERSION}")
            if version == 0:
                for statement in statements(_SCHEMA):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction. Raises OSError."""
        with self._mending(), self._writing, changing(self._writer) as db:
            yield db

    @contextlib.contextmanager
    def _mending(self) -> Iterator[None]:
        """To those who keep house a database that cannot be used is a disk that cannot be written. Raises OSError."""
        try:
            yield
        except sqlite3.Error as error:
            if is_damage(error):
                self._renew(str(error))
            raise OSError(f"the catalogue cannot be used: {error}") from error

    def _renew(self, reason: str) -> None:
        """Go on with a new database, or with the one somebody else has begun. Raises OSError."""
        with self._place.renewing() as aside, self._writing, self._reading:
            with contextlib.suppress(sqlite3.Error):
                self._open.close()
            try:
                self._connect(self._place.folder)
            except sqlite3.Error as error:
                raise OSError(f"the catalogue cannot be used: {error}") from error
        if aside:
            _log.error("the catalogue is damaged (%s): set aside as %s, files will be counted again", reason, aside)
            self._renewed()

    def add(self, digest: str, size: int) -> None:
        """A blob is about to be put in its place; `size` is bytes on disk. Raises OSError."""
        now = self._clock()
        row = (digest, size, now, 1, self._rank(now, size, 1))
        with self._change() as db:
            db.execute(
                "INSERT INTO objects VALUES (?, ?, ?, ?, ?) ON CONFLICT (digest) DO UPDATE"
                " SET size = excluded.size, used = excluded.used, uses = uses + 1, rank = excluded.rank",
                row,
            )

    def take_in(self, found: Iterable[Held]) -> None:
        """Files that have no row, as old as they are; rows that are there stay as they are. Raises OSError."""
        rows = [(each.digest, each.size, each.used, 1, self._rank(each.used, each.size, 1)) for each in found]
        with self._change() as db:
            db.executemany("INSERT OR IGNORE INTO objects VALUES (?, ?, ?, ?, ?)", rows)

    def touch(self, digest: str) -> None:
        """A blob was used; written with the next `flush`."""
        self._touched[digest] = self._touched.get(digest, 0) + 1

    def flush(self) -> None:
        """Write down what was touched; notice a database that somebody else has set aside. Raises OSError."""
        if self._place.moved():
            self._renew("it is gone")
        touched, self._touched, now = self._touched, {}, self._clock()
        if not touched:
            return
        with self._change() as db:
            for digest, times in list(touched.items()):
                row = db.execute("SELECT size, uses FROM objects WHERE digest = ?", (digest,)).fetchone()
                if row is not None:
                    uses = row[1] + times
                    change = (now, uses, self._rank(now, row[0], uses), digest)
                    db.execute("UPDATE objects SET used = ?, uses = ?, rank = ? WHERE digest = ?", change)

    def remove(self, gone: Iterable[Held]) -> None:
        """Their files are gone; a row that was used or written since it was read belongs to a new file and stays.

        Raises OSError."""
        with self._change() as db:
            db.executemany(
                "DELETE FROM objects WHERE digest = ? AND used <= ?", [(each.digest, each.used) for each in gone]
            )

    def set_back(self, now: float) -> None:
        """No last use lies after `now`. Raises OSError."""
        # Read outside the transaction: a million rows take 0.3 s, and nobody could write meanwhile.
        late = self._rows("SELECT digest, size, uses FROM objects WHERE used > ?", now)
        with self._change() as db:
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
        with self._change() as db:
            db.execute(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", (repository, reference, digest, self._clock())
            )

    def images(self, repository: str = "") -> list[Named]:
        """The images of a repository, or of all. Raises OSError."""
        where, args = (" WHERE repository = ?", (repository,)) if repository else ("", ())
        return [Named(*row) for row in self._rows(f"SELECT * FROM images{where} ORDER BY 1, 2", *args)]

    def unname(self, repository: str, reference: str) -> None:
        """Forget an image's name. Raises OSError."""
        with self._change() as db:
            db.execute("DELETE FROM images WHERE repository = ? AND reference = ?", (repository, reference))

    def check(self) -> None:
        """Read something. Raises sqlite3.Error when the database cannot be used."""
        for query in ("SELECT bytes, objects FROM sums", "SELECT * FROM objects ORDER BY rank, digest LIMIT 1"):
            self._reader.execute(query).fetchall()

    def _rows(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        with self._mending(), self._reading:
            return self._reader.execute(query, args).fetchall()

    def close(self) -> None:
        """Write down what was touched, close. Raises nothing: a full disk costs the last uses."""
        with contextlib.suppress(OSError):
            self.flush()
        self._open.close()


def prepare(folder: str) -> tuple[bool, str]:
    """Create or check the catalogue once, before any worker opens it. Whether it is new, so that the files have to be
    counted, and a sentence for the log, empty when all is well. Raises OSError."""
    new = not os.path.exists(os.path.join(folder, _DATABASE))
    try:
        _probe(folder)
    except sqlite3.Error as error:
        aside = set_aside(folder)
        _probe(folder)
        return True, f"the catalogue could not be read ({error}): set aside as {aside}, files will be counted again"
    return new, ""


def _probe(folder: str) -> None:
    catalogue = Catalogue(folder, lambda used, size, uses: used)
    try:
        catalogue.check()
    finally:
        catalogue.close()


def usable(folder: str, rank: Rank, renewed: Callable[[], None]) -> Catalogue:
    """The catalogue, begun anew where it was damaged after `prepare`. Raises OSError, sqlite3.Error."""
    place = Place(folder, _DATABASE)
    try:
        return Catalogue(folder, rank, renewed=renewed)
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        with place.renewing() as aside:
            _log.error("the catalogue is damaged (%s): set aside as %s, files will be counted again", error, aside)
        renewed()
        return Catalogue(folder, rank, renewed=renewed)
