"""Rows: text only, several processes, and nothing that a planted row could do."""

import asyncio
import os
import pickle
import sqlite3

import pytest

from proxy.store.index import Index, prepare
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
    await index.put({"short": "1"}, 0.05)
    await index.put({"long": "2"}, 100)
    assert index.get("short") == "1"
    await asyncio.sleep(0.1)
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


async def test_a_database_that_cannot_be_written_is_an_os_error(tmp_path, index):
    await index.put({"a": "1"})
    database = sqlite3.connect(tmp_path / "index" / "cache.db")
    database.execute("DROP TABLE Cache")
    database.commit()
    database.close()
    with pytest.raises(OSError, match="the index cannot be written"):
        await index.put({"b": "2"})
    assert index.get("a") is None


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
