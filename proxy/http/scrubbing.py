"""The page of the admin socket that scrubs now."""

import contextlib
import json

from aiohttp import web

from proxy.care.lost import Fetch
from proxy.care.scrub import Scrubber
from proxy.http import respond
from proxy.http.admin import Pages
from proxy.http.exchange import Exchange


class Scrubbing:
    """Reads everything again for whoever asks, and fetches what was bad."""

    def __init__(self, scrubber: Scrubber, fetch: Fetch) -> None:
        self._scrubber = scrubber
        self._fetch = fetch

    def pages(self) -> Pages:
        return {("POST", "/api/scrub"): self.scrub}

    async def scrub(self, exchange: Exchange) -> web.StreamResponse:
        """A document a line, the last one with `done`; it ends when the client leaves. Raises Unavailable."""
        full = _wants_all(await exchange.request.read())
        wanted = await self._scrubber.take()
        async with contextlib.aclosing(self._scrubber.now(wanted, full, self._fetch)) as report:
            return await respond.lines(exchange, report)


def _wants_all(body: bytes) -> bool:
    try:
        document = json.loads(body)
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("full") is True
