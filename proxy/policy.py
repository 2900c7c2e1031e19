"""Pure decisions: facts and the time in, a decision out. No I/O, no clock, no settings read from anywhere.

Times are wall-clock seconds, because the facts are rows that outlive the process and are read by other workers.
"""

import random
import re
from dataclasses import dataclass
from enum import Enum, auto

_VERSION = re.compile(r"v?[0-9]+\.[0-9]+(?:\.[0-9]+)*(?:[-_+.][0-9A-Za-z.+_-]+)?\Z")

REFUSAL_MEMORY = 2.0
"""Seconds an upstream's "no" answers for everybody who asks the same: 50 nodes that start a pull together arrive over
a second or so, and must not become 50 questions."""

STALE_AT_ONCE = 10.0
"""Seconds during which a tag is answered from what is known, after one attempt to revalidate it has failed."""

REVALIDATION_DEADLINE = 5.0
"""Seconds a client waits for the upstream's word on a tag we have: a node's HEAD may wait 30, and much follows it."""

BACKOFF = (0.1, 0.4, 1.0)
"""Seconds before the next attempt, by attempts in a row that brought no byte; then it is given up."""

BYPASS_LIMIT = 1 << 20
BYPASS_DISTANCE = 8 << 20
"""A closed range of at most this many bytes, starting this far beyond what is here, gets a request of its own."""

FAILURES_TO_OPEN = 8
"""Requests in a row without an answer after which an upstream is left alone: two fills that were given up."""

CIRCUIT_WAITS = (2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds it is left alone, by failures beyond that; never longer, because nodes wait for the day it is back."""

PROBE = 5.0
"""Seconds until the next request may try an upstream that was left alone, while the first one has no answer yet."""

LONGEST_WAIT = 5
"""Seconds of a Retry-After that a running fill waits; whoever is sent away for longer is told so at once."""

FULL_MEMORY = 5.0
"""Seconds after a write that failed in which nothing is tried to be kept: one request each, passed through."""

LAST_ATTEMPT = 60.0
"""Seconds the last attempt may take to its first byte, although the answer to the clients has ended by then: a proxy
that scans downloads first delivers the first byte after 40 s and more, and the next pull finds the blob here."""


class CircuitState(Enum):
    CLOSED = auto()  # ask
    HALF_OPEN = auto()  # one may ask, to see whether it is back
    OPEN = auto()  # do not ask


class TagState(Enum):
    FRESH = auto()  # answer from what is known
    ASK = auto()  # ask the upstream
    HOLD = auto()  # the upstream failed a moment ago: answer stale at once


@dataclass(frozen=True, slots=True)
class TagFacts:
    """What is known of a tag: when the upstream last confirmed it, when asking last failed (0: never)."""

    checked_at: float
    failed_at: float = 0.0


def tag_state(facts: TagFacts, ttl: float, stale_if_error: float, now: float) -> TagState:
    """Whether a known tag is answered, asked for, or answered stale without asking."""
    if 0 <= now - facts.checked_at < ttl:
        return TagState.FRESH
    if 0 <= now - facts.failed_at < STALE_AT_ONCE and usable_stale(facts, ttl, stale_if_error, now):
        return TagState.HOLD
    return TagState.ASK


def usable_stale(facts: TagFacts, ttl: float, stale_if_error: float, now: float) -> bool:
    """Whether a tag the upstream cannot confirm now may still be answered."""
    return now - facts.checked_at < ttl + stale_if_error


def looks_like_version(tag: str) -> bool:
    """Whether a tag reads as one release, which nobody expects to change: v1.31.2, 3.9, 1.0.0-rc1; not latest, v1."""
    return _VERSION.match(tag) is not None


def refusal_counts(refused_at: float, arrived: float) -> bool:
    """Whether an upstream's refusal answers a request that arrived at `arrived`: it is newer, or hardly older."""
    return refused_at > arrived - REFUSAL_MEMORY


def worth_asking_again(label: str) -> bool:
    """Whether another attempt right away may end differently: not when the upstream said "slower" or something that
    makes no sense to us, or is left alone, or our own rules said no. `label` is Unavailable's."""
    return label not in ("throttled", "answer", "circuit", "refused")


def next_attempt(failures: int, asked: int = 0) -> float | None:
    """Seconds to wait after `failures` attempts in a row without a byte; None: give up. `asked` is the upstream's own
    Retry-After. Jittered, so that what failed together does not come back together."""
    if failures > len(BACKOFF) or asked > LONGEST_WAIT:
        return None
    return max(BACKOFF[max(failures, 1) - 1] * random.uniform(0.5, 1.5), asked * random.uniform(1.0, 1.2))


def circuit_state(failures: int, open_until: float, now: float) -> CircuitState:
    """Whether an upstream that failed so often in a row is asked; the times are of one clock."""
    if failures < FAILURES_TO_OPEN:
        return CircuitState.CLOSED
    return CircuitState.OPEN if now < open_until else CircuitState.HALF_OPEN


def circuit_wait(failures: int) -> float:
    """Seconds an upstream is left alone after so many failures in a row, 0 while it is not. Jittered."""
    beyond = failures - FAILURES_TO_OPEN
    return 0.0 if beyond < 0 else CIRCUIT_WAITS[min(beyond, len(CIRCUIT_WAITS) - 1)] * random.uniform(0.8, 1.2)


def says_down(label: str) -> bool:
    """Whether a failed request says that the upstream itself is away: nothing came, or its server broke. A body that
    broke off had begun, and "slower" is an answer. `label` is Unavailable's."""
    return label in ("timeout", "connect", "tls", "dns", "status")


def attempt_budget(waited: float, deadline: float, sources_left: int) -> float:
    """Seconds one attempt may take to its first byte, so that every source gets its turn before the deadline."""
    if sources_left <= 1:
        return LAST_ATTEMPT
    return max((deadline - waited) / sources_left, 1.0)
