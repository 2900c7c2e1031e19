"""HTTP/1.1 as far as the doctor needs it: one request on a connection of its own, the head and the body of its answer.

Not a client for anything else: no keep-alive, no codings. It exists to know which stage of which connection failed.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from proxy.doctor.dial import Line
from proxy.doctor.limits import Budget
from proxy.doctor.report import Problem

_STATUS = re.compile(r"HTTP/1\.[01] ([1-9]\d\d)(?: (.*))?\Z")


@dataclass(frozen=True, slots=True)
class Head:
    """Status and headers, how many seconds they took to come, and when by our clock they came (seconds)."""

    status: int
    reason: str
    headers: CIMultiDictProxy[str]
    seconds: float
    at: float

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def is_page(self) -> bool:
        """Whether it is a web page, which no part of an image is."""
        return self.content_type in ("text/html", "application/xhtml+xml")


async def send(line: Line, method: str, url: URL, headers: Mapping[str, str]) -> None:
    """One request; the connection is for it alone."""
    host = url.raw_host if url.is_default_port() else f"{url.raw_host}:{url.port}"
    host = f"[{url.raw_host}]{'' if url.is_default_port() else f':{url.port}'}" if ":" in (url.raw_host or "") else host
    sent = {"Host": host, "Connection": "close", "Accept-Encoding": "identity", **headers}
    if line.authorization:
        sent["Proxy-Authorization"] = line.authorization
    target = str(url.with_fragment(None)) if line.absolute else url.raw_path_qs
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    line.writer.write("\r\n".join(lines).encode("latin-1"))


async def read_head(line: Line, budget: Budget, step: str, host: str, seconds: float) -> Head:
    """The head of the answer that comes next; `host` is for the message. Raises Problem."""
    started = time.monotonic()
    try:
        async with budget.within(step, seconds):
            text = (await line.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except TimeoutError:
        raise silent(step, host, seconds) from None
    except (OSError, asyncio.IncompleteReadError):
        raise Problem(step, f"{host}: closed the connection without an answer", nodes_see="EOF") from None
    except asyncio.LimitOverrunError:
        raise Problem(step, f"{host}: does not answer in HTTP") from None
    first, *lines = text.rstrip("\r\n").split("\r\n")
    found = _STATUS.match(first)
    if found is None:
        raise Problem(step, f"{host}: does not answer in HTTP")
    pairs = (line.partition(":") for line in lines)
    headers = CIMultiDict((name.strip(), value.strip()) for name, _, value in pairs)
    took = time.monotonic() - started
    return Head(int(found[1]), found[2] or "", CIMultiDictProxy(headers), took, time.time())


def silent(step: str, host: str, seconds: float) -> Problem:
    """Nothing came in time."""
    return Problem(
        step,
        f"{host}: accepted the connection and did not answer within {seconds:g} s",
        nodes_see="net/http: timeout awaiting response headers",
        fix="a firewall that drops what it does not like, or a proxy that scans it all first: ask its team about it",
    )


async def body(line: Line, head: Head) -> AsyncIterator[bytes]:
    """The body as it comes. Raises OSError, ValueError, asyncio.IncompleteReadError when it breaks off."""
    if "chunked" in head.headers.get("Transfer-Encoding", "").lower():
        while size := int((await line.reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            yield await line.reader.readexactly(size)
            await line.reader.readexactly(2)
        return
    length = head.headers.get("Content-Length", "")
    left = int(length) if length.isascii() and length.isdigit() else -1
    while left and (piece := await line.reader.read(min(left, 65536) if left > 0 else 65536)):
        left = left - len(piece) if left > 0 else left
        yield piece
    if left > 0:
        raise asyncio.IncompleteReadError(b"", left)
