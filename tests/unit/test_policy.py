"""Decisions as tables: facts and a time in, a decision out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import policy
from proxy.policy import TagFacts, TagState, tag_state, usable_stale

TTL, STALE = 100.0, 50.0


@pytest.mark.parametrize(
    ("checked", "failed", "now", "state"),
    [
        (1000, 0, 1000, TagState.FRESH),
        (1000, 0, 1099.9, TagState.FRESH),
        (1000, 0, 1100, TagState.ASK),
        (1000, 1099, 1099.5, TagState.FRESH),  # fresh wins: a failure is only noted once it had to be asked for
        (1000, 1105, 1105, TagState.HOLD),
        (1000, 1105, 1114.9, TagState.HOLD),
        (1000, 1105, 1115, TagState.ASK),
        (1000, 1145, 1149.9, TagState.HOLD),
        (1000, 1145, 1150, TagState.ASK),  # too old to be answered stale
        (2000, 0, 1000, TagState.ASK),  # a clock that was set back confirms nothing
        (1000, 1200, 1110, TagState.ASK),
    ],
)
def test_tag_state(checked, failed, now, state):
    assert tag_state(TagFacts(checked, failed), TTL, STALE, now) is state


@pytest.mark.parametrize(
    ("age", "limit", "usable"),
    [(0, 0, True), (99, 0, True), (100, 0, False), (149, 50, True), (150, 50, False), (1e9, math.inf, True)],
)
def test_usable_stale(age, limit, usable):
    assert usable_stale(TagFacts(1000), TTL, limit, 1000 + age) is usable


@given(*[st.floats(0, 3000)] * 3)
def test_what_is_held_may_also_be_answered(checked, failed, now):
    facts = TagFacts(checked, failed)
    if tag_state(facts, TTL, STALE, now) is TagState.HOLD:
        assert usable_stale(facts, TTL, STALE, now)


def test_a_ttl_of_nothing_asks_each_time():
    assert tag_state(TagFacts(1000), 0, math.inf, 1000) is TagState.ASK


@pytest.mark.parametrize(
    ("refused", "arrived", "counts"),
    [(1000, 999, True), (1000, 1000, True), (1000, 1001.9, True), (1000, 1002, False), (1000, 2000, False)],
)
def test_a_refusal_answers_who_came_before_it_or_hardly_after(refused, arrived, counts):
    assert policy.refusal_counts(refused, arrived) is counts


def test_attempts_wait_longer_each_time_and_end():
    rows = [[policy.next_attempt(failures) for _ in range(50)] for failures in range(1, len(policy.BACKOFF) + 1)]
    for pauses, base in zip(rows, policy.BACKOFF, strict=True):
        assert all(base / 2 <= pause <= base * 1.5 for pause in pauses)
        assert len(set(pauses)) > 1
    assert policy.next_attempt(len(policy.BACKOFF) + 1) is None


@pytest.mark.parametrize(
    ("waited", "sources", "budget"),
    [(0, 1, policy.LAST_ATTEMPT), (0, 0, policy.LAST_ATTEMPT), (0, 2, 12.5), (5, 2, 10), (24.5, 2, 1), (99, 5, 1)],
)
def test_every_source_gets_its_turn_before_the_deadline(waited, sources, budget):
    assert policy.attempt_budget(waited, 25, sources) == budget
