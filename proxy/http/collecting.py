"""The page of the admin socket that collects what was pushed and no manifest reaches."""

import contextlib
import json

from aiohttp import web

from proxy.care.collect import Collector, Order
from proxy.errors import RequestInvalid, Unsupported
from proxy.http import respond
from proxy.http.admin import Pages
from proxy.http.exchange import Exchange


class Collecting:
    """Runs gc for whoever asks."""

    def __init__(self, collector: Collector | None) -> None:
        """None where nothing can be pushed."""
        self._collector = collector

    def pages(self) -> Pages:
        return {("POST", "/api/gc"): self.collect}

    async def collect(self, exchange: Exchange) -> web.StreamResponse:
        """A document a line, the last one with `done`; it ends when the client leaves. Raises RequestInvalid,
        Unsupported, Unavailable, OSError."""
        order = _order(await exchange.request.read())
        if self._collector is None:
            raise Unsupported("nothing can be pushed here: the settings have no [local] section")
        held = self._collector.take()
        async with contextlib.aclosing(self._collector.now(held, order)) as report:
            return await respond.lines(exchange, report)


def _order(body: bytes) -> Order:
    """What is not understood removes nothing. Raises RequestInvalid."""
    try:
        return Order(**{name: value is True for name, value in json.loads(body).items()})
    except (ValueError, TypeError, AttributeError):
        raise RequestInvalid('gc takes {"delete": true or false, "untagged": true or false}') from None
