"""Pages of the admin socket about images: what is here, pin, unpin, remove. Reading the question and saying the answer;
what is done about it stands in care/.

GET /api/images[?image=|search=][&limit=]
DELETE /api/pins?image=|set=   POST /api/pins, /api/remove: one document a line as it goes on
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, TypeVar

from aiohttp import web

from proxy.care.inventory import Image, Inventory
from proxy.care.pinning import Order, Pinning, Rooms
from proxy.care.pins import Pins, check_set
from proxy.care.removal import Remover
from proxy.care.shown import shown
from proxy.errors import NameUnknown, RegistryError, RequestInvalid, Unavailable
from proxy.http import admin, respond
from proxy.http.admin import Page
from proxy.http.exchange import Exchange
from proxy.http.spelling import Spelling
from proxy.oci.platforms import Platform

T = TypeVar("T")
_MOST_NAMED = 8
_FOUND = 200
"""Images that one search by anybody finds at most."""
_MOST = 10**6


class Keeping:
    """The pages."""

    def __init__(
        self,
        rooms: Rooms,
        spelling: Spelling,
        inventory: Inventory,
        pushed: Inventory | None,
        remover: Remover,
        draining: Callable[[], bool],
        everybodys: frozenset[str],
    ) -> None:
        """`everybodys` are the upstreams whose images anybody may see."""
        self._everybodys = everybodys
        self._searching = asyncio.Lock()
        self._draining = draining
        self._rooms = rooms
        self._spelling = spelling
        self._inventory = inventory
        self._pushed = pushed
        self._remover = remover

    def pages(self) -> Mapping[tuple[str, str], Page]:
        """By method and path."""
        return {
            ("GET", "/api/images"): self.images,
            ("POST", "/api/pins"): self.pin,
            ("DELETE", "/api/pins"): self.unpin,
            ("POST", "/api/remove"): self.remove,
        }

    async def images(self, exchange: Exchange) -> web.StreamResponse:
        """All images, or those of one repository, or one with its parts, or those whose name has `search` in it.
        Raises RegistryError."""
        if "search" in exchange.request.query:
            return await self._search(exchange, None, _number(exchange, "limit", 0, _MOST))
        text = exchange.request.query.get("image", "")
        spelled = self._spelling.read(text) if text else []
        names = [each.name if each.image.exact else each.repository for each in spelled] + [text] * bool(text)
        found = await _in_thread(lambda: shown([*self._inventory.images(), *self._own()], names))
        return admin.document(exchange, found)

    def _own(self) -> Sequence[Image]:
        """What was pushed here. Blocks. Raises OSError."""
        return self._pushed.images() if self._pushed is not None else ()

    async def found(self, exchange: Exchange) -> web.StreamResponse:
        """What everybody may see: by `search` alone, one at a time, because it reads manifests.

        Raises RegistryError."""
        limit = _number(exchange, "limit", _FOUND, _FOUND)
        async with self._searching:
            return await self._search(exchange, self._everybodys, limit)

    async def rows(self, wanted: str, full: bool, limit: int) -> list[dict[str, Any]]:
        """For the page: images whose name has `wanted` in it, of everything, or as everybody may see them. Raises
        RegistryError."""
        async with self._searching:
            return await self._found(wanted, None if full else self._everybodys, limit)

    async def _search(self, exchange: Exchange, within: frozenset[str] | None, limit: int) -> web.StreamResponse:
        wanted = exchange.request.query.get("search", "").lower()
        return admin.document(exchange, await self._found(wanted, within, limit))

    async def _found(self, wanted: str, within: frozenset[str] | None, limit: int) -> list[dict[str, Any]]:
        """`within` None: everywhere, and with who pinned it; `limit` 0: all."""
        own = self._pushed.search if self._pushed is not None and within is None else lambda *_: []
        cached = self._inventory.search
        images = await _in_thread(lambda: [*cached(wanted, within, limit), *own(wanted, within, limit)])
        rows = shown(images)
        if within is not None:
            rows = [{key: value for key, value in row.items() if key != "pinned"} for row in rows]
        return rows[: limit or None]

    async def pin(self, exchange: Exchange) -> web.StreamResponse:
        """Raises RequestInvalid, NameInvalid, ConnectionError."""
        asked = await _body(exchange)
        platforms = [Platform.parse(text) for text in _texts(asked, "platforms")]
        order = Order(_images(asked), platforms, check_set(str(asked.get("set") or "default")))
        async with contextlib.aclosing(self._pinned(order)) as events:
            return await respond.lines(exchange, events)

    async def _pinned(self, order: Order) -> AsyncGenerator[Mapping[str, Any], None]:
        """Breaks off when the service is to stop: what takes hours need not be waited for, it is resumed later."""
        async with contextlib.aclosing(Pinning(self._rooms, order).events()) as events:
            async for each in events:
                yield each
                if self._draining():
                    return

    async def unpin(self, exchange: Exchange) -> web.StreamResponse:
        """Raises NameUnknown with what is pinned, NameInvalid."""
        name = exchange.request.query.get("set", "")
        text = exchange.request.query.get("image", "")
        if not name and not text:
            raise RequestInvalid("name an image or a set to unpin")
        references = {each.name for each in self._spelling.read(text)} if text else None
        within = check_set(name) if name else ""
        gone = await _in_thread(lambda: self._rooms.pins.remove(references, within))
        if not gone:
            raise NameUnknown(await _in_thread(lambda: _not_pinned(self._rooms.pins, text, name)))
        return admin.document(exchange, {"unpinned": [{"set": a, "image": b} for a, b in gone]})

    async def remove(self, exchange: Exchange) -> web.StreamResponse:
        """Raises RequestInvalid, ConnectionError."""
        asked = _images(await _body(exchange))
        async with contextlib.aclosing(self._removed(asked)) as events:
            return await respond.lines(exchange, events)

    async def _removed(self, images: Sequence[str]) -> AsyncGenerator[Mapping[str, Any], None]:
        failed = 0
        for text in images:
            try:
                yield await self._remover.remove([each.name for each in self._spelling.read(text)])
            except (RegistryError, OSError) as error:
                failed += 1
                yield {"image": text, "error": str(error)}
        yield {"done": True, "failed": failed}


async def _in_thread(call: Callable[[], T]) -> T:
    """What blocks. Raises Unavailable with the sentence of what cannot be read or written."""
    try:
        return await asyncio.to_thread(call)
    except OSError as error:
        raise Unavailable(str(error)) from error


def _not_pinned(pins: Pins, image: str, name: str) -> str:
    sets = pins.sets()
    what = f"{image} is not pinned{f' in {name}' if name else ''}" if image else f"there is no set {name}"
    if not sets:
        return f"{what}; nothing is pinned"
    if not image:
        return f"{what}; there are {', '.join(sets)}"
    names = [pin.reference for each, found in sets.items() if name in ("", each) for pin in found]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{what}; pinned are {', '.join(names[:_MOST_NAMED]) or 'none there'}{more}"


async def _body(exchange: Exchange) -> Mapping[str, Any]:
    try:
        document = json.loads(await exchange.request.read())
    except (ValueError, RecursionError, web.HTTPRequestEntityTooLarge) as error:
        raise RequestInvalid(f"what was asked cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise RequestInvalid("what was asked is no JSON object")
    return document


def _texts(asked: Mapping[str, Any], field: str) -> list[str]:
    value = asked.get(field, [])
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise RequestInvalid(f"{field} must be a list of texts")
    return value


def _number(exchange: Exchange, name: str, default: int, most: int) -> int:
    """Raises RequestInvalid."""
    text = exchange.request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 8 and int(text) <= most):
        raise RequestInvalid(f"{name} must be a number from 0 to {most}")
    return int(text) or default


def _images(asked: Mapping[str, Any]) -> list[str]:
    images = _texts(asked, "images")
    if not images:
        raise RequestInvalid("no image was named")
    return list(dict.fromkeys(images))
