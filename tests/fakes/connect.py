"""A forward proxy as companies run them: it tunnels, refuses, asks for a password, looks inside, strips what it likes.

Hand-written over asyncio streams; one connection is one tunnel. Requests it can read (plain http, or https it
intercepts with a certificate of its own) are changed head by head; they are GET and HEAD, so they have no body.
"""

import asyncio
import base64
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Self
from urllib.parse import urlsplit

from tests.fakes.log import Log, Request

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Connect:
    """`async with Connect() as proxy:` listens on a free port of 127.0.0.1; `url` is for HTTPS_PROXY.

    Each may be set at any time: `status` other than 200 answers every request so; `account` ("user:password") wants
    Basic; `offers` are the schemes of a 407; `deny` holds host:port that are answered 403; `intercept` is the context
    its own certificate comes from, for all but the host:port in `spares`, which it does not look into; `strips` are
    header names taken out of requests; `wait` seconds before each answer; `names` maps host:port to where it really
    is, for names nobody can resolve. `log` holds a Request per CONNECT or plain request, its path the host:port asked
    for.
    """

    def __init__(
        self,
        intercept: ssl.SSLContext | None = None,
        names: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`tls`: this proxy itself is spoken to over TLS."""
        self._tls = tls
        self.intercept = intercept
        self.spares: set[str] = set()
        self.names = dict(names or {})
        self.status = 200
        self.account = ""
        self.offers: Sequence[str] = ("Basic realm=proxy",)
        self.deny: set[str] = set()
        self.strips: frozenset[str] = frozenset()
        self.wait = 0.0
        self.date = ""
        self.log = Log()
        self.host = ""
        self.url = ""
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.url = f"{'https' if self._tls else 'http'}://{self.host}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # somebody left, or does not trust us
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._serving.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        where = target if method == "CONNECT" else urlsplit(target).netloc
        status = self._decide(head, where)
        self.log.append(Request(method, where, status=status))
        if status != 200:
            writer.write(self._refusal(status))
            await writer.drain()
            return
        try:
            far = await self._dial(where, tls=method == "CONNECT" and self._looks_into(where))
        except OSError:
            writer.write(self._refusal(502))
            return
        try:
            if method == "CONNECT":
                await self._tunnel((reader, writer), far, self.intercept if self._looks_into(where) else None)
            else:
                path = f"{urlsplit(target).path or '/'}{'?' if '?' in target else ''}{target.partition('?')[2]}"
                far[1].write(self._stripped(head.replace(target.encode(), path.encode(), 1)))
                await self._pump((reader, writer), far, readable=True)
        finally:
            far[1].transport.abort()

    def _decide(self, head: bytes, where: str) -> int:
        if self.status != 200:
            return self.status
        account = base64.b64encode(self.account.encode())
        if self.account and b"proxy-authorization: basic " + account.lower() not in head.lower():
            return 407
        return 403 if where in self.deny else 200

    def _refusal(self, status: int) -> bytes:
        offered = "".join(f"Proxy-Authenticate: {scheme}\r\n" for scheme in self.offers) if status == 407 else ""
        date = f"Date: {self.date}\r\n" if self.date else ""
        phrase = HTTPStatus(status).phrase
        return f"HTTP/1.1 {status} {phrase}\r\n{offered}{date}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()

    async def _dial(self, where: str, tls: bool) -> _Streams:
        host, _, port = self.names.get(where, where).rpartition(":")
        context = None
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return await asyncio.open_connection(host, int(port or 80), ssl=context)

    def _looks_into(self, where: str) -> bool:
        return self.intercept is not None and where not in self.spares

    async def _tunnel(self, near: _Streams, far: _Streams, context: ssl.SSLContext | None) -> None:
        date = f"Date: {self.date}\r\n" if self.date else ""
        near[1].write(f"HTTP/1.1 200 Connection established\r\n{date}\r\n".encode())
        await near[1].drain()
        if context is not None:
            await near[1].start_tls(context)
        await self._pump(near, far, readable=context is not None)

    async def _pump(self, near: _Streams, far: _Streams, readable: bool) -> None:
        """Both directions until one of them ends; requests head by head where they can be read."""
        there = self._heads(near[0], far[1]) if readable else _copy(near[0], far[1])
        tasks = [asyncio.ensure_future(there), asyncio.ensure_future(self._back(far[0], near[1]))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65536)
        if self.intercept is not None:
            await asyncio.sleep(self.wait)
        writer.write(first)
        await _copy(reader, writer)

    async def _heads(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(self._stripped(await reader.readuntil(b"\r\n\r\n")))
            await writer.drain()

    def _stripped(self, head: bytes) -> bytes:
        lines = head.split(b"\r\n")
        return b"\r\n".join(line for line in lines if line.partition(b":")[0].decode().lower() not in self.strips)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
