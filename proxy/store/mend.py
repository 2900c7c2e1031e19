"""A database that is of no use is set aside and begun anew: at a start, and under workers that have it open.

Nothing in the cache's databases is worth an outage: names are asked for again, files are counted again. What must not
live here: what stands in them. A full disk, a read-only one or another writer is no damage, and changes nothing.

Every process remembers which file it has open. Whoever meets damage takes the lock and looks whether the file at the
path is still that one: if so it renames the folder away and opens a new one; if not, somebody else has done it already
and it only opens what is there. Those who meet no damage notice within seconds, by looking; what they write until then
is lost, which costs a question upstream. A few of the folders set aside are kept for whoever wants to know.
"""

import contextlib
import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator

from proxy.store.lock import briefly

_PAUSE = 10.0
"""Seconds between two renewals by one process: on a disk that spoils everything, trying without end helps nobody."""
_KEPT = 3
_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # our statements are right, so a table is missing
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_NOTADB,
    }
)
_DAMAGE_EXTENDED = frozenset(
    {
        sqlite3.SQLITE_IOERR_READ,
        sqlite3.SQLITE_IOERR_SHORT_READ,
        sqlite3.SQLITE_IOERR_CORRUPTFS,
        sqlite3.SQLITE_IOERR_DATA,
    }
)


class NewerVersion(sqlite3.DatabaseError):
    """A later release wrote this database."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the database itself is at fault, and not a full disk or another writer."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF in _DAMAGE or code in _DAMAGE_EXTENDED)


def set_aside(folder: str) -> str:
    """Rename a folder out of the way; where it is now. Only the last few are kept. Raises OSError."""
    aside = f"{folder}.damaged-{int(time.time())}"
    while os.path.exists(aside):
        aside += "x"
    os.rename(folder, aside)
    parent, name = os.path.split(folder)
    older = sorted(entry for entry in os.listdir(parent) if re.fullmatch(rf"{re.escape(name)}\.damaged-\d+x*", entry))
    for entry in older[:-_KEPT]:
        shutil.rmtree(os.path.join(parent, entry), ignore_errors=True)
    return aside


class Place:
    """Where a database lies, and which file of it this process has open."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self._path = os.path.join(folder, name)
        self._opened = self._there()
        self._quiet_until = 0.0

    def _there(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError):
            found = os.stat(self._path)
            return found.st_dev, found.st_ino
        return None

    def moved(self) -> bool:
        """Whether the database at the path is another one than what is open here."""
        return self._there() != self._opened

    @contextlib.contextmanager
    def renewing(self) -> Iterator[str]:
        """Held by whoever opens the database anew: yields where the damaged one is now, empty where somebody else has
        put it there. Raises OSError, also when the last time was a moment ago."""
        if time.monotonic() < self._quiet_until:
            raise OSError(f"{self._path} was damaged again right after it had been made")
        self._quiet_until = time.monotonic() + _PAUSE
        with briefly(f"{self.folder}.lock"):
            aside = "" if self.moved() or self._opened is None else set_aside(self.folder)
            yield aside
            self._opened = self._there()
