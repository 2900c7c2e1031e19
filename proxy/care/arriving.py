"""Who waits for what is arriving: each worker's small file of its running fills, for a status of the whole machine.

How far a fill is, its part file says; who reads it, only the workers know that have the readers. A worker writes its
file when that has changed, at most once a second; a file that a killed worker left is believed only as far as its
fills are still running.
"""

import asyncio
import contextlib
import glob
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from proxy import metrics
from proxy.fill.flight import Flights
from proxy.store.parts import Parts

_EVERY = 1.0
_APART = 0.25
"""Seconds between the two looks a rate is made of."""


class Arriving:
    """The running fills of one machine; `slot` is the worker that writes."""

    def __init__(self, folder: str, slot: int, flights: Flights, parts: Parts) -> None:
        self._folder = folder
        self._slot = slot
        self._flights = flights
        self._parts = parts

    async def keep(self) -> None:
        """Write the file whenever it has changed, for ever."""
        written = None
        while True:
            text = json.dumps(self._flights.seen())
            if text != written:
                with contextlib.suppress(OSError):  # a full disk costs the readers' number, nothing else
                    await asyncio.to_thread(self._write, text)
                    written = text
            await asyncio.sleep(_EVERY)

    def _write(self, text: str) -> None:
        path = os.path.join(self._folder, f"fills.{self._slot}")
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(f"{path}.new", path)

    def measure(self) -> None:
        """Bring the gauges of what is arriving up to date. Blocks. Raises OSError."""
        live = [seen for _, seen in self._parts.live()]
        metrics.DOWNLOADS.set(len(live))
        metrics.DOWNLOADED.set(sum(seen.available for seen in live))
        metrics.DOWNLOADS_MISSING.set(sum(max(0, seen.total - seen.available) for seen in live if seen.total))

    async def shown(self) -> list[dict[str, Any]]:
        """Every running fill: bytes, bytes a second, readers, image. Takes a quarter of a second where there are any.
        Raises OSError."""
        before, began = dict(await asyncio.to_thread(self._parts.live)), time.monotonic()
        if not before:
            return []
        await asyncio.sleep(_APART)
        after, told = await asyncio.to_thread(lambda: (self._parts.live(), self._all_told()))
        seconds = time.monotonic() - began
        return [
            {
                "digest": digest,
                "bytes": seen.available,
                "size": seen.total,
                "rate": int(max(0, seen.available - before[digest].available) / seconds) if digest in before else 0,
                "readers": sum(rows[digest][0] for rows in told if digest in rows),
                "image": next((rows[digest][1] for rows in told if digest in rows and rows[digest][1]), ""),
            }
            for digest, seen in after
        ]

    def _all_told(self) -> list[Mapping[str, tuple[int, str]]]:
        return [_told(path) for path in glob.glob(os.path.join(glob.escape(self._folder), "fills.*"))]


def _told(path: str) -> Mapping[str, tuple[int, str]]:
    """What a worker wrote; nothing where that cannot be read."""
    with contextlib.suppress(OSError, ValueError), open(path, encoding="utf-8") as file:
        found = json.load(file)
        return {str(digest): (int(readers), str(image)) for digest, (readers, image) in found.items()}
    return {}
