"""Totals of each UTC day, kept across restarts: what was asked, delivered, fetched.

The counters of the metrics begin at zero with every start and are exact until then, so one worker adds what they have
grown by to the day's row, and writes in the same transaction how far it had looked: a worker that is killed at any
moment neither loses anything nor counts it twice. What a run had counted after its last look lies in its metrics
folder, which the next start hands over. A reader adds what is not in the rows yet by itself.
"""

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from proxy.care import counted
from proxy.care.counted import Counts
from proxy.store.index import Index

KEPT = 400
"""Days."""
_DAY = 86400.0
_EVERY = 10.0
_SEEN = "day:seen"


class Days:
    """The totals of one data folder; `folder` is where this run's metrics lie, `last` those of the run before."""

    def __init__(self, index: Index, folder: str, last: str, clock: Callable[[], float] = time.time) -> None:
        self._index = index
        self._folder = folder
        self._last = last
        self._clock = clock
        self._looked = clock()

    async def _take_over(self) -> None:
        """Add what the run before had counted, and remove its metrics. Raises nothing."""
        last = self._last
        if os.path.isdir(last) and await self._add(last, await asyncio.to_thread(_written, last, self._clock())):
            await asyncio.to_thread(shutil.rmtree, last, True)

    async def keep(self) -> None:
        """Write the totals down while they grow, and at midnight, for ever; those of the run before first."""
        await self._take_over()
        while True:
            await asyncio.sleep(min(_EVERY, _DAY - self._clock() % _DAY + 0.001))
            await self.save()

    async def save(self) -> None:
        """Write them down now: what has grown since the last look belongs to the day of that look."""
        day, self._looked = self._looked, self._clock()
        await self._add(self._folder, day)

    async def _add(self, folder: str, at: float) -> bool:
        """Whether everything that was counted there is in the rows."""
        now = await asyncio.to_thread(counted.read, folder)
        grown = counted.since(now, self._seen(folder))
        if not grown:
            return True
        day = date(at)
        seen = {"run": _run(folder), "counted": now}
        row = Counter(self._row(day)) + Counter(grown)
        return await self._index.note({f"day:{day}": json.dumps(row), _SEEN: json.dumps(seen)}, KEPT * _DAY)

    def _seen(self, folder: str) -> Counts:
        """How far the rows have followed that run's counters."""
        found = _parsed(self._index.get(_SEEN))
        return _counts(found.get("counted")) if found.get("run") == _run(folder) else {}

    def _row(self, day: str) -> Counts:
        return _counts(_parsed(self._index.get(f"day:{day}")))

    def since_start(self) -> dict[str, object]:
        """Of this run. Blocks."""
        return counted.told(counted.read(self._folder))

    def shown(self, most: int) -> list[dict[str, object]]:
        """Today and the days before it, `most` altogether, the latest first; a day on which nothing was asked is left
        out, today never. Blocks."""
        now = self._clock()
        days = [date(now - back * _DAY) for back in range(min(most, KEPT))]
        rows = {day: self._row(day) for day in days} | {days[0]: self._today(days[0])}
        return [{"date": day, **counted.told(row)} for day, row in rows.items() if row or day == days[0]]

    def _today(self, day: str) -> Counts:
        """The row, and what is not in it yet; both are read again where a write came in between."""
        while True:
            seen, row = self._seen(self._folder), self._row(day)
            if self._seen(self._folder) == seen:
                return Counter(row) + Counter(counted.since(counted.read(self._folder), seen))


def date(at: float) -> str:
    """The UTC day of a wall-clock time."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def _written(folder: str, now: float) -> float:
    """When something was last counted there, as far as the files tell."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return max((entry.stat().st_mtime for entry in entries if entry.name.startswith("counter_")), default=now)
    return now


def _run(folder: str) -> str:
    try:
        with open(os.path.join(folder, "run"), encoding="ascii") as file:
            return file.read(64)
    except (OSError, UnicodeDecodeError):
        return ""


def _parsed(row: str | None) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(row or "{}")
        if isinstance(found, dict):
            return found
    return {}


def _counts(found: object) -> Counts:
    """Counters as they were kept; what another program wrote counts nothing."""
    rows = found if isinstance(found, dict) else {}
    return {name: rows[name] for name in counted.NAMES if type(rows.get(name)) is int and rows[name] > 0}
