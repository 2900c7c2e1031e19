"""The last problems clients met, so that an operator sees them without reading a log. Facts only, no I/O.

A row is a client, what it asked for, the status and the sentence; equal ones are counted. A worker keeps as many rows
as the whole machine shows, so however many clients fail at once, what is kept stays small.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from proxy.upstream.ledger import fits

LIMIT = 50
_LONG = 300
_WAITING = re.compile(r" \(asked again in \d+ s\)")


@dataclass(frozen=True, slots=True)
class Problem:
    """`client` an address, `image` what was asked for as somebody would name it; `upstream` who would have had it, ""
    where nobody could be told. A `status` below 400 is a body that was cut. Times are wall-clock seconds."""

    client: str
    image: str
    upstream: str
    status: int
    sentence: str
    count: int = 0
    first: float = 0.0
    last: float = 0.0

    @property
    def key(self) -> tuple[str, str, int, str]:
        return self.client, self.image, self.status, self.sentence


class Problems:
    """One worker's table, going on where its predecessor in the slot stopped."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, str, int, str], Problem] = {}
        self.changed = False

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take over a kept table; rows that cannot be read are passed over."""
        self._seen |= {problem.key: problem for problem in sorted(read(rows), key=lambda each: each.last)}

    def note(self, client: str, image: str, upstream: str, status: int, sentence: str) -> None:
        """A client met a problem."""
        now = self._clock()
        # How long an upstream is left alone changes by the second; the problem is the same.
        new = Problem(client, _plain(image), upstream, status, _plain(_WAITING.sub("", sentence)), first=now)
        known = self._seen.pop(new.key, new)
        self._seen[new.key] = replace(known, count=known.count + 1, last=now)
        if len(self._seen) > LIMIT:
            del self._seen[next(iter(self._seen))]
        self.changed = True

    def rows(self) -> list[dict[str, Any]]:
        """The table, to be kept."""
        self.changed = False
        return [asdict(problem) for problem in self._seen.values()]


def _plain(text: str) -> str:
    """What a client wrote may be in it, and ends up on somebody's terminal."""
    return "".join(each if each.isprintable() else "?" for each in text[:_LONG])


def read(rows: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Kept rows; what another version or another program wrote and cannot be read is passed over."""
    blank = asdict(Problem("", "", "", 0, ""))
    return [Problem(**row) for row in rows if fits(row, blank)]


def merged(tables: Iterable[Iterable[Problem]]) -> list[Problem]:
    """The machine's table out of its workers', the latest first."""
    total: dict[tuple[str, str, int, str], Problem] = {}
    for problem in (problem for table in tables for problem in table):
        known = total.get(problem.key)
        total[problem.key] = problem if known is None else _sum(known, problem)
    return sorted(total.values(), key=lambda problem: -problem.last)[:LIMIT]


def _sum(one: Problem, other: Problem) -> Problem:
    first, last = min(one.first, other.first), max(one.last, other.last)
    return replace(one, count=one.count + other.count, first=first, last=last)


def nameless(problems: Iterable[Problem], upstreams: Iterable[str]) -> list[Problem]:
    """Without clients, and only about these upstreams: what anybody who may pull from them could see happen. What only
    pushing meets is left out, for its sentences may say who pushed."""
    known = frozenset(upstreams)
    shown = (replace(each, client="") for each in problems if each.upstream in known and each.status not in (401, 403))
    return merged([shown])
