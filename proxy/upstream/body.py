"""A response that carries a blob's bytes: whether it is what was asked for, and the bytes as they come."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import aiohttp

from proxy.errors import Unavailable
from proxy.oci.ranges import parse_content_range
from proxy.upstream.causes import explained

Received = Callable[[str, str, int], None]
"""Told of body bytes: kind, host, how many."""


class Body:
    """One response that carries a blob's bytes. Satisfies ports.BlobStream."""

    def __init__(self, response: aiohttp.ClientResponse, offset: int, stall: float, received: Received) -> None:
        """Raises Unavailable when the response is not the bytes from `offset` on, or all of them. `stall` is seconds
        without a byte that end it, once there was one."""
        self._stall = stall
        self._received = received
        self._response = response
        self.host = response.url.host or "?"
        self.start, self.total, self._ends = self._read_head(offset)

    def _read_head(self, offset: int) -> tuple[int, int | None, bool]:
        """Where the bytes start, how many the blob has in all, and whether there are none."""
        response = self._response
        no_web_page(response)
        if response.status == 200:
            return 0, length(response), False
        said = parse_content_range(response.headers.get("Content-Range"))
        if said is not None and response.status == 416 and said.start is None and (said.total or offset) <= offset:
            return offset, said.total, True  # nothing is missing, or there is more here than there should be
        if said is None or response.status != 206 or said.start != offset:
            raise Unavailable(f"{self.host}: answered {response.status} for the wrong range")
        return offset, said.total, False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        if self._ends:
            return
        with explained(self._response.url):
            async with contextlib.aclosing(pieces(self._response.content, self._stall)) as coming:
                async for piece in coming:
                    self._received("blob", self.host, len(piece))
                    yield piece


async def pieces(content: aiohttp.StreamReader, stall: float) -> AsyncGenerator[bytes, None]:
    """A body as it comes. Whoever asked decides how long the first piece may take, a scanning proxy takes 40 s and
    more; after it `stall` seconds without a byte raise TimeoutError."""
    piece = await content.readany()
    while piece:
        yield piece
        async with asyncio.timeout(stall):
            piece = await content.readany()


def no_web_page(response: aiohttp.ClientResponse) -> None:
    """A firewall's block page comes under a 200; registries send blobs as anything but HTML. Raises Unavailable."""
    if response.content_type == "text/html":
        raise Unavailable(f"{response.url.host}: answered a web page where a blob was due", label="body")


def length(response: aiohttp.ClientResponse) -> int | None:
    """Content-Length, where it can be read."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None
