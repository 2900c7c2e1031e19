"""The books of what is cached: order, sums, uses, and a database that is damaged, newer, or shared by processes."""

import os
import random
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.care import plan
from proxy.store import catalogue as module
from proxy.store.catalogue import Catalogue, Held, Named
from tests.unit.builders import run


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def books(tmp_path, clock):
    made = Catalogue(str(tmp_path / "books"), plan.rank, clock)
    yield made
    made.close()


def digests(rows):
    return [each.digest for each in rows]


def test_the_least_lately_used_comes_first(books, clock):
    for name in "abc":
        clock.now += 1
        books.add(name, 10)
    assert digests(books.lowest_first()) == ["a", "b", "c"]
    clock.now += 1
    books.touch("a")
    assert digests(books.lowest_first()) == ["a", "b", "c"], "uses are collected"
    books.flush()
    assert digests(books.lowest_first()) == ["b", "c", "a"]
    assert books.get("a") == Held("a", 10, 1004.0)
    assert books.oldest() == 1002.0


def test_pages_leave_nothing_out_and_repeat_nothing(books, clock):
    names = [f"{number:05d}" for number in range(1000)]
    random.Random(1).shuffle(names)
    for name in names:
        clock.now += random.Random(name).choice([0, 0, 1])
        books.add(name, 1)
    assert sorted(digests(books.lowest_first())) == sorted(names)
    assert digests(books.all()) == sorted(names)
    assert digests(books.all(after="00500")) == sorted(names)[501:]
    uses = [each.used for each in books.lowest_first()]
    assert uses == sorted(uses)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3), st.integers(0, 10**12)), max_size=40))
def test_the_sums_are_those_of_the_rows(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("sums")
    clock, rows = Clock(), {}
    books = Catalogue(str(folder), plan.rank, clock)
    for name, what, size in steps:
        clock.now += 1
        if what == 0:
            books.add(name, size)
            rows[name] = size
        elif what == 1:
            books.remove([Held(name, 0, clock.now)])
            rows.pop(name, None)
        elif what == 2:
            books.take_in([Held(name, size, 1.0)])
            rows.setdefault(name, size)
        else:
            books.touch(name)
            books.flush()
        assert books.sums() == (sum(rows.values()), len(rows))
    books.close()


def test_what_came_back_keeps_its_row(books, clock):
    """An evictor removes the file, a new one takes its place with a new row, then the evictor removes the row."""
    books.add("a", 10)
    seen = books.get("a")
    clock.now += 1
    books.add("a", 20)
    books.remove([seen])
    assert books.get("a") == Held("a", 20, 1001.0)
    books.remove([books.get("a")])
    assert books.get("a") is None


def test_files_found_later_take_no_row_over(books, clock):
    books.add("a", 10)
    books.take_in([Held("a", 99, 5.0), Held("b", 7, 6.0)])
    assert [books.get("a"), books.get("b")] == [Held("a", 10, 1000.0), Held("b", 7, 6.0)]


def test_a_use_of_what_is_not_here_makes_no_row(books):
    books.touch("a")
    books.flush()
    assert books.get("a") is None
    assert books.sums() == (0, 0)


def test_times_of_a_wrong_clock_are_set_back(books, clock):
    clock.now = 9_000_000_000.0
    books.add("a", 10)
    clock.now = 1000.0
    books.add("b", 10)
    books.set_back(2000.0)
    assert [books.get("a").used, books.get("b").used] == [2000.0, 1000.0]
    assert digests(books.lowest_first()) == ["b", "a"]


def test_uses_are_counted_for_the_policy(tmp_path, clock):
    books = Catalogue(str(tmp_path), lambda used, size, uses: -uses, clock)
    for name in "ab":
        books.add(name, 1)
    for name in "aab":
        books.touch(name)
    books.flush()
    assert digests(books.lowest_first()) == ["a", "b"]
    books.close()


def test_images_by_name(books, clock):
    books.name("registry.k8s.io/pause", "3.9", "sha256:1")
    clock.now += 1
    books.name("registry.k8s.io/pause", "3.9", "sha256:2")
    books.name("registry.k8s.io/etcd", "3.5", "sha256:3")
    pause = Named("registry.k8s.io/pause", "3.9", "sha256:2", 1001.0)
    assert books.images() == [Named("registry.k8s.io/etcd", "3.5", "sha256:3", 1001.0), pause]
    assert books.images("registry.k8s.io/pause") == [pause]
    books.unname("registry.k8s.io/pause", "3.9")
    assert books.images("registry.k8s.io/pause") == []


def test_processes_share_one(tmp_path, books):
    code = (
        "import sys\nfrom proxy.store.catalogue import Catalogue\n"
        "books = Catalogue(sys.argv[1], lambda used, size, uses: used)\n"
        "for n in range(300):\n    books.add(f'{sys.argv[2]}{n}', 10)\nbooks.touch('a0')\nbooks.close()"
    )
    for name in "ab":
        run(code, tmp_path / "books", name)
    assert books.sums() == (6000, 600)


def test_a_reader_does_not_wait_for_a_writer(tmp_path, books):
    books.add("a", 10)
    other = sqlite3.connect(tmp_path / "books" / "catalogue.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM objects")
        assert books.sums() == (10, 1)
        assert books.get("a") is not None
        other.execute("ROLLBACK")
    finally:
        other.close()


def test_a_failed_change_leaves_nothing_half_done(books):
    with pytest.raises(OSError, match="the catalogue cannot be used"):
        books.take_in([Held("a", 1, 1.0), Held("b", object(), 1.0)])
    assert books.sums() == (0, 0)
    books.add("c", 1)
    assert books.sums() == (1, 1)


# The database itself


def test_a_new_one_says_so_once(tmp_path):
    folder = str(tmp_path / "new")
    assert module.prepare(folder) == (True, "")
    assert module.prepare(folder) == (False, "")


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 100, bytes(8192)])
def test_a_damaged_one_is_set_aside(tmp_path, damage):
    folder = str(tmp_path / "books")
    module.prepare(folder)
    path = os.path.join(folder, "catalogue.db")
    with open(path, "wb") as file:
        file.write(damage)
    new, sentence = module.prepare(folder)
    if damage:
        assert new
        assert "could not be read" in sentence
        assert [name for name in os.listdir(tmp_path) if name.startswith("books.damaged-")]
    books = Catalogue(folder, plan.rank)
    books.add("a", 1)
    assert books.sums() == (1, 1)
    books.close()


def test_a_later_versions_is_set_aside(tmp_path):
    folder = str(tmp_path / "books")
    module.prepare(folder)
    later = sqlite3.connect(os.path.join(folder, "catalogue.db"))
    later.execute(f"PRAGMA user_version = {module.VERSION + 1}")
    later.close()
    new, sentence = module.prepare(folder)
    assert new
    assert f"version {module.VERSION + 1}, and this reads {module.VERSION}" in sentence
    assert module.prepare(folder) == (False, "")
