"""Which hosts this cache had to reach, for the people who write the firewall's rules. Facts only, no I/O.

Each worker counts in memory and hands its whole table over to be kept; a reader adds the workers' tables up. Hops that
were refused or failed are in it too, with the rule or the error, because before the first success they are all there
is. A host is named by whoever redirects us, so the number of rows is bounded: hosts that never answered make room for
new ones, and whoever redirects to a thousand names that do not exist fills nothing.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

Hop = Literal["registry", "token", "redirect"]
_LIMIT = 500
OTHERS = "(others)"
"""The row of hosts there was no room for; no host, so nothing to allow."""
_LATEST = 1e11
"""No wall clock of this program says more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One host as one kind of hop of one upstream. Times are wall-clock seconds, `status` 0 when there was none."""

    upstream: str
    host: str
    hop: Hop
    count: int = 0
    failed: int = 0
    bytes: int = 0
    status: int = 0
    error: str = ""
    first: float = 0.0
    last: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        return self.upstream, self.host, self.hop


class Ledger:
    """One worker's table, going on where its predecessor in the slot stopped."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._entries: dict[tuple[str, str, str], Entry] = {}
        self.changed = False

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take over a kept table; rows that cannot be read are passed over."""
        for entry in read(rows):
            self._entries[entry.key] = entry

    def hop(self, upstream: str, host: str, hop: Hop, status: int) -> None:
        """A host answered."""
        entry = self._entry(upstream, host, hop)
        self._put(replace(entry, count=entry.count + 1, status=status, error=""))

    def failure(self, upstream: str, host: str, hop: Hop, error: str) -> None:
        """A host could not be asked, or not be understood."""
        entry = self._entry(upstream, host, hop)
        self._put(replace(entry, failed=entry.failed + 1, status=0, error=error[:200]))

    def received(self, upstream: str, host: str, hop: Hop, size: int) -> None:
        """Body bytes came from a host."""
        entry = self._entry(upstream, host, hop)
        self._put(replace(entry, bytes=entry.bytes + size))

    def rows(self) -> list[dict[str, Any]]:
        """The table, to be kept."""
        self.changed = False
        return [asdict(entry) for entry in self._entries.values()]

    def _entry(self, upstream: str, host: str, hop: Hop) -> Entry:
        known = self._entries.get((upstream, host, hop))
        if known is None and len(self._entries) >= _LIMIT and not self._make_room():
            host = OTHERS
            known = self._entries.get((upstream, host, hop))
        return known or Entry(upstream, host, hop, first=self._clock())

    def _make_room(self) -> bool:
        """The host that has been refused or has failed, never answered, and was seen longest ago, goes."""
        silent = [entry for entry in self._entries.values() if not entry.count]
        if silent:
            del self._entries[min(silent, key=lambda entry: entry.last).key]
        return bool(silent)

    def _put(self, entry: Entry) -> None:
        self._entries[entry.key] = replace(entry, last=self._clock())
        self.changed = True


def read(rows: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """Kept rows as entries; what another version or another program wrote and cannot be read is passed over."""
    blank = asdict(Entry("", "", "registry"))
    return [Entry(**row) for row in rows if fits(row, blank) and row.get("hop") in get_args(Hop)]


def fits(row: Mapping[str, Any], blank: Mapping[str, Any]) -> bool:
    """Whether a kept row holds what a blank one does: texts, counts, times. A planted one must not turn up as a
    TypeError where something is counted."""
    return row.keys() == blank.keys() and all(_like(row[key], value) for key, value in blank.items())


def _like(value: object, blank: object) -> bool:
    if isinstance(blank, str):
        return isinstance(value, str)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return False
    return value <= _LATEST if isinstance(blank, float) else isinstance(value, int)


def merged(tables: Iterable[Iterable[Entry]]) -> list[Entry]:
    """The machine's table out of its workers': sums, the earliest and the latest sight, the latest word."""
    total: dict[tuple[str, str, str], Entry] = {}
    for entry in (entry for table in tables for entry in table):
        known = total.get(entry.key)
        total[entry.key] = entry if known is None else _sum(known, entry)
    return sorted(total.values(), key=lambda entry: (entry.upstream, entry.host, entry.hop))


def _sum(one: Entry, other: Entry) -> Entry:
    newer = max(one, other, key=lambda entry: entry.last)
    return replace(
        newer,
        count=one.count + other.count,
        failed=one.failed + other.failed,
        bytes=one.bytes + other.bytes,
        first=min(one.first, other.first),
    )
