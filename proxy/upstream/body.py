"""A response that carries a blob's bytes: whether it is what was asked for, and the bytes as they come."""

from collections.abc import AsyncGenerator, Callable

import aiohttp

from proxy.errors import Unavailable
from proxy.oci.ranges import parse_content_range
from proxy.upstream.egress import explained

Received = Callable[[str, str, int], None]
"""Told of body bytes: kind, host, how many."""


class Body:
    """One response that carries a blob's bytes. Satisfies ports.BlobStream."""

    def __init__(self, response: aiohttp.ClientResponse, offset: int, received: Received) -> None:
        """Raises Unavailable when the response is not the bytes from `offset` on, or all of them."""
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
        if said is not None and response.status == 416 and said.start is None and said.total == offset:
            return offset, offset, True
        if said is None or response.status != 206 or said.start != offset:
            raise Unavailable(f"{self.host}: answered {response.status} for the wrong range")
        return offset, said.total, False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        if self._ends:
            return
        with explained(self._response.url):
            async for chunk in self._response.content.iter_any():
                self._received("blob", self.host, len(chunk))
                yield chunk


def no_web_page(response: aiohttp.ClientResponse) -> None:
    """A firewall's block page comes under a 200; registries send blobs as anything but HTML. Raises Unavailable."""
    if response.content_type == "text/html":
        raise Unavailable(f"{response.url.host}: answered a web page where a blob was due", label="body")


def length(response: aiohttp.ClientResponse) -> int | None:
    """Content-Length, where it can be read."""
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() else None
