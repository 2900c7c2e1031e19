"""What operators and their programs ask: /metrics, /healthz, /readyz, and of /api/ what is about the whole service.

Everything here is true for the whole machine, whichever worker answers: it comes from files and shared memory. Who may
see a page is not decided here: over the admin socket everybody who can open it, over TCP whom desk.py lets.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from importlib import resources
from typing import Any

from aiohttp import web

from proxy import __version__, metrics
from proxy.care.books import Books
from proxy.care.days import KEPT
from proxy.errors import NoSuchPath, RequestInvalid
from proxy.http import respond
from proxy.http.exchange import Exchange
from proxy.http.state import State

Page = Callable[[Exchange], Awaitable[web.StreamResponse]]
Pages = Mapping[tuple[str, str], Page]
"""Method and path of a page; GET answers HEAD too."""
_DAYS = 14


class Admin:
    """The pages beside the registry API."""

    def __init__(
        self,
        state: State,
        books: Books,
        draining: Callable[[], bool],
        examine: Callable[[str], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self._state = state
        self._books = books
        self._draining = draining
        self._examine = examine
        own = {"egress": self.egress, "legacy": self.legacy, "doctor": self.doctor}
        self._pages: dict[tuple[str, str], Page] = {("GET", f"/api/{name}"): page for name, page in own.items()}
        self._pages |= {("GET", path): page for path, page in {**self.probes(), **self.public()}.items()}
        self._pages["GET", "/api/status"] = self.status

    def add(self, pages: Pages) -> None:
        """Further pages of the admin socket."""
        self._pages |= pages

    def probes(self) -> dict[str, Page]:
        """What probes ask, wherever they come in."""
        return {"/healthz": self.healthz, "/readyz": self.readyz}

    def public(self) -> dict[str, Page]:
        """Pages anybody may see who reaches the port that has them."""
        return {"/metrics": self.metrics, "/api/status": self.glance, "/api/openapi.json": self.description}

    def find(self, exchange: Exchange) -> Page | None:
        """The page of a method and a path; HEAD is answered as GET."""
        method = "GET" if exchange.request.method == "HEAD" else exchange.request.method
        return self._pages.get((method, exchange.request.path))

    async def private(self, exchange: Exchange) -> web.StreamResponse:
        """Pages of the admin socket. Raises NoSuchPath."""
        page = self.find(exchange)
        if page is None:
            raise NoSuchPath(f"{exchange.request.method} {exchange.request.path[:80]!r} is not a page of /api/")
        exchange.kind = "admin"
        return await page(exchange)

    async def metrics(self, exchange: Exchange) -> web.StreamResponse:
        with contextlib.suppress(OSError):  # a catalogue that is damaged is begun anew; the counters are still true
            await asyncio.to_thread(self._state.measure)
        accept = exchange.request.headers.get("Accept", "")
        text, content_type = await asyncio.to_thread(metrics.exposition, accept)
        return respond.whole(exchange, text, {"Content-Type": content_type, "Server": respond.SERVER})

    async def healthz(self, exchange: Exchange) -> web.StreamResponse:
        return _text(exchange, "ok")

    async def readyz(self, exchange: Exchange) -> web.StreamResponse:
        if self._draining():
            return _text(exchange, "draining", 503)
        return _text(exchange, self._state.health())

    async def status(self, exchange: Exchange) -> web.StreamResponse:
        """All of it. Raises RequestInvalid."""
        return document(exchange, await self._state.document(_days(exchange)))

    async def glance(self, exchange: Exchange) -> web.StreamResponse:
        """What everybody may see of it. Raises RequestInvalid."""
        return document(exchange, await self._state.glance(_days(exchange)))

    async def description(self, exchange: Exchange) -> web.StreamResponse:
        """What there is below /api/, for programs: OpenAPI 3.1, kept by hand beside the pages."""
        text = await asyncio.to_thread((resources.files("proxy.http") / "openapi.json").read_text, "utf-8")
        described = json.loads(text)
        described["info"]["version"] = __version__
        return document(exchange, described)

    async def egress(self, exchange: Exchange) -> web.StreamResponse:
        """The ledger, all of it: choosing and wording is the command's."""
        return document(exchange, [asdict(entry) for entry in await self._books.hosts()])

    async def legacy(self, exchange: Exchange) -> web.StreamResponse:
        """Who still asks by an old name."""
        return document(exchange, [asdict(row) for row in await self._books.old_names()])

    async def doctor(self, exchange: Exchange) -> web.StreamResponse:
        """The way out, walked now with this service's settings and environment; takes up to a minute."""
        return document(exchange, await self._examine(exchange.request.query.get("image", "")))


def document(exchange: Exchange, value: Any) -> web.StreamResponse:
    """A page's JSON; it is about this moment, and is kept by nobody on the way."""
    return respond.document(exchange, value, "application/json", **{"Cache-Control": "no-store"})


def _text(exchange: Exchange, text: str, status: int = 200) -> web.StreamResponse:
    sent = {"Content-Type": "text/plain; charset=utf-8", "Server": respond.SERVER}
    return respond.whole(exchange, f"{text}\n".encode(), sent, status)


def _days(exchange: Exchange) -> int:
    """How many days are wanted. Raises RequestInvalid."""
    text = exchange.request.query.get("days", str(_DAYS))
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= KEPT):
        raise RequestInvalid(f"days must be a number from 1 to {KEPT}")
    return int(text)
