"""One SQLite file of our own, opened the way this program opens them. What stands in it is its user's; the index is
diskcache's and opened by it.

Not mapped into memory: a file that is cut short under a mapping kills whoever reads it.
"""

import contextlib
import sqlite3
from collections.abc import Iterator


def connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: executescript would end the transaction we are in."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


@contextlib.contextmanager
def changing(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One transaction. Raises sqlite3.Error."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled it back already
            db.execute("ROLLBACK")
        raise
