"""What operators and their programs ask: /metrics, /healthz, /readyz, and over the admin socket /api/status.

Everything here is true for the whole machine, whichever worker answers: it comes from files and shared memory.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web

from proxy import __version__, metrics
from proxy.care import reloaded
from proxy.care.books import Books
from proxy.care.evict import Janitor
from proxy.config import Settings, Upstream
from proxy.errors import NoSuchPath
from proxy.http import respond
from proxy.http.exchange import Exchange
from proxy.policy import CircuitState
from proxy.store.board import Board
from proxy.store.catalogue import Catalogue
from proxy.store.circuit import Circuit
from proxy.store.ingest import Store

_UNKEPT_MEMORY = 15 * 10**9
_CIRCUITS = {CircuitState.CLOSED: 0, CircuitState.HALF_OPEN: 1, CircuitState.OPEN: 2}
Ways = Mapping[str, Sequence[Circuit]]
"""An upstream's ways out, one a URL."""


Page = Callable[[Exchange], Awaitable[web.StreamResponse]]
Pages = Mapping[tuple[str, str], Page]
"""Method and path of a page; GET answers HEAD too."""


class Admin:
    """The pages beside the registry API."""

    def __init__(
        self,
        settings: Settings,
        instance: str,
        store: Store,
        board: Board,
        catalogue: Catalogue,
        janitor: Janitor,
        ways: Ways,
        books: Books,
        draining: Callable[[], bool],
        examine: Callable[[str], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self._settings = settings
        self._instance = instance
        self._store = store
        self._catalogue = catalogue
        self._janitor = janitor
        self._board = board
        self._ways = ways
        self._books = books
        self._draining = draining
        self._examine = examine
        own = {"status": self.status, "egress": self.egress, "legacy": self.legacy, "doctor": self.doctor}
        self._pages: dict[tuple[str, str], Page] = {("GET", f"/api/{name}"): page for name, page in own.items()}
        self._pages |= {("GET", path): page for path, page in self.public().items()}

    def add(self, pages: Pages) -> None:
        """Further pages of the admin socket."""
        self._pages |= pages

    def public(self) -> dict[str, Page]:
        """Pages anybody who reaches the port may see."""
        return {"/metrics": self.metrics, "/healthz": self.healthz, "/readyz": self.readyz}

    async def private(self, exchange: Exchange) -> web.StreamResponse:
        """Pages of the admin socket. Raises NoSuchPath."""
        method = "GET" if exchange.request.method == "HEAD" else exchange.request.method
        page = self._pages.get((method, exchange.request.path))
        if page is None:
            raise NoSuchPath(f"{method} {exchange.request.path[:80]!r} is not a page of the admin socket")
        exchange.kind = "admin"
        return await page(exchange)

    async def metrics(self, exchange: Exchange) -> web.StreamResponse:
        with contextlib.suppress(OSError):  # a catalogue that is damaged is begun anew; the counters are still true
            await asyncio.to_thread(self._measure)
        accept = exchange.request.headers.get("Accept", "")
        text, content_type = await asyncio.to_thread(metrics.exposition, accept)
        return respond.whole(exchange, text, {"Content-Type": content_type, "Server": respond.SERVER})

    def _measure(self) -> None:
        """Bring the gauges that are looked up, not counted, up to date."""
        space, (_, objects), oldest = self._janitor.shown(), self._catalogue.sums(), self._catalogue.oldest()
        metrics.CONFIG_RELOADED.set(0 if reloaded.mistake(self._settings.server.data) else 1)
        metrics.CACHE_SIZE.set(space.cached)
        metrics.CACHE_LIMIT.set(self._janitor.limits().max_size)
        metrics.CACHE_OBJECTS.set(objects)
        metrics.CACHE_IDLE.set(0 if oldest is None else max(0.0, time.time() - oldest))
        metrics.PINNED.set(space.pinned)
        metrics.DISK_FREE.set(space.free)
        self._measure_downloads()
        for name in self._settings.upstreams:
            metrics.UPSTREAM_UP.labels(name).set(self._up(name))
            metrics.UPSTREAM_CIRCUIT.labels(name).set(_CIRCUITS[self._circuit(name)])
            metrics.UPSTREAM_PAUSED.labels(name).set(min(way.paused for way in self._ways[name]))

    def _measure_downloads(self) -> None:
        """What is arriving on this machine, whichever worker leads it."""
        live = [seen for _, seen in self._store.parts.live()]
        metrics.DOWNLOADS.set(len(live))
        metrics.DOWNLOADED.set(sum(seen.available for seen in live))
        metrics.DOWNLOADS_MISSING.set(sum(max(0, seen.total - seen.available) for seen in live if seen.total))

    def _disk(self) -> tuple[int, int]:
        """Free and total bytes where the data lies."""
        found = os.statvfs(self._settings.server.data)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    async def healthz(self, exchange: Exchange) -> web.StreamResponse:
        return self._text(exchange, "ok")

    async def readyz(self, exchange: Exchange) -> web.StreamResponse:
        if self._draining():
            return self._text(exchange, "draining", 503)
        return self._text(exchange, self._health())

    def _health(self) -> str:
        if self._disk()[0] < self._janitor.limits().min_free // 2:
            return f"degraded: the disk of {self._settings.server.data} is full"
        unkept = self._board.unkept_at
        if unkept and time.monotonic_ns() - unkept < _UNKEPT_MEMORY:
            return f"degraded: {self._settings.server.data} cannot be written, pulls are passed through"
        down = [name for name in self._settings.upstreams if not self._up(name)]
        if down:
            return f"degraded: no answer from {', '.join(down)}"
        refused = reloaded.mistake(self._settings.server.data)
        return "degraded: the last reload was refused, tidegate status and the log say why" if refused else "ok"

    def _up(self, upstream: str) -> bool:
        """Whether one of its URLs answers."""
        return any(way.up for way in self._ways[upstream])

    def _circuit(self, upstream: str) -> CircuitState:
        """The best of its URLs' circuits."""
        return min((way.state for way in self._ways[upstream]), key=_CIRCUITS.__getitem__)

    def _upstream(self, upstream: Upstream) -> Mapping[str, Any]:
        """One upstream as `status` shows it."""
        circuit = self._circuit(upstream.name).name.lower().replace("_", "-")
        paused = min(way.paused for way in self._ways[upstream.name])
        up = self._up(upstream.name)
        return {"name": upstream.name, "urls": list(upstream.urls), "up": up, "circuit": circuit, "paused": paused}

    def _text(self, exchange: Exchange, text: str, status: int = 200) -> web.StreamResponse:
        sent = {"Content-Type": "text/plain; charset=utf-8", "Server": respond.SERVER}
        return respond.whole(exchange, f"{text}\n".encode(), sent, status)

    async def status(self, exchange: Exchange) -> web.StreamResponse:
        return respond.document(exchange, await asyncio.to_thread(self._status), "application/json")

    async def egress(self, exchange: Exchange) -> web.StreamResponse:
        """The ledger, all of it: choosing and wording is the command's."""
        return respond.document(exchange, [asdict(entry) for entry in await self._books.hosts()], "application/json")

    async def legacy(self, exchange: Exchange) -> web.StreamResponse:
        """Who still asks by an old name."""
        return respond.document(exchange, [asdict(row) for row in await self._books.old_names()], "application/json")

    async def doctor(self, exchange: Exchange) -> web.StreamResponse:
        """The way out, walked now with this service's settings and environment; takes up to a minute."""
        report = await self._examine(exchange.request.query.get("image", ""))
        return respond.document(exchange, report, "application/json")

    def _status(self) -> Mapping[str, Any]:
        """What `tidegate status` shows. Blocks."""
        settings, free_total, (size, objects) = self._settings, self._disk(), self._catalogue.sums()
        space, limits = self._janitor.shown(), self._janitor.limits()
        requests = metrics.totals("tidegate_requests_total", "result")
        to_clients = sum(metrics.totals("tidegate_client_bytes_total", "upstream").values())
        from_upstreams = sum(metrics.totals("tidegate_upstream_bytes_total", "upstream").values())
        return {
            "version": __version__,
            "instance": self._instance,
            "started": self._board.started / 1e9,
            "workers": settings.server.workers,
            "health": self._health(),
            "reload_refused": reloaded.mistake(settings.server.data),
            "listen": settings.server.listen,
            "data": settings.server.data,
            "disk": {
                "free": free_total[0],
                "total": free_total[1],
                "cache_bytes": size,
                "cache_objects": objects,
                "pinned_bytes": space.pinned,
                "max_size": limits.max_size,
                "min_free": limits.min_free,
            },
            "requests": {result: int(count) for result, count in requests.items() if count},
            "client_bytes": int(to_clients),
            "upstream_bytes": int(from_upstreams),
            "saved_bytes": int(to_clients - from_upstreams),
            "upstreams": [self._upstream(upstream) for upstream in settings.upstreams.values()],
            "fills": [
                {"digest": digest, "bytes": seen.available, "size": seen.total}
                for digest, seen in self._store.parts.live()
            ],
        }
