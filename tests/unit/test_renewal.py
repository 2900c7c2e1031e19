"""Values an upstream may change: fresh, asked, held, stale, gone; one asker for many callers."""

import asyncio
import hashlib
import math
import os

import pytest

from proxy import policy
from proxy.errors import BlobUnknown, Denied, LoopDetected, ManifestUnknown, NameUnknown, Unavailable
from proxy.fill.outcomes import Outcomes
from proxy.fill.turn import Turns
from proxy.registry.renewal import Kept, Renewals
from proxy.store.lock import hold_named
from tests.unit.builders import ask, upstream

KEY = "t:registry.k8s.io/pause:3.9"


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Shelf(dict):
    """Kept values in memory."""

    def kept(self, key):
        return self.get(key)

    async def keep(self, key, kept):
        if kept is None:
            self.pop(key, None)
        else:
            self[key] = kept


class Rows(dict):
    """As much of an index as outcomes need."""

    async def note(self, rows, lifetime=None):
        self.update(rows)
        return True


class Asked:
    """An upstream: what it is told is known, and what it answers."""

    def __init__(self, *answers, slow=0.0):
        self.answers = list(answers)
        self.known = []
        self.slow = slow

    async def __call__(self, known):
        self.known.append(known)
        answer = self.answers.pop(0)
        if self.slow:
            await asyncio.sleep(self.slow)
        if isinstance(answer, Exception):
            raise answer
        return answer, answer == known


@pytest.fixture
def turns(tmp_path):
    return Turns(str(tmp_path / "turns"))


class World:
    """Renewals of one upstream, and all that they touch."""

    def __init__(self, turns, board, **settings):
        self.clock, self.shelf, self.rows, self.board, self.turns = Clock(), Shelf(), Rows(), board, turns
        self.outcomes = Outcomes(self.rows, self.clock)
        self.settings = upstream(**settings)
        self.renewals = Renewals(self.settings, self.shelf, turns, self.outcomes, board, self.clock)

    def know(self, value, checked_at, failed_at=0.0):
        self.shelf[KEY] = Kept(value, checked_at, failed_at)

    async def current(self, asked, arrived=None):
        arrived = self.clock.now if arrived is None else arrived
        answer = await self.renewals.current(KEY, ask(arrived=arrived), asked)
        return answer.value, answer.result

    def word(self):
        return self.board.word(self.board.slot(KEY))


@pytest.fixture
def world(turns, board):
    return lambda **settings: World(turns, board, **settings)


async def test_unknown_is_asked_and_kept(world):
    w = world()
    asked = Asked("a")
    before = w.word()
    assert await w.current(asked) == ("a", "miss")
    assert asked.known == [None]
    assert w.shelf[KEY] == Kept("a", 1000.0)
    assert w.word() != before, "every worker has to look again"
    assert await w.current(asked) == ("a", "hit")


async def test_fresh_is_not_asked(world):
    w = world()
    w.know("a", 901)
    assert await w.current(Asked()) == ("a", "hit")


async def test_expired_is_confirmed(world):
    w = world()
    w.know("a", 900)
    asked = Asked("a")
    assert await w.current(asked) == ("a", "revalidated")
    assert asked.known == ["a"]
    assert w.shelf[KEY] == Kept("a", 1000.0)


async def test_expired_has_changed(world):
    w = world()
    w.know("a", 900)
    before = w.word()
    assert await w.current(Asked("b")) == ("b", "miss")
    assert w.shelf[KEY] == Kept("b", 1000.0)
    assert w.word() != before


@pytest.mark.parametrize("error", [Unavailable, LoopDetected, Denied, ManifestUnknown, NameUnknown, BlobUnknown])
async def test_a_failure_is_answered_stale_then_held_then_asked_again(world, error):
    w = world()
    w.know("a", 900)
    answer = await w.renewals.current(KEY, ask(), Asked(error("no")))
    assert (answer.value, answer.result) == ("a", "stale")
    assert answer.warning.startswith("299 - ")
    assert w.shelf[KEY] == Kept("a", 900, 1000.0)
    w.clock.now += policy.STALE_AT_ONCE - 0.1
    assert await w.current(Asked()) == ("a", "stale")
    w.clock.now += 0.2
    asked = Asked("b")
    assert await w.current(asked) == ("b", "miss")
    assert w.shelf[KEY] == Kept("b", w.clock.now)


@pytest.mark.parametrize("error", [Denied, ManifestUnknown, NameUnknown])
async def test_gone_is_obeyed_where_that_is_said(world, error):
    w = world(on_gone="obey")
    w.know("a", 900)
    before = w.word()
    with pytest.raises(error):
        await w.current(Asked(error("gone")))
    assert KEY not in w.shelf
    assert w.word() != before
    w.clock.now += 1
    with pytest.raises(error):  # for everybody who asks the same now
        await w.current(Asked())
    w.clock.now += policy.REFUSAL_MEMORY
    assert await w.current(Asked("b")) == ("b", "miss")


async def test_obey_does_not_mean_that_a_failure_is_obeyed(world):
    w = world(on_gone="obey")
    w.know("a", 900)
    assert await w.current(Asked(Unavailable("down"))) == ("a", "stale")


