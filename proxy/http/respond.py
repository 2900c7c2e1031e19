"""Bytes to clients: small bodies, finished files, growing files, lists, errors. Never FileResponse, which replaces a
digest ETag by one of its own and answers 404 and 416 without an OCI body.

A body that cannot be finished is always a transport abort, never a plain return: one byte short on a kept-alive
connection swallows the first byte of the next answer. Bodies from files go through loop.sendfile in runs of resident
pages; where the next one is not resident, 1 MiB is read in a thread first, because sendfile from a cold page blocks
the loop and with it everybody else.
"""

import asyncio
import io
import json
import os
import time
from collections.abc import AsyncIterable, Mapping
from typing import Any

from aiohttp import web

from proxy.errors import BodyBroken, RangeUnsatisfiable, RegistryError, Unauthorized, Unsupported, UploadOutOfOrder
from proxy.http import advice
from proxy.http.exchange import Exchange
from proxy.oci.ranges import Span
from proxy.ports import Filling

PIECE = 1 << 20
RUN = 8 << 20
"""Bytes given to one sendfile where they are in memory: asyncio's part of a call is 60 us, 15 % of a 1 MiB one."""
_SMALL = 64 << 10
_PROBE = 64 << 10
SERVER = "tidegate"


def headers(**more: str) -> dict[str, str]:
    """The headers every answer carries."""
    return {"Server": SERVER, "Docker-Distribution-Api-Version": "registry/2.0", **more}


def document(exchange: Exchange, value: Any, media_type: str, **more: str) -> web.Response:
    """A JSON document made here."""
    return whole(exchange, json.dumps(value).encode(), {**headers(**more), "Content-Type": media_type})


async def lines(exchange: Exchange, documents: AsyncIterable[Mapping[str, Any]]) -> web.StreamResponse:
    """JSON documents one a line, each sent as it comes: how long work reports. Raises ConnectionError when the client
    has gone; the work is the caller's to end then."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Server": SERVER})
    await response.prepare(exchange.request)
    exchange.status = 200
    async for each in documents:
        line = json.dumps(each).encode() + b"\n"
        await response.write(line)
        exchange.sent += len(line)
    await response.write_eof()
    return response


def whole(
    exchange: Exchange, body: bytes, sent: Mapping[str, str], status: int = 200, reason: str | None = None
) -> web.Response:
    """A body that is in memory."""
    exchange.status = status
    if exchange.request.method != "HEAD":
        exchange.sent += len(body)
    return web.Response(body=body, status=status, reason=reason, headers=sent)


def error(exchange: Exchange, problem: RegistryError) -> web.Response:
    """The OCI error body, and its sentence as the reason phrase: the one text a node's event shows."""
    sent = {**headers(), "Content-Type": "application/json", "X-Request-Id": exchange.trace}
    if problem.retry_after is not None:
        sent["Retry-After"] = str(problem.retry_after)
    if isinstance(problem, RangeUnsatisfiable):
        sent["Content-Range"] = f"bytes */{problem.size}"
    if isinstance(problem, Unsupported):
        sent["Allow"] = problem.allow
    if isinstance(problem, UploadOutOfOrder):
        sent["Range"] = f"0-{max(0, problem.size - 1)}"
    if isinstance(problem, Unauthorized):
        sent["WWW-Authenticate"] = problem.challenge
    exchange.error = problem.message
    return whole(
        exchange, problem.body(advice.detail(problem, exchange.upstream)), sent, problem.status, problem.reason()
    )


