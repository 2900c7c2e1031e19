"""Locks over processes, and what all workers share in memory."""

import os

import pytest

from proxy.oci.digest import Digest
from proxy.oci.media import Descriptor, Manifest
from proxy.store.board import Pace
from proxy.store.lock import Slots, hold, hold_named, try_exclusive, try_shared
from tests.unit.builders import begin, run

HOLDING = (
    "import sys; from proxy.store.lock import *\nheld = {how}\nprint(held is not None, flush=True); sys.stdin.read()"
)


def beside(how, path):
    """A process that holds what `how` gives it until its input ends; whether it got it."""
    process = begin(HOLDING.format(how=how), path)
    return process, process.stdout.readline() == "True\n"


def end(process, kill=False):
    if kill:
        process.kill()
    process.communicate(timeout=10)


def test_two_descriptors_exclude_each_other_and_readers_share(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    fds = [os.open(path, os.O_RDWR | os.O_CLOEXEC) for _ in range(3)]
    try:
        assert try_exclusive(fds[0])
        assert not try_exclusive(fds[1])
        assert not try_shared(fds[1])
        os.close(fds.pop(0))
        assert try_shared(fds[0])
        assert try_shared(fds[1])
        assert not try_exclusive(fds[0])
    finally:
        for fd in fds:
            os.close(fd)


def test_hold_until_released(tmp_path):
    path = str(tmp_path / "lock")
    first = hold(path)
    assert hold(path) is None
    first.release()
    first.release()
    second = hold(path)
    assert second is not None
    second.release()


@pytest.mark.parametrize("kind", ["hold", "hold_named"])
@pytest.mark.parametrize("kill", [False, True])
def test_a_lock_of_another_process_ends_with_it(tmp_path, kind, kill):
    path = str(tmp_path / "lock")
    take = {"hold": hold, "hold_named": hold_named}[kind]
    process, got = beside(f"{kind}(sys.argv[1])", path)
    try:
        assert got
        assert take(path) is None
    finally:
        end(process, kill)
    held = take(path)
    assert held is not None
    held.release()


def test_a_named_lock_leaves_no_file(tmp_path):
    path = str(tmp_path / "lock")
    held = hold_named(path)
    assert os.path.exists(path)
    held.release()
    held.release()
    assert os.listdir(tmp_path) == []


def test_a_named_lock_on_a_file_nobody_can_find_is_none(tmp_path, monkeypatch):
    """A opens, B unlinks and closes, C makes it anew: A must not believe that it holds the name."""
    path = str(tmp_path / "lock")
    first = hold_named(path)
    really = os.open
    others = []

    def slow_open(name, *rest, **more):
        fd = really(name, *rest, **more)
        if name == path and first._fd >= 0:
            first.release()
            others.append(hold_named(path))
        return fd

    monkeypatch.setattr(os, "open", slow_open)
    late = hold_named(path)
    monkeypatch.undo()
    assert others[0] is not None
    assert late is None
    assert hold_named(path) is None
    others[0].release()


def test_slots_count_over_processes(tmp_path):
    process, got = beside("Slots(sys.argv[1], 'a/b', 2).take()", tmp_path)
    try:
        assert got
        slots = Slots(str(tmp_path), "a/b", 2)
        mine = slots.take()
        assert mine is not None
        assert slots.take() is None
        other = Slots(str(tmp_path), "other", 1).take()
        assert other is not None
        other.release()
        mine.release()
        again = slots.take()
        assert again is not None
        again.release()
    finally:
        end(process)


# Board


def test_a_change_is_seen_by_other_processes(tmp_path, board):
    slot = board.slot("t:a")
    before = board.word(slot)
    run("import sys; from proxy.store.board import Board; Board(sys.argv[1]).change('t:a')", tmp_path / "board")
    assert board.word(slot) != before


def test_every_change_is_another_word(board):
    slot, words = board.slot("t:a"), set()
    for _ in range(100):
        board.change("t:a")
        words.add(board.word(slot))
    assert len(words) == 100


def test_reset_forgets_everything_but_the_time(board):
    board.change("t:a")
    board.words[board.way(3)] = 7
    board.reset(12345)
    assert board.started == 12345
    assert board.word(board.slot("t:a")) == 0
    assert board.word(board.way(3)) == 0


def test_ways_share_no_word_with_each_other_or_with_a_name(board):
    words = {board.way(number) + word for number in range(512) for word in range(8)}
    assert len(words) == 512 * 8
    assert not words & {board.slot(f"t:{n}") for n in range(100_000)}
    assert board.way(512) == board.way(0), "more ways than words share, they never leave their place"


def test_a_pace_is_one_for_all_processes(tmp_path, board):
    lock = str(tmp_path / "pace")
    pace = Pace(board, 0, lock, 1000)
    assert pace.take(500) == pytest.approx(0.5)
    waited = run(
        "import sys\nfrom proxy.store.board import Board, Pace\n"
        "print(Pace(Board(sys.argv[1]), 0, sys.argv[2], 1000).take(500))",
        tmp_path / "board",
        lock,
    )
    assert 0.5 < float(waited) <= 1.0, "it starts after what the other process has taken"


def test_a_pace_saves_nothing_up(tmp_path, board):
    now = 10**9
    pace = Pace(board, 0, str(tmp_path / "pace"), 100, lambda: now)
    assert [pace.take(100) for _ in range(3)] == [1.0, 2.0, 3.0]
    now += 100 * 10**9
    assert pace.take(100) == 1.0


def _manifest(content):
    return Manifest(Descriptor(Digest.of(content), len(content)), content)
