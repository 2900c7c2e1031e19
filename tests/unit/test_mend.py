"""What counts as damage, and what happens to a damaged catalogue in use."""

import os
import sqlite3

import pytest

from proxy.care import plan
from proxy.store.catalogue import Catalogue, usable
from proxy.store.mend import Place, is_damage, set_aside


def error(code):
    made = sqlite3.OperationalError("of this code")
    made.sqlite_errorcode = code
    return made


@pytest.mark.parametrize(
    ("code", "damage"),
    [
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_CORRUPT_INDEX, True),
        (sqlite3.SQLITE_NOTADB, True),
        (sqlite3.SQLITE_ERROR, True),
        (sqlite3.SQLITE_IOERR_READ, True),
        (sqlite3.SQLITE_IOERR_SHORT_READ, True),
        (sqlite3.SQLITE_IOERR_WRITE, False),
        (sqlite3.SQLITE_IOERR_FSYNC, False),
        (sqlite3.SQLITE_FULL, False),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_READONLY, False),
        (sqlite3.SQLITE_CANTOPEN, False),
    ],
)
def test_what_is_damage(code, damage):
    assert is_damage(error(code)) == damage


def test_an_error_of_nobodys_is_none():
    assert not is_damage(sqlite3.ProgrammingError("no code"))


def spoil(folder):
    path = folder / "catalogue.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    with open(path, "r+b") as file:
        file.write(os.urandom(path.stat().st_size))


def test_a_catalogue_damaged_in_use_fails_once_and_is_begun_anew(tmp_path):
    folder, told = tmp_path / "books", []
    first = Catalogue(str(folder), plan.rank, renewed=lambda: told.append("first"))
    second = Catalogue(str(folder), plan.rank, renewed=lambda: told.append("second"))
    for number in range(300):
        first.add(f"sha256:{number:064x}", 512)
    spoil(folder)
    with pytest.raises(OSError, match="the catalogue cannot be used"):
        for number in range(300):
            first.get(f"sha256:{number:064x}")
            first.add(f"sha256:{number:064x}", 512)
    first.add("sha256:new", 512)
    assert first.sums() == (512, 1)
    second.flush()
    assert second.sums() == (512, 1)
    assert told == ["first"]
    assert sum(name.startswith("books.damaged-") for name in os.listdir(tmp_path)) == 1
    first.close()
    second.close()


def test_a_worker_finds_the_catalogue_damaged_after_the_start(tmp_path):
    folder, told = tmp_path / "books", []
    Catalogue(str(folder), plan.rank).close()
    (folder / "catalogue.db").write_bytes(b"no database" * 1000)
    made = usable(str(folder), plan.rank, lambda: told.append("new"))
    assert made.sums() == (0, 0)
    assert told == ["new"]
    made.close()


def test_only_one_of_several_sets_aside(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "db").write_text("bad")
    places = [Place(str(tmp_path / "x"), "db") for _ in range(3)]
    aside = []
    for place in places:
        with place.renewing() as moved:
            aside.append(moved)
            (tmp_path / "x").mkdir(exist_ok=True)
            (tmp_path / "x" / "db").write_text("good")
    assert [bool(each) for each in aside] == [True, False, False]
    assert not any(place.moved() for place in places)
    with pytest.raises(OSError, match="damaged again"), places[0].renewing():
        pass


def test_two_set_aside_in_one_second(tmp_path):
    made = set()
    for _ in range(3):
        (tmp_path / "x").mkdir()
        made.add(set_aside(str(tmp_path / "x")))
    assert len(made) == 3
