"""Who still asks by an old name (k8s.gcr.io), so that somebody can go and change it. Facts only, no I/O.

A row is a client and an image as it was named; the clients are our own network's, but a page that is never cleaned
must not grow for ever, so the oldest rows go.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from proxy.upstream.ledger import fits

_LIMIT = 1000
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """One client asking for one image by an old name; times are wall-clock seconds."""

    alias: str
    client: str
    image: str
    count: int = 0
    first: float = 0.0
    last: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        return self.alias, self.client, self.image


class Legacy:
    """One worker's table, going on where its predecessor in the slot stopped."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, str, str], Sighting] = {}
        self.changed = False

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take over a kept table; rows that cannot be read are passed over."""
        self._seen |= {sighting.key: sighting for sighting in read(rows)}

    def note(self, alias: str, client: str, image: str) -> bool:
        """A client asked for an image by an old name; True when it is worth a line in the log: not seen for a day."""
        now = self._clock()
        known = self._seen.pop((alias, client, image), None) or Sighting(alias, client, image, first=now)
        self._seen[known.key] = replace(known, count=known.count + 1, last=now)
        if len(self._seen) > _LIMIT:
            del self._seen[next(iter(self._seen))]
        self.changed = True
        return now - known.last > _DAY

    def rows(self) -> list[dict[str, Any]]:
        """The table, to be kept."""
        self.changed = False
        return [asdict(sighting) for sighting in self._seen.values()]


def read(rows: Iterable[Mapping[str, Any]]) -> list[Sighting]:
    """Kept rows; what another version or another program wrote and cannot be read is passed over."""
    blank = asdict(Sighting("", "", ""))
    return [Sighting(**row) for row in rows if fits(row, blank)]


def merged(tables: Iterable[Iterable[Sighting]]) -> list[Sighting]:
    """The machine's table out of its workers', who asked last first."""
    total: dict[tuple[str, str, str], Sighting] = {}
    for sighting in (sighting for table in tables for sighting in table):
        known = total.get(sighting.key)
        total[sighting.key] = sighting if known is None else _sum(known, sighting)
    return sorted(total.values(), key=lambda sighting: -sighting.last)


def _sum(one: Sighting, other: Sighting) -> Sighting:
    first, last = min(one.first, other.first), max(one.last, other.last)
    return replace(one, count=one.count + other.count, first=first, last=last)
