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
from collections.abc import Callable, Sequence
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
        written = await asyncio.to_thread(_written, self._last, self._clock())
        if written is not None and await self._add(self._last, written):
            await asyncio.to_thread(shutil.rmtree, self._last, True)

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
        run, now = await asyncio.to_thread(_look, folder)
        day = date(at)
        seen, (row,) = await self._rows(run, [day])
        grown = counted.since(now, seen)
        if not grown:
            return True
        kept = {f"day:{day}": Counter(row) + Counter(grown), _SEEN: {"run": run, "counted": now}}
        return await self._index.note({key: json.dumps(value) for key, value in kept.items()}, KEPT * _DAY)

    async def _rows(self, run: str, days: Sequence[str]) -> tuple[Counts, list[Counts]]:
        """How far the rows have followed that run's counters, and the rows of these days, of one moment."""
        while True:
            keys = [_SEEN, *(f"day:{day}" for day in days)]
            seen, *rows = [_parsed(row) for row in (await self._index.read(keys)).values()]
            if _parsed(self._index.get(_SEEN)) == seen:
                break
        return _counts(seen.get("counted") if seen.get("run") == run else None), [_counts(row) for row in rows]

    async def since_start(self) -> Counts:
        """Of this run."""
        return await asyncio.to_thread(counted.read, self._folder)

    async def shown(self, most: int) -> list[dict[str, object]]:
        """Today and the days before it, `most` altogether, the latest first; a day on which nothing was asked is left
        out, today never. What is not in the rows yet is of today."""
        at = self._clock()
        days = [date(at - back * _DAY) for back in range(min(most, KEPT))]
        run = await asyncio.to_thread(_run, self._folder)
        seen, rows = await self._rows(run, days)
        now = await asyncio.to_thread(counted.read, self._folder)  # after the rows: only ever more than they know
        rows[0] = Counter(rows[0]) + Counter(counted.since(now, seen))
        return [
            {"date": day, **counted.told(row)} for day, row in zip(days, rows, strict=True) if row or day == days[0]
        ]


def date(at: float) -> str:
    """The UTC day of a wall-clock time."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def _written(folder: str, now: float) -> float | None:
    """When something was last counted there, as far as the files tell; None where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return max((entry.stat().st_mtime for entry in entries if entry.name.startswith("counter_")), default=now)
    except OSError:
        return None


def _look(folder: str) -> tuple[str, Counts]:
    """Which run's metrics lie there, and what they say."""
    return _run(folder), counted.read(folder)


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
