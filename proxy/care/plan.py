"""Decisions of eviction: how much must go, what goes first, what stays whatever happens. No I/O, no clock, no locks.

The facts come in as numbers and rows, and what is decided is carried out elsewhere; so the bench that replays traces
(`python -m tests.bench.replay`) runs these very functions, and a change of policy is a change of `rank`.
Sizes are bytes on disk, rounded up to whole blocks; times are wall-clock seconds, because rows outlive the process.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

JUST_USED = 60.0
"""Seconds after its last use during which nothing is taken: a client that has been told of an object may be about to
ask for it, and last uses are collected in memory for a while before the rows know of them."""

SLACK = 20
SLACK_LIMIT = 4 << 30
"""The low mark lies a 20th of the mark beyond it, at most 4 GiB: one pass then makes room for dozens of layers instead
of one pass for each. In replays that costs less than one percentage point of the bytes hit;
without the limit a cache of 10 TiB would throw half a TiB away at once."""

Reason = Literal["max_size", "min_free"]


@dataclass(frozen=True, slots=True)
class Resident:
    """One cached object: its digest, its bytes on disk, when it was last used."""

    digest: str
    size: int
    used: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What somebody set, in bytes: the most that may be cached, and what must stay free on the file system."""

    max_size: int
    min_free: int


@dataclass(frozen=True, slots=True)
class Space:
    """What is so, in bytes on disk. `cached` is everything cached, pins included; `pinned` those of them that nobody
    may take; `free` what the file system has left for us; `growing` what running fills have written already, which
    is gone from `free` but not yet in `cached`. Pushed content is in none of them but `free`."""

    cached: int
    pinned: int
    free: int
    growing: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """Evict `size` bytes on account of `reason`; even then `missing` bytes lack to what was asked for: what is coming
    does not fit, and waiting does not help. A size of 0: nothing to do, or nothing that may be taken."""

    size: int
    reason: Reason
    missing: int = 0


def rank(used: float, size: int, uses: int) -> float:
    """Who goes first: the lowest. `used` is the time of the last use, `size` bytes, `uses` how often it was used.

    LRU: only the last use counts. The replay compares it with others (tests/bench/replay/policies.py).
    """
    return used


def slack(mark: int) -> int:
    """Bytes from a high mark to its low mark."""
    return min(mark // SLACK, SLACK_LIMIT)


def to_free(space: Space, limits: Limits, coming: int = 0) -> Need:
    """What to evict so that `coming` bytes, not yet written, may be written now.

    The limits themselves are the high marks: what somebody set is not passed, so nothing happens below them and a
    pass goes on to the low marks. Pins count towards `max_size` and are never taken. When both limits are passed the
    reason is min_free, and the larger of both amounts goes.
    """
    over = space.cached + space.growing + coming - limits.max_size
    short = limits.min_free + coming - space.free
    reason: Reason = "min_free" if short > 0 else "max_size"
    evictable = max(space.cached - space.pinned, 0)
    wanted = max(_down(over, limits.max_size), _down(short, limits.min_free))
    return Need(min(wanted, evictable), reason, max(over - evictable, short - evictable, 0))


def _down(beyond: int, mark: int) -> int:
    """Bytes from where we are, `beyond` the mark, to its low mark; nothing while the mark is not passed."""
    return beyond + slack(mark) if beyond > 0 else 0


def just_used(used: float, now: float) -> bool:
    """Whether the last use is too recent to take it. One in the future counts as just now: the clock was set back, and
    how long ago it was cannot be known. Whoever keeps the rows must write such times down to `now` at start, or what
    a wrong clock has touched stays until that time comes."""
    return now - used < JUST_USED


def victims(lowest_first: Iterable[Resident], need: int, now: float, kept: Callable[[str], bool]) -> Iterator[Resident]:
    """Take from `lowest_first`, in its order, until `need` bytes are covered or it ends; nothing is collected.

    `kept` is asked by digest right before an object is handed out, and may therefore look again at pins, readers and
    last use; what it keeps, and what was just used, is passed over. What is handed out counts as gone: where that
    turns out wrong, plan again. No row is read beyond the last victim.
    """
    if need <= 0:
        return
    for each in lowest_first:
        if just_used(each.used, now) or kept(each.digest):
            continue
        yield each
        need -= each.size
        if need <= 0:
            return
