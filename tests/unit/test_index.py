"""Rows: text only, several processes, and nothing that a planted row could do."""

import asyncio
import os
import pickle
import shutil
import sqlite3

import pytest

from proxy.store.index import VERSION, Index, prepare, usable
from tests.unit.builders import run


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def plant(folder, key, mode, value, filename=None, raw=1):
    """A row as somebody with write access to the folder would put it there."""
    database = sqlite3.connect(os.path.join(folder, "cache.db"))
    try:
        database.execute(
            "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, access_count, tag, size, mode,"
            " filename, value) VALUES (?, ?, 0, NULL, 0, 0, NULL, 0, ?, ?, ?)",
            (key, raw, mode, filename, value),
        )
        database.commit()
    finally:
        database.close()


async def test_put_get_and_remove(index):
    assert index.get("a") is None
    await index.put({"a": "1", "b": "\xe4\n\0 2"})
    assert (index.get("a"), index.get("b")) == ("1", "\xe4\n\0 2")
    await index.put({"a": None, "c": "3", "missing": None})
    assert (index.get("a"), index.get("c")) == (None, "3")
    assert set(index.keys()) == {"b", "c"}


async def test_the_last_of_several_puts_counts(index):
    await asyncio.gather(*(index.put({"a": str(n)}) for n in range(50)))
    assert index.get("a") == "49"


async def test_concurrent_puts_are_all_committed_when_they_return(index, tmp_path):
    other = Index(str(tmp_path / "index"))
    try:

        async def put(n):
            await asyncio.sleep(n % 7 / 1000)
            await index.put({f"k{n}": str(n)})
            assert other.get(f"k{n}") == str(n)

        await asyncio.gather(*(put(n) for n in range(200)))
        assert len(list(index.keys())) == 200
    finally:
        other.close()


async def test_a_caller_that_leaves_takes_no_row_with_it(index):
    leaving = asyncio.create_task(index.put({"a": "1"}))
    await asyncio.sleep(0)
    leaving.cancel()
    await index.put({"b": "2"})
    assert (index.get("a"), index.get("b")) == ("1", "2")


async def test_a_lifetime_ends(index):
    await index.put({"short": "1"}, 1)
    await index.put({"long": "2"}, 100)
    assert index.get("short") == "1"
    await asyncio.sleep(1.1)
    assert (index.get("short"), index.get("long")) == (None, "2")


def test_rows_are_seen_by_other_processes(tmp_path):
    folder = str(tmp_path / "index")
    code = (
        "import asyncio, sys; from proxy.store.index import Index\n"
        "index = Index(sys.argv[1]); asyncio.run(index.put({'a': 'x'})); index.close()"
    )
    run(code, folder)
    index = Index(folder)
    try:
        assert index.get("a") == "x"
    finally:
        index.close()


@pytest.mark.parametrize("mode", [0, 1, 2, 3, 4, 5, None])
@pytest.mark.parametrize("filename", [None, "row.val"])
def test_a_planted_pickle_is_a_miss_and_never_code(tmp_path, index, mode, filename):
    made = str(tmp_path / "executed")
    bomb = pickle.dumps(Bomb(made))
    (tmp_path / "index" / "row.val").write_bytes(bomb)
    plant(str(tmp_path / "index"), "a", mode, bomb, filename)
    assert index.get("a") is None
    assert not os.path.exists(made)
    pickle.loads(bomb)
    assert os.path.exists(made), "the bomb would have gone off"


def test_a_planted_key_is_never_code(tmp_path, index):
    made = str(tmp_path / "executed")
    plant(str(tmp_path / "index"), pickle.dumps(Bomb(made)), 1, "x", raw=0)
    assert index.get("a") is None
    with pytest.raises(Exception, match="not text"):
        list(index.keys())
    assert not os.path.exists(made)


@pytest.mark.parametrize("value", [b"bytes", 7, 1.5, None])
def test_a_row_that_is_not_text_is_a_miss(tmp_path, index, value):
    plant(str(tmp_path / "index"), "a", 1, value)
    assert index.get("a") is None


