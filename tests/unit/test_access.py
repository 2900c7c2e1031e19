"""http/access.py: a line is one line of printable text, whatever a client wrote."""

import asyncio
import os

import pytest
from aiohttp.test_utils import make_mocked_request

from proxy.errors import NameInvalid
from proxy.http.access import AccessLog
from proxy.http.exchange import Exchange


def line(form="text", **fields):
    """What is written for one exchange; in a loop that nothing watches, for a pipe with room is written to at once."""

    async def write(log, exchange):
        log.write(exchange)
        log.flush()

    reading, writing = os.pipe()
    try:
        log = AccessLog(form, writing)
        exchange = Exchange(make_mocked_request("GET", "/v2/"))
        for name, value in fields.items():
            setattr(exchange, name, value)
        asyncio.run(write(log, exchange))
        return os.read(reading, 4096)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "bad", ["\x1b[31mRED", "\x07", "\x1b]0;title\x07", "a\nb", "a\rb", "\x9b31m", "\u202e", "\udcff", "\x7f"]
)
@pytest.mark.parametrize("field", ["repo", "reference", "error"])
def test_no_control_character_reaches_whoever_reads(form, bad, field):
    error = NameInvalid(f"{bad} is not a repository name").message
    written = line(form, upstream="up", **{field: error if field == "error" else bad})
    assert written.endswith(b"\n")
    text = written.removesuffix(b"\n").decode("ascii")
    assert text.isprintable()


def test_what_was_written_can_still_be_told():
    assert b" \\x1b[31mRED \\xe4 is no name\n" in line(error="\x1b[31mRED \xe4 is no name")
    assert b" up/a/b v1 " in line(upstream="up", repo="a/b", reference="v1")
