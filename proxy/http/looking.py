"""`/`: the status page and the two files it names, over TCP. Read-only; there is no form but the search.

Anybody sees what anybody could pull, and no client. Whoever logs in with the operators' token as password, by the link
on the page, sees all of it: a browser knows name and password, not bearer tokens.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from proxy.errors import LoginNeeded
from proxy.http import page, respond
from proxy.http.admin import Page
from proxy.http.exchange import Exchange
from proxy.http.keeping import Keeping
from proxy.http.state import State
from proxy.http.tokens import Token

_DAYS = 14
_SHOWN = 25
_FRESH = 3.0
_LONGEST = 200
Rows = Sequence[Mapping[str, Any]]


class Looking:
    """The page of one machine."""

    def __init__(self, state: State, keeping: Keeping, token: Token) -> None:
        self._state = state
        self._keeping = keeping
        self._token = token
        self._listed: tuple[float, Rows] = (0.0, ())

    def pages(self) -> dict[str, Page]:
        """By path, read with GET."""
        return {"/": self.page, "/page.css": self.asset, "/page.js": self.asset}

    async def page(self, exchange: Exchange) -> web.StreamResponse:
        """Raises LoginNeeded, OSError, RegistryError."""
        exchange.kind = "admin"
        query = exchange.request.query
        full = self._token.is_password(exchange.request)
        if "login" in query and not full:
            raise LoginNeeded("log in with any name, and the token of admin.token_file as password")
        search = query.get("q", "").strip()[:_LONGEST]
        status = await (self._state.document(_DAYS) if full else self._state.glance(_DAYS))
        text = page.html(status, await self._images(search, full), search, self._token.there)
        return _sent(exchange, text.encode(), "text/html; charset=utf-8")

    async def _images(self, search: str, full: bool) -> Rows:
        """What everybody may see of everything is listed once for all who look within some seconds."""
        if search or full:
            return await self._keeping.rows(search.lower(), full, _SHOWN)
        at, rows = self._listed
        if time.monotonic() - at > _FRESH:
            rows = await self._keeping.rows("", False, _SHOWN)
            self._listed = time.monotonic(), rows
        return rows

    async def asset(self, exchange: Exchange) -> web.StreamResponse:
        """A file the page names."""
        exchange.kind = "admin"
        content, kind = page.asset(exchange.request.path.rpartition("/")[2])
        return _sent(exchange, content, kind)


def _sent(exchange: Exchange, content: bytes, kind: str) -> web.StreamResponse:
    return respond.whole(exchange, content, {"Content-Type": kind, "Server": respond.SERVER, **page.HEADERS})
