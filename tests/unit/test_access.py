"""http/access.py: a line is one line of printable text, whatever a client wrote."""

import asyncio
import json
import os
import re

import pytest
from aiohttp.test_utils import make_mocked_request

from proxy.errors import NameInvalid
from proxy.http.access import AccessLog
from proxy.http.exchange import Exchange


def line(form="text", headers=None, **fields):
    """What is written for one exchange; in a loop that nothing watches, for a pipe with room is written to at once."""

    async def write(log, exchange):
        log.write(exchange)
        log.flush()

    reading, writing = os.pipe()
    try:
        log = AccessLog(form, writing)
        exchange = Exchange(make_mocked_request("GET", "/v2/", headers=headers))
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


PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"traceparent": PARENT}, "4bf92f3577b34da6a3ce929d0e0e4736"),
        ({"traceparent": PARENT, "X-Request-Id": "mine"}, "4bf92f3577b34da6a3ce929d0e0e4736"),
        ({"traceparent": "00-nonsense", "X-Request-Id": "job/12"}, "job/12"),
        ({"X-Request-Id": "a b"}, None),
        ({"X-Request-Id": "a" * 65}, None),
        ({}, None),
    ],
    ids=["traceparent", "both", "request id", "not printable", "too long", "none"],
)
def test_a_line_is_found_by_the_trace_of_whoever_asked(headers, trace):
    found = json.loads(line("json", headers=headers))["trace"]
    assert re.fullmatch("[0-9a-f]{16}", found) if trace is None else found == trace
    assert f"ms {trace or ''}".encode() in line(headers=headers)