@pytest.mark.parametrize("value", ["new", None])
async def test_writing_over_a_planted_row_removes_no_file_it_names(tmp_path, index, value):
    """diskcache deletes the file of a row that is replaced, wherever the row says that it lies."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    plant(str(tmp_path / "index"), "a", 2, None, filename="../victim")
    await index.put({"a": value})
    assert index.get("a") == value
    assert victim.exists()


async def test_a_planted_row_can_be_written_over(tmp_path, index):
    plant(str(tmp_path / "index"), "a", 4, pickle.dumps(1))
    await index.put({"a": "new"})
    assert index.get("a") == "new"


def spoil(folder, how="garbage"):
    """Damage a database under those who have it open."""
    path = folder / "cache.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    if how == "garbage":
        with open(path, "r+b") as file:
            file.write(b"no database" * 1000)
    elif how == "overwritten":
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
        (folder / "cache.db-wal").write_bytes(b"")
    elif how == "without its table":
        database = sqlite3.connect(path)
        database.execute("DROP TABLE Cache")
        database.commit()
        database.close()
    else:
        os.rename(folder, f"{folder}-elsewhere")


@pytest.mark.parametrize("how", ["garbage", "overwritten", "without its table", "gone"])
async def test_a_database_damaged_in_use_is_set_aside_by_one_and_left_by_all(tmp_path, how, caplog):
    folder = tmp_path / "index"
    first, second = Index(str(folder)), Index(str(folder))
    watching = [asyncio.create_task(each.watch()) for each in (first, second)]
    try:
        await first.put({f"k{n}": "x" * 500 for n in range(100)})
        assert second.get("k7") == "x" * 500
        spoil(folder, how)
        async with asyncio.timeout(10):
            while not (folder / "cache.db").exists() or first.get("new") != "1" or second.get("new") != "1":
                await first.note({"new": "1"})
                assert first.get("k7") in (None, "x" * 500)
                await asyncio.sleep(0.05)
        await second.put({"newer": "2"})
        assert first.get("newer") == "2"
        aside = [name for name in os.listdir(tmp_path) if name.startswith("index.damaged-")]
        assert len(aside) == (how != "gone")
        assert caplog.text.count("the index is damaged") == (how != "gone")
    finally:
        for each in watching:
            each.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        first.close()
        second.close()


async def test_a_full_disk_is_no_damage(tmp_path, index):
    await index.put({"a": "1"})
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(index._writer, lambda: index._cache._sql("PRAGMA max_page_count = 1"))
    with pytest.raises(OSError, match="the index cannot be written"):
        await index.put({f"k{n}": "x" * 5000 for n in range(50)})
    assert index.get("a") == "1"
    assert os.listdir(tmp_path) == ["index"]


def test_what_a_later_version_wrote_is_set_aside(tmp_path):
    folder = str(tmp_path / "index")
    assert prepare(folder) == ""
    database = sqlite3.connect(os.path.join(folder, "cache.db"))
    assert database.execute("PRAGMA user_version").fetchone() == (VERSION,)
    database.execute("PRAGMA user_version = 99")
    database.close()
    assert "version 99, and this reads 1" in prepare(folder)
    assert prepare(folder) == ""
    assert sum(name.startswith("index.damaged-") for name in os.listdir(tmp_path)) == 1


def test_an_index_without_a_version_is_taken_over(tmp_path):
    folder = str(tmp_path / "index")
    index = Index(folder)
    asyncio.run(index.put({"a": "1"}))
    index.close()
    database = sqlite3.connect(os.path.join(folder, "cache.db"))
    database.execute("PRAGMA user_version = 0")
    database.close()
    assert prepare(folder) == ""
    index = Index(folder)
    assert index.get("a") == "1"
    index.close()


def test_a_worker_finds_it_damaged_after_the_start(tmp_path, caplog):
    folder = tmp_path / "index"
    prepare(str(folder))
    (folder / "cache.db").write_bytes(b"no database at all" * 100)
    index = usable(str(folder))
    asyncio.run(index.put({"a": "1"}))
    assert index.get("a") == "1"
    index.close()
    assert "the index is damaged" in caplog.text


def test_only_a_few_of_those_set_aside_are_kept(tmp_path):
    for _ in range(6):
        (tmp_path / "index").mkdir()
        (tmp_path / "index" / "cache.db").write_bytes(b"no database at all" * 100)
        prepare(str(tmp_path / "index"))
        shutil.rmtree(tmp_path / "index")
    assert len(os.listdir(tmp_path)) == 3


def test_prepare_leaves_a_good_database_alone(tmp_path):
    folder = str(tmp_path / "index")
    assert prepare(folder) == ""
    index = Index(folder)
    asyncio.run(index.put({"a": "1"}))
    index.close()
    assert prepare(folder) == ""
    index = Index(folder)
    assert index.get("a") == "1"
    index.close()
    assert os.listdir(tmp_path) == ["index"]


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_prepare_sets_a_damaged_database_aside(tmp_path, damage):
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "cache.db").write_bytes(damage)
    sentence = prepare(str(folder))
    (aside,) = (name for name in os.listdir(tmp_path) if name != "index")
    assert aside in sentence
    assert "asked for again" in sentence
    assert (tmp_path / aside / "cache.db").read_bytes() == damage
    index = Index(str(folder))
    try:
        asyncio.run(index.put({"a": "1"}))
        assert index.get("a") == "1"
    finally:
        index.close()
