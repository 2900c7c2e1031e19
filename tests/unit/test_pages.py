"""upstream/lists.py: large pages do not hold the loop, hostile ones are one kind of error."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from yarl import URL

from proxy.errors import Unavailable
from proxy.upstream.lists import document, next_link

FROM = SimpleNamespace(url=URL("https://registry.example/v2/a/tags/list"))
PADDING = b" " * (300 << 10)


async def test_a_large_page_is_read_beside_the_loop():
    content = json.dumps({"tags": [f"v{number:012}" for number in range(500_000)]}).encode()
    reading = asyncio.ensure_future(document(FROM, content))
    turns = 0
    while not reading.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 10, "the loop stood still"
    assert reading.result() == json.loads(content)


@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
@pytest.mark.parametrize("content", [b"", b"[]", b"<html>", b"{", b"[" * 100_000, b"\xff", b"null"])
async def test_what_is_no_list(content, padding):
    with pytest.raises(Unavailable, match=r"registry.example: answered something else where a list was due"):
        await document(FROM, padding + content)


@pytest.mark.parametrize("padding", [b"", PADDING], ids=["small", "large"])
async def test_a_list(padding):
    assert await document(FROM, b'{"tags": ["a"]}' + padding) == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("header", "target"),
    [('</v2/a>; rel="next"', "/v2/a"), ("</v2/a>; rel=next", "/v2/a"), ('</v2/a>; rel="prev"', None), (None, None)]
    + [("", None), ("/v2/a", None), ('<>; rel="next"', None)],
)
def test_links(header, target):
    assert next_link(header) == target
