"""Eviction's decisions: the marks as a table, what is taken as properties."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.care.plan import (
    JUST_USED,
    SLACK_LIMIT,
    Limits,
    Need,
    Resident,
    Space,
    just_used,
    rank,
    slack,
    to_free,
    victims,
)

NOW = 1_000_000.0
PLENTY = 1 << 50
LIMITS = Limits(max_size=1000, min_free=200)  # low marks: 950 cached, 210 free
SIZES = st.integers(0, 3000)


@pytest.mark.parametrize(
    ("space", "coming", "need"),
    [
        (Space(0, 0, 5000), 0, Need(0, "max_size")),
        (Space(1000, 0, 5000), 0, Need(0, "max_size")),  # at the mark is not beyond it
        (Space(1001, 0, 5000), 0, Need(51, "max_size")),
        (Space(900, 0, 5000), 100, Need(0, "max_size")),
        (Space(900, 0, 5000), 101, Need(51, "max_size")),  # made before it is written
        (Space(900, 0, 5000, growing=60), 41, Need(51, "max_size")),
        (Space(960, 0, 5000), 0, Need(0, "max_size")),  # between the marks: a pass ended, none begins
        (Space(500, 0, 200), 0, Need(0, "max_size")),
        (Space(500, 0, 199), 0, Need(11, "min_free")),
        (Space(500, 0, 250), 51, Need(11, "min_free")),
        (Space(500, 0, 205, growing=100), 0, Need(0, "max_size")),  # what has grown is gone from `free` already
        (Space(1001, 0, 199), 0, Need(51, "min_free")),  # both: min_free's reason, the larger amount
        (Space(1001, 0, 100), 0, Need(110, "min_free")),
        (Space(1500, 1200, 5000), 0, Need(300, "max_size", missing=200)),  # pins above max_size: all else goes
        (Space(1010, 1000, 5000), 0, Need(10, "max_size")),  # short of the low mark only: nothing is missing
        (Space(1000, 1000, 5000), 40, Need(0, "max_size", missing=40)),
        (Space(50, 0, 100), 0, Need(50, "min_free", missing=50)),  # others fill the disk
        (Space(0, 0, 5000), 1001, Need(0, "max_size", missing=1)),  # larger than the cache
        (Space(10, 20, 100), 0, Need(0, "min_free", missing=100)),  # rows counted at different moments
    ],
)
def test_what_has_to_go(space, coming, need):
    assert to_free(space, LIMITS, coming) == need


def test_no_limit_on_free_space_asks_for_none():
    assert to_free(Space(10, 0, 0), Limits(1000, 0)) == Need(0, "max_size")


def test_a_large_cache_is_not_emptied_by_a_twentieth():
    assert slack(50 << 30) == (50 << 30) // 20
    assert slack(10 << 40) == SLACK_LIMIT


@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.integers(0, 2000), st.integers(0, 2000))
def test_after_a_pass_what_is_coming_fits_or_what_is_missing_is_said(cached, pinned, free, grown, coming, most, least):
    limits, pinned = Limits(most, least), min(pinned, cached)
    need = to_free(Space(cached, pinned, free, grown), limits, coming)
    after = Space(cached - need.size, pinned, free + need.size, grown)
    assert need.size <= cached - pinned
    assert to_free(after, limits, coming) == Need(0, to_free(after, limits, coming).reason, need.missing)
    lack = max(after.cached + grown + coming - most, least + coming - after.free, 0)
    assert lack == need.missing
    assert not need.missing or after.cached == pinned


@given(SIZES, SIZES, st.integers(1, 2000), st.integers(0, 2000))
def test_a_pass_stops_at_the_low_mark(cached, free, most, least):
    need = to_free(Space(cached, 0, free), Limits(most, least))
    if need.size:
        low = cached - need.size <= max(most - slack(most), 0)
        roomy = free + need.size >= least + slack(least)
        assert need.size == cached or low or roomy
        assert cached - need.size + 1 > most - slack(most) or free + need.size - 1 < least + slack(least)


RESIDENTS = st.lists(
    st.builds(
        Resident,
        digest=st.uuids().map(str),
        size=st.integers(0, 50),
        used=st.floats(NOW - 200, NOW + 100),
    ),
    max_size=30,
    unique_by=lambda each: each.digest,
).map(lambda rows: sorted(rows, key=lambda each: rank(each.used, each.size, 1)))


@given(RESIDENTS, st.integers(-5, 400), st.sets(st.integers(0, 29)))
def test_victims(rows, need, places):
    pins = {rows[place].digest for place in places if place < len(rows)}
    taken = list(victims(rows, need, NOW, pins.__contains__))
    free = [each for each in rows if each.digest not in pins and NOW - each.used >= JUST_USED]
    assert taken == free[: len(taken)], "the lowest first, none left out, never what is kept or just used"
    assert sum(each.size for each in taken[:-1]) < max(need, 1), "not more than is needed and one object"
    assert sum(each.size for each in taken) >= need or taken == free, "enough, or all there is"
    assert need > 0 or not taken


@given(RESIDENTS, st.integers(1, 400))
def test_a_second_pass_takes_nothing(rows, most):
    def taken():
        need = to_free(Space(sum(each.size for each in rows), 0, PLENTY), Limits(most, 0))
        return list(victims(rows, need.size, NOW + 1000, lambda _: False))

    gone = taken()
    rows = [each for each in rows if each not in gone]
    assert taken() == []
    assert sum(each.size for each in rows) <= most


def test_rows_are_read_as_they_are_needed():
    asked = []

    def endless():
        for number in count():
            asked.append(number)
            yield Resident(str(number), 10, 0.0)

    assert [each.digest for each in victims(endless(), 30, NOW, lambda digest: digest == "1")] == ["0", "2", "3"]
    assert asked == [0, 1, 2, 3]
    assert list(victims(endless(), 0, NOW, lambda _: False)) == []
    assert len(asked) == 4


def test_who_keeps_is_asked_when_its_turn_comes():
    pins: set[str] = set()
    chosen = victims([Resident(name, 10, 0.0) for name in "abc"], 20, NOW, pins.__contains__)
    assert next(chosen).digest == "a"
    pins.add("b")
    assert next(chosen).digest == "c"


@pytest.mark.parametrize(
    ("used", "spared"),
    [(NOW, True), (NOW - 59.9, True), (NOW - 60, False), (0.0, False), (NOW + 1, True), (NOW + 1e9, True)],
)
def test_what_was_just_used_stays_and_so_does_what_a_clock_from_the_future_wrote(used, spared):
    assert just_used(used, NOW) is spared
    assert bool(list(victims([Resident("a", 10, used)], 5, NOW, lambda _: False))) is not spared


@given(st.floats(0, 2e9), st.floats(0, 2e9), st.integers(0, PLENTY), st.integers(1, 1000))
def test_recency_alone_decides(one, other, size, uses):
    assert (rank(one, size, uses) < rank(other, 1, 1)) == (one < other)