async def test_stale_has_an_end_where_somebody_set_one(world):
    w = world(stale_if_error=50.0)
    w.know("a", 851)
    assert await w.current(Asked(Unavailable("down"))) == ("a", "stale")
    w.clock.now += 2
    with pytest.raises(Unavailable):
        await w.current(Asked(Unavailable("down")))
    assert w.shelf[KEY].value == "a", "what is too old to be answered may still be confirmed"
    w.clock.now += policy.REFUSAL_MEMORY + 1
    assert await w.current(Asked("a")) == ("a", "revalidated")


async def test_forever_outlasts_years(world):
    w = world(stale_if_error=math.inf)
    w.know("a", 1000)
    w.clock.now += 10 * 365 * 86400
    assert await w.current(Asked(Unavailable("down"))) == ("a", "stale")


async def test_a_clock_that_was_set_back_asks(world):
    w = world()
    w.know("a", 5000)
    assert await w.current(Asked("a")) == ("a", "revalidated")


async def test_a_refusal_of_something_unknown_is_remembered_for_a_moment(world):
    w = world()
    with pytest.raises(ManifestUnknown):
        await w.current(Asked(ManifestUnknown("no")))
    w.clock.now += 1
    with pytest.raises(ManifestUnknown, match="no"):
        await w.current(Asked())
    w.clock.now += policy.REFUSAL_MEMORY
    assert await w.current(Asked("a")) == ("a", "miss")


async def test_many_callers_are_one_question(world):
    w = world()
    asked = Asked("a", slow=0.05)
    answers = await asyncio.gather(*(w.current(asked) for _ in range(50)))
    assert len(asked.known) == 1
    assert sorted(result for _, result in answers) == ["coalesced"] * 49 + ["miss"]
    assert {value for value, _ in answers} == {"a"}


async def test_many_callers_of_something_refused_are_one_question(world):
    w = world()
    asked = Asked(Unavailable("down"), slow=0.05)
    answers = await asyncio.gather(*(w.current(asked) for _ in range(20)), return_exceptions=True)
    assert len(asked.known) == 1
    assert all(isinstance(answer, Unavailable) for answer in answers)


async def test_another_process_that_asked_meanwhile_spares_the_question(world, tmp_path):
    w = world()
    held = hold_named(_turn(tmp_path))
    waiting = asyncio.create_task(w.current(Asked()))
    await asyncio.sleep(0.03)
    assert not waiting.done()
    w.know("theirs", 1000)
    held.release()
    assert await waiting == ("theirs", "coalesced")


def _turn(tmp_path):
    """The file another process holds while it asks."""
    return os.path.join(tmp_path, "turns", hashlib.sha256(KEY.encode()).hexdigest()[:32])


async def test_a_slow_upstream_is_answered_stale_in_time_and_asked_to_its_end(world, monkeypatch):
    monkeypatch.setattr(policy, "REVALIDATION_DEADLINE", 0.05)
    w = world()
    w.know("a", 900)
    asked = Asked("b", slow=0.2)
    assert await w.current(asked) == ("a", "stale")
    assert await w.current(Asked()) == ("a", "stale"), "held: nobody waits again"
    await asyncio.sleep(0.3)
    assert w.shelf[KEY] == Kept("b", 1000.0)
    assert await w.current(Asked()) == ("b", "hit")


async def test_a_slow_upstream_with_nothing_known_is_unavailable(world):
    w = world(first_byte_deadline=0.05)
    asked = Asked("b", slow=0.15)
    with pytest.raises(Unavailable) as refused:
        await w.current(asked)
    assert refused.value.retry_after
    await asyncio.sleep(0.25)
    assert await w.current(Asked()) == ("b", "hit")


async def test_what_another_worker_found_out_is_not_overwritten_by_who_gave_up_waiting(world, tmp_path, monkeypatch):
    monkeypatch.setattr(policy, "REVALIDATION_DEADLINE", 0.05)
    w = world()
    w.know("old", 900)
    held = hold_named(_turn(tmp_path))
    waiting = asyncio.create_task(w.current(Asked()))
    await asyncio.sleep(0.02)
    w.know("new", 1000)  # the other worker commits, and has not let go yet
    await waiting
    held.release()
    assert w.shelf[KEY].value == "new"
    await asyncio.sleep(0.05)


async def test_a_caller_that_leaves_does_not_end_the_question(world):
    w = world()
    asked = Asked("a", slow=0.05)
    leaving = asyncio.create_task(w.current(asked))
    await asyncio.sleep(0.01)
    leaving.cancel()
    assert await w.current(asked) == ("a", "coalesced")
    assert len(asked.known) == 1


# Turns


async def test_a_turn_that_fails_lets_go(turns):
    async def fail():
        raise Unavailable("x")

    async def well():
        return 7

    with pytest.raises(Unavailable):
        await turns.run("k", lambda: None, fail)
    assert not turns.running("k")
    assert await turns.run("k", lambda: None, well) == 7
    assert await turns.run("k", lambda: 8, fail) == 8


async def test_turns_close_what_is_under_way(turns, tmp_path):
    started = asyncio.Event()

    async def forever():
        started.set()
        await asyncio.sleep(100)

    waiting = asyncio.create_task(turns.run("k", lambda: None, forever))
    await started.wait()
    await turns.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert os.listdir(tmp_path / "turns") == []
