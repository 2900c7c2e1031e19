"""Pages of a list: what is in one, and where the next one is. No requests here.

How large a list may be is the upstream's to choose, so it is bounded as a whole, and a large page is read beside the
loop: by json's scanner in Python, because the one in C holds the interpreter's lock from the first byte to the last,
and a thread alone would spare the loop nothing.
"""

import asyncio
import json
import json.scanner
from collections.abc import Mapping
from typing import Any

import aiohttp

from proxy.errors import Unavailable
from proxy.upstream.causes import host_of

LIST_LIMIT = 64 << 20
"""Bytes of all pages of one list."""
PAGE_LIMIT = 200
_INLINE = 256 << 10


class _Yielding(json.JSONDecoder):
    """Lets other threads run between two values; half as fast."""

    def __init__(self) -> None:
        super().__init__()
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]


async def document(response: aiohttp.ClientResponse, content: bytes) -> Mapping[str, Any]:
    """The object a page holds. Raises Unavailable."""
    try:
        if len(content) <= _INLINE:
            found = json.loads(content)
        else:
            found = await asyncio.to_thread(json.loads, content, cls=_Yielding)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Unavailable(f"{host_of(response.url)}: answered something else where a list was due")
    return found


def next_link(header: str | None) -> str | None:
    """The target of `Link: <...>; rel="next"`."""
    if not header or not header.startswith("<") or 'rel="next"' not in header.replace("rel=next", 'rel="next"'):
        return None
    return header[1:].partition(">")[0] or None
