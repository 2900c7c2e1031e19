"""Manifests in memory, outcomes on disk, permits over processes."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import policy
from proxy.errors import BlobUnknown, Denied, LoopDetected, ManifestUnknown, NameUnknown, Unavailable
from proxy.fill.lead import SourceRetired
from proxy.fill.outcomes import Outcomes
from proxy.fill.permits import Abandoned, Permits
from proxy.oci.digest import Digest
from proxy.oci.media import Descriptor, Manifest
from proxy.registry.memory import Memory
from proxy.store.board import Board
from tests.unit.builders import begin


def manifest(content):
    return Manifest(Descriptor(Digest.of(content), len(content), "type/x"), content)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Words:
    """As much of a board as memory needs: every name has a word of its own."""

    def __init__(self):
        self.words = {}

    def slot(self, name):
        return name

    def word(self, slot):
        return self.words.get(slot, 0)

    def change(self, name):
        self.words[name] = self.word(name) + 1


def put(memory, key, content, until=2000.0):
    memory.put(key, manifest(content), memory.word(key), until)


def test_what_is_put_is_a_hit(board):
    memory = Memory(board, Clock())
    assert memory.get("a") is None
    put(memory, "a", b"x")
    assert (memory.get("a").value, memory.get("a").result) == (manifest(b"x"), "hit")
    put(memory, "a", b"y")
    assert memory.get("a").value.content == b"y"
    assert memory.get("b") is None


def test_time_ends_an_entry(board):
    clock = Clock()
    memory = Memory(board, clock)
    put(memory, "a", b"x", until=1010.0)
    clock.now = 1009.9
    assert memory.get("a") is not None
    clock.now = 1010.0
    assert memory.get("a") is None
    clock.now = 1000.0
    assert memory.get("a") is None, "it is gone, not hidden"


def test_a_change_by_any_worker_ends_an_entry(tmp_path, board):
    memory = Memory(board, Clock())
    put(memory, "a", b"x")
    put(memory, "b", b"x")
    other = Board(str(tmp_path / "board"))
    other.change("a")
    other.close()
    assert memory.get("a") is None
    assert memory.get("b") is not None


def test_a_change_between_reading_and_putting_ends_it_at_once(board):
    memory = Memory(board, Clock())
    word = memory.word("a")
    board.change("a")
    memory.put("a", manifest(b"old"), word, 2000.0)
    assert memory.get("a") is None


def test_the_least_recently_used_goes_first():
    memory = Memory(Words(), Clock(), limit=3 * (1000 + 1024))
    for key in "abc":
        put(memory, key, bytes(1000))
    memory.get("a")
    put(memory, "d", bytes(1000))
    assert [key for key in "abcd" if memory.get(key)] == ["a", "c", "d"]


def test_what_is_larger_than_everything_is_not_kept():
    memory = Memory(Words(), Clock(), limit=5000)
    put(memory, "a", b"x")
    put(memory, "huge", bytes(6000))
    assert memory.get("huge") is None
    put(memory, "b", b"x")
    assert memory.get("b") is not None


STEP = st.tuples(st.sampled_from(["put", "get", "change", "later"]), st.sampled_from("abcdef"), st.integers(0, 2000))


@given(st.lists(STEP, max_size=60))
def test_memory_never_answers_what_a_model_would_not_and_stays_within_its_bytes(steps):
    limit, clock, words = 6000, Clock(), Words()
    memory, model = Memory(words, clock, limit), {}
    for step, key, number in steps:
        match step:
            case "put":
                put(memory, key, key.encode() * number, clock.now + 50)
                model[key] = (key.encode() * number, clock.now + 50)
            case "change":
                words.change(key)
                model.pop(key, None)
            case "later":
                clock.now += number / 50
            case "get":
                found = memory.get(key)
                if found is not None:
                    content, until = model[key]
                    assert found.value.content == content
                    assert clock.now < until
    kept = [memory.get(key) for key in "abcdef"]
    assert sum(len(answer.value.content) + 1024 for answer in kept if answer) <= limit


# Outcomes


@pytest.fixture
def clock():
    return Clock()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BlobUnknown("no blob"), BlobUnknown),
        (ManifestUnknown("no manifest"), ManifestUnknown),
        (NameUnknown("no name"), NameUnknown),
        (Denied("not you"), Denied),
        (Unavailable("throttled", retry_after=30, label="throttled"), Unavailable),
        (SourceRetired("another size"), Unavailable),
    ],
)
async def test_an_outcome_is_the_same_error_for_everybody(index, clock, error, kind):
    outcomes = Outcomes(index, clock)
    await outcomes.refuse("source@digest", error)
    found = Outcomes(index, clock).refusal("source@digest", 1000.0)
    assert type(found) is kind
    assert (found.message, found.status, found.retry_after) == (error.message, error.status, error.retry_after)


async def test_a_loop_is_nobody_elses_outcome(index, clock):
    outcomes = Outcomes(index, clock)
    await outcomes.refuse("up/app", LoopDetected("a loop"))
    assert outcomes.refusal("up/app", clock()) is None


async def test_an_outcome_that_cannot_be_written_counts_in_this_process(clock):
    class Full:
        def get(self, key):
            return None

        async def note(self, rows, lifetime=None):
            return False

    outcomes = Outcomes(Full(), clock)
    await outcomes.mismatch("sha256:1", 1)
    await outcomes.refuse("up/app", BlobUnknown("no such blob"))
    assert outcomes.mismatches("sha256:1", clock()) == 1
    assert isinstance(outcomes.refusal("up/app", clock()), BlobUnknown)
    for number in range(2000):
        await outcomes.mismatch(str(number), 1)
    assert outcomes.mismatches("sha256:1", clock()) == 0, "bounded, the oldest goes"


async def test_an_outcome_counts_for_its_key_and_its_moment(index, clock):
    outcomes = Outcomes(index, clock)
    assert outcomes.refusal("a", 1000.0) is None
    await outcomes.refuse("a", BlobUnknown("no"))
    assert outcomes.refusal("b", 1000.0) is None
    assert outcomes.refusal("a", 900.0) is not None
    assert outcomes.refusal("a", 1000.0 + policy.REFUSAL_MEMORY - 0.1) is not None
    assert outcomes.refusal("a", 1000.0 + policy.REFUSAL_MEMORY) is None
    clock.now = 1010.0
    await outcomes.refuse("a", Denied("now this"))
    assert type(outcomes.refusal("a", 1010.0)) is Denied


async def test_an_outcome_of_a_later_version_is_not_now(index, clock):
    await index.put({"r:a": json.dumps([1000.0, "SomethingNew", "text", 7])})
    found = Outcomes(index, clock).refusal("a", 1000.0)
    assert (type(found), found.retry_after) == (Unavailable, 7)


async def test_mismatches_are_counted_for_a_while(index, clock):
    outcomes = Outcomes(index, clock)
    assert outcomes.mismatches("d", 1000.0) == 0
    await outcomes.mismatch("d", 1)
    assert Outcomes(index, clock).mismatches("d", 1000.0) == 1
    assert outcomes.refusal("d", 1000.0) is None
    assert outcomes.mismatches("d", 1000.0 + policy.REFUSAL_MEMORY) == 0


# Permits


async def plenty(size):
    """A disk with room for everything."""
    return True


@pytest.fixture
def permits(tmp_path):
    return Permits(str(tmp_path / "permits"), {}, plenty)


async def test_at_most_so_many_at_a_time(permits):
    held = [await permits.take("up", 2, lambda: True) for _ in range(2)]
    waiting = asyncio.create_task(permits.take("up", 2, lambda: True))
    await asyncio.sleep(0.06)
    assert not waiting.done()
    other = await permits.take("other", 1, lambda: True)
    held.pop().release()
    held += [await asyncio.wait_for(waiting, 1), other]
    for permit in held:
        permit.release()


async def test_who_is_wanted_no_more_stops_waiting(permits):
    held = await permits.take("up", 1, lambda: True)
    wanted = [True]
    waiting = asyncio.create_task(permits.take("up", 1, lambda: wanted[0]))
    await asyncio.sleep(0.03)
    wanted[0] = False
    with pytest.raises(Abandoned):
        await asyncio.wait_for(waiting, 1)
    held.release()
    (await permits.take("up", 1, lambda: True)).release()


@pytest.mark.parametrize(("limit", "allowed"), [(16, 8), (3, 1), (1, 1)])
def test_half_of_them_may_go_on_without_clients(permits, limit, allowed):
    held = [permits.take_abandoned("up", limit) for _ in range(allowed)]
    with pytest.raises(Abandoned):
        permits.take_abandoned("up", limit)
    for permit in held:
        permit.release()
    permits.take_abandoned("up", limit).release()


async def test_a_process_that_dies_gives_its_permits_back(permits, tmp_path):
    code = (
        "import asyncio, sys; from proxy.fill.permits import Permits\n"
        "held = asyncio.run(Permits(sys.argv[1], {}, None).take('up', 1, lambda: True))\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    process = await asyncio.to_thread(begin, code, tmp_path / "permits")
    try:
        assert await asyncio.to_thread(process.stdout.readline) == "held\n"
        with pytest.raises(Abandoned):
            await permits.take("up", 1, iter([True, False]).__next__)
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)
    (await asyncio.wait_for(permits.take("up", 1, lambda: True), 1)).release()
