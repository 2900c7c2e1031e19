"""Who waits for what is arriving: each worker's small file of its running fills, for a status of the whole machine.

How far a fill is, its part file says; who reads it, only the workers know that have the readers. A worker writes its
file when that has changed, at most once a second; a file that a killed worker left is believed only as far as its
fills are still running.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from proxy.fill.flight import Flights
from proxy.store.parts import Parts

_EVERY = 1.0
_APART = 0.25
"""Seconds between the two looks a rate is made of."""


class Arriving:
    """The running fills of one machine; `slot` is the worker that writes, `count` how many there are."""

    def __init__(self, folder: str, slot: int, count: int, flights: Flights, parts: Parts) -> None:
        self._folder = folder
        self._slot = slot
        self._count = count
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

    def _path(self, slot: int) -> str:
        return os.path.join(self._folder, f"fills.{slot}")

    def _write(self, text: str) -> None:
        path = self._path(self._slot)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(f"{path}.new", path)

    def shown(self) -> list[dict[str, Any]]:
        """Every running fill: bytes, bytes a second, readers, image. Blocks, a quarter of a second where there are
        any. Raises OSError."""
        before, began = dict(self._parts.live()), time.monotonic()
        if not before:
            return []
        time.sleep(_APART)
        after, seconds = self._parts.live(), time.monotonic() - began
        told = [self._told(slot) for slot in range(self._count)]
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

    def _told(self, slot: int) -> Mapping[str, tuple[int, str]]:
        """What a worker wrote; nothing where that cannot be read."""
        with contextlib.suppress(OSError, ValueError), open(self._path(slot), encoding="utf-8") as file:
            found = json.load(file)
            return {str(digest): (int(readers), str(image)) for digest, (readers, image) in found.items()}
        return {}