def unasked(problem: RegistryError) -> bytes:
    """The same as it goes over the wire, for a connection that has brought no request."""
    body = problem.body()
    more = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
    sent = {**headers(**more), "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"HTTP/1.1 {problem.status} {problem.reason()}", *(f"{name}: {value}" for name, value in sent.items())]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body


def not_modified(exchange: Exchange, sent: Mapping[str, str]) -> web.Response:
    """304, RFC 9110 section 15.4.5."""
    exchange.status = 304
    kept = {name: value for name, value in sent.items() if name not in ("Content-Type", "Content-Length")}
    return web.Response(status=304, headers=kept)


async def file(exchange: Exchange, fd: int, span: Span, sent: Mapping[str, str], status: int) -> web.StreamResponse:
    """Bytes of a finished file. Raises ConnectionError when the client has gone."""
    if span.length <= _SMALL and _resident_until(fd, span) == span.stop:
        return whole(exchange, os.pread(fd, span.length, span.start), sent, status)
    async with _Body(exchange, sent, status, span.length) as body:
        at = span.start
        while at < span.stop:
            piece = Span(at, _resident_until(fd, Span(at, min(at + RUN, span.stop))))
            if piece.length == 0:
                piece = Span(at, min(at + PIECE, span.stop))
                await asyncio.get_running_loop().run_in_executor(None, os.pread, fd, piece.length, piece.start)
            await body.sendfile(fd, piece)
            at = piece.stop
    return body.response


async def growing(
    exchange: Exchange, filling: Filling, span: Span, sent: Mapping[str, str], status: int
) -> web.StreamResponse:
    """Bytes of a file that is still being written. Raises BodyBroken, ConnectionError."""
    async with _Body(exchange, sent, status, span.length) as body:
        at = span.start
        while at < span.stop:
            available = min(await filling.wait(at), span.stop, at + RUN)
            if available <= at:
                raise BodyBroken(f"the blob ended at {at} of {span.stop} bytes")
            await body.sendfile(filling.fd, Span(at, available))
            at = available
    return body.response


async def growing_unknown(exchange: Exchange, filling: Filling, sent: Mapping[str, str]) -> web.StreamResponse:
    """A file that is still being written, of unknown size: chunked, the terminator only after the last byte, which is
    there only after the digest matched. To HTTP/1.0 when everything is here. Raises RegistryError, BodyBroken,
    ConnectionError."""
    if exchange.request.version < (1, 1):
        size = await filling.complete()
        return await growing(exchange, filling, Span(0, size), sent, 200)
    async with _Body(exchange, sent, 200, None) as body:
        at = 0
        while (available := await filling.wait(at)) > at:
            data = os.pread(filling.fd, min(PIECE, available - at), at)
            await body.write(data)
            at += len(data)
    return body.response


class _Body:
    """A response whose body is sent by hand, counted as it goes, aborted when it breaks."""

    def __init__(self, exchange: Exchange, sent: Mapping[str, str], status: int, length: int | None) -> None:
        self._exchange = exchange
        self.response = web.StreamResponse(status=status, headers=sent)
        if length is None:
            self.response.enable_chunked_encoding()
        else:
            self.response.content_length = length
        exchange.status = status

    async def __aenter__(self) -> "_Body":
        writer = await self.response.prepare(self._exchange.request)
        assert writer is not None
        writer.send_headers()
        return self

    async def __aexit__(self, kind: object, problem: BaseException | None, trace: object) -> None:
        if problem is not None:
            abort(self._exchange.request)

    async def sendfile(self, fd: int, span: Span) -> None:
        """Counts what was really written, also when it breaks: sendfile leaves its position there.

        Raises ConnectionError, BodyBroken.
        """
        request, exchange = self._exchange.request, self._exchange
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        if transport.get_extra_info("sslcontext") is not None:
            await self._encrypted(fd, span)
            return
        os.lseek(fd, span.start, os.SEEK_SET)
        exchange.first_byte = exchange.first_byte or time.perf_counter()
        with io.FileIO(fd, closefd=False) as source:
            try:
                sent = await asyncio.get_running_loop().sendfile(transport, source, span.start, span.length)
            except RuntimeError as error:
                raise ConnectionResetError("the client has gone") from error
            finally:
                exchange.sent += os.lseek(fd, 0, os.SEEK_CUR) - span.start
        if sent != span.length:
            raise BodyBroken(f"the file ends {span.length - sent} bytes too early")

    async def _encrypted(self, fd: int, span: Span) -> None:
        """Under TLS the kernel cannot send files, and asyncio's own way takes them in small pieces: 200 MiB in 3.7 to
        5 s, this in 0.7 to 1.3, on a busy machine of two cores. Raises ConnectionError, BodyBroken."""
        for at in range(span.start, span.stop, PIECE):
            length = min(PIECE, span.stop - at)
            data = await asyncio.get_running_loop().run_in_executor(None, os.pread, fd, length, at)
            await self.write(data)
            if len(data) != length:
                raise BodyBroken(f"the file ends {span.stop - at - len(data)} bytes too early")

    async def write(self, data: bytes) -> None:
        """Raises ConnectionError."""
        self._exchange.first_byte = self._exchange.first_byte or time.perf_counter()
        await self.response.write(data)
        self._exchange.sent += len(data)


def abort(request: web.BaseRequest) -> None:
    """End the connection so that nobody can take the body for a whole one."""
    if request.transport is not None:
        request.transport.abort()
    request.protocol.force_close()


def _resident_until(fd: int, span: Span) -> int:
    """How far the pages of a span are in memory, by a byte of every 64 KiB: 16 probes a MiB cost 15 us, a copy 80."""
    probe = [bytearray(1)]
    for at in range(span.start, span.stop, _PROBE):
        try:
            os.preadv(fd, probe, at, os.RWF_NOWAIT)
        except BlockingIOError:
            return at
        except OSError:
            return span.stop  # a file system that cannot tell
    return span.stop
