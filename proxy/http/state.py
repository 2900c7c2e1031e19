"""The machine's state as one document: what `tidegate status` and the page show, and what the gauges say.

Everything comes from files and shared memory, so whichever worker answers says the same. The document exists twice: in
full, and as everybody may see it, without clients and without what is not for everybody.
"""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from proxy import __version__, metrics
from proxy.care import counted, reloaded
from proxy.care.arriving import Arriving
from proxy.care.books import Books
from proxy.care.days import Days
from proxy.care.evict import Janitor
from proxy.care.problems import Problem, nameless
from proxy.config import Settings, Upstream
from proxy.policy import CircuitState
from proxy.store.board import Board
from proxy.store.catalogue import Catalogue
from proxy.store.circuit import Circuit
from proxy.store.yard import Yard
from proxy.upstream.ledger import Entry

_UNKEPT_MEMORY = 15 * 10**9
_CIRCUITS = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}
_FRESH = 1.0
"""Seconds for which everybody is told the same: however many ask, the work is done once."""
Ways = Mapping[str, Sequence[Circuit]]
"""An upstream's ways out, one a URL."""


class State:
    """One machine's. What blocks says so."""

    def __init__(
        self,
        settings: Settings,
        instance: str,
        board: Board,
        catalogue: Catalogue,
        janitor: Janitor,
        ways: Ways,
        books: Books,
        days: Days,
        arriving: Arriving,
        yard: Yard | None,
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._board = board
        self._catalogue = catalogue
        self._janitor = janitor
        self._ways = ways
        self._books = books
        self._days = days
        self._arriving = arriving
        self._yard = yard
        self._glancing = asyncio.Lock()
        self._glanced: tuple[float, int, dict[str, Any]] = (0.0, 0, {})
        public = (upstream.name for upstream in settings.upstreams.values() if upstream.public)
        self.everybodys = frozenset(public if settings.auth.pull == "anyone" else ())

    def measure(self) -> None:
        """Bring the gauges that are looked up, not counted, up to date. Blocks. Raises OSError."""
        space, (_, objects), idle = self._janitor.shown(), self._catalogue.sums(), self._idle()
        metrics.CONFIG_RELOADED.set(0 if reloaded.mistake(self._settings.server.data) else 1)
        metrics.CACHE_SIZE.set(space.cached)
        metrics.CACHE_LIMIT.set(self._janitor.limits().max_size)
        metrics.CACHE_OBJECTS.set(objects)
        metrics.CACHE_IDLE.set(idle or 0)
        metrics.PINNED.set(space.pinned)
        metrics.DISK_FREE.set(space.free)
        self._arriving.measure()
        metrics.LOCAL_SIZE.set(0 if self._yard is None else self._yard.bytes)
        metrics.LOCAL_LIMIT.set(0 if self._yard is None else self._yard.limit)
        for name in self._settings.upstreams:
            metrics.UPSTREAM_UP.labels(name).set(self._up(name))
            metrics.UPSTREAM_CIRCUIT.labels(name).set(_CIRCUITS[self._circuit(name)])
            metrics.UPSTREAM_PAUSED.labels(name).set(min(way.paused for way in self._ways[name]))

    def _idle(self) -> float | None:
        """Seconds since what would go first was last used; None where nothing is."""
        oldest = self._catalogue.oldest()
        return None if oldest is None else max(0.0, time.time() - oldest)

    def health(self) -> str:
        """ "ok", or "degraded: " and every reason: one is often the cause of another, or hides it."""
        reasons = "; ".join(self._reasons())
        return f"degraded: {reasons}" if reasons else "ok"

    def _reasons(self) -> Iterator[str]:
        data, unkept = self._settings.server.data, self._board.unkept_at
        if self._free()[0] < self._janitor.limits().min_free // 2:
            yield f"the disk of {data} is full"
        elif unkept and time.monotonic_ns() - unkept < _UNKEPT_MEMORY:
            yield f"{data} cannot be written, pulls are passed through"
        if down := [name for name in self._settings.upstreams if not self._up(name)]:
            yield f"no answer from {', '.join(down)}"
        if reloaded.mistake(data):
            yield "the last reload was refused, tidegate status and the log say why"

    def _free(self) -> tuple[int, int]:
        """Free and total bytes where the data lies."""
        found = os.statvfs(self._settings.server.data)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def _up(self, upstream: str) -> bool:
        """Whether one of its URLs answers."""
        return any(way.up for way in self._ways[upstream])

    def _circuit(self, upstream: str) -> CircuitState:
        """The best of its URLs' circuits."""
        return min((way.state for way in self._ways[upstream]), key=_CIRCUITS.__getitem__)

    async def document(self, days: int) -> dict[str, Any]:
        """All of it, with the totals of so many days. Raises OSError."""
        met = await self._books.problems()
        admin, file = self._settings.admin, self._settings.file
        return {
            "view": "full",
            "data": self._settings.server.data,
            "admin_listen": admin.listen,
            "config": {"file": file, "refused": await asyncio.to_thread(reloaded.mistake, self._settings.server.data)},
            **await self._document(days, met, self._settings.upstreams),
        }

    async def glance(self, days: int) -> dict[str, Any]:
        """What everybody may see: no client, no folder, nothing of upstreams that took an account to read, and no
        content at all where pulling takes one. Raises OSError."""
        async with self._glancing:
            at, asked, found = self._glanced
            if asked != days or time.monotonic() - at > _FRESH:
                met = nameless(await self._books.problems(), self.everybodys)
                found = {"view": "public", **await self._document(days, met, self.everybodys)}
                found["health"] = found["health"].replace(self._settings.server.data, "the data folder")
                self._glanced = time.monotonic(), days, found
            return found

    async def _document(self, days: int, met: Iterable[Problem], upstreams: Iterable[str]) -> dict[str, Any]:
        """Raises OSError."""
        shown = list(upstreams)
        now, started = time.time(), self._board.started / 1e9
        totals, counts = await self._days.shown(days), await self._days.since_start()
        hosts = [entry for entry in await self._books.seen_hosts() if entry.upstream in shown]
        fills = await self._arriving.shown()
        return {
            "version": __version__,
            "instance": self._instance,
            "started": started,
            "uptime": max(0.0, now - started),
            "now": now,
            "workers": self._settings.server.workers,
            "health": await asyncio.to_thread(self.health),
            "listen": self._settings.server.listen,
            "disk": await asyncio.to_thread(self._disk, counts),
            "today": totals[0],
            "since_start": counted.told(counts),
            "days": totals,
            "upstreams": [self._upstream(self._settings.upstreams[name], hosts) for name in shown],
            "hosts": [asdict(entry) for entry in hosts],
            "fills": [fill for fill in fills if fill["image"].partition("/")[0] in shown],
            "problems": [asdict(problem) for problem in met],
        }

    def _disk(self, counts: counted.Counts) -> dict[str, Any]:
        (free, total), (size, objects) = self._free(), self._catalogue.sums()
        return {
            "free": free,
            "total": total,
            "cache_bytes": size,
            "cache_objects": objects,
            "pinned_bytes": self._janitor.shown().pinned,
            "max_size": self._janitor.limits().max_size,
            "min_free": self._janitor.limits().min_free,
            "oldest_idle": self._idle(),
            "evicted_bytes": {reason: counts.get(f"evicted.{reason}", 0) for reason in ("max_size", "min_free")},
            "pushed": None if self._yard is None else {"bytes": self._yard.bytes, "max_size": self._yard.limit},
        }

    def _upstream(self, upstream: Upstream, hosts: Iterable[Entry]) -> Mapping[str, Any]:
        """One upstream, and the latest of its hosts' failures that no answer has followed."""
        failed = [entry for entry in hosts if entry.upstream == upstream.name and entry.error]
        last = max(failed, key=lambda entry: entry.last, default=None)
        return {
            "name": upstream.name,
            "urls": list(upstream.urls),
            "up": self._up(upstream.name),
            "circuit": self._circuit(upstream.name).name.lower().replace("_", "-"),
            "paused": min(way.paused for way in self._ways[upstream.name]),
            "offline": upstream.offline,
            "last_error": None if last is None else {"error": last.error, "host": last.host, "time": last.last},
        }
