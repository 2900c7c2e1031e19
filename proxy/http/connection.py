"""One client's connection, and when it is ended although the client has not: what aiohttp leaves open.

Who may hold what for how long: a head has to be complete within a time and a size, a body and an answer have to go
on. Nothing here knows a registry, nor what is asked. Progress is asked of the kernel (bytes acknowledged, bytes still
queued), because sendfile tells nothing until it ends; so one rule holds for every way bytes are sent, TLS included.

A sendfile that waits is only woken by its socket: `cut` shuts that down. Aborting the transport there would close the
descriptor under the selector and leave the handler waiting for ever.
"""

import asyncio
import contextlib
import math
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from proxy import metrics
from proxy.errors import HeadTooLarge, RegistryError, RequestInvalid, TimedOut
from proxy.http import respond
from proxy.http.exchange import Exchange

LINGER = 2.0
"""Seconds in which what a client still sends is thrown away, so that it hears its answer: closing with bytes unread
makes the kernel take the answer back."""
LEAST = 1 << 10
"""Bytes that count as going on, within a whole `body_timeout` or `write_timeout`."""
_FRAMING = 1 << 20, 8
"""What chunk sizes, their extensions and trailers may weigh: so many bytes, and so many times the body."""
_A_HEADER = 512
"""Bytes of the head's limit for each header: a parsed one weighs that much however short it is."""
_FEWEST = 128
_TOO_MANY = "Too many headers"
"""How aiohttp's complaint begins, which has no class of its own."""
_INSTEAD = "send less, or raise server.max_header_size"
_INFO = struct.Struct("=24xI92xQ16xI")
"""struct tcp_info as far as Linux 4.6 has it: tcpi_unacked (packets), tcpi_bytes_acked, tcpi_notsent_bytes."""
_GONE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """`connections` of this worker; `idle`, `header`, `body`, `write` in seconds; `head` in bytes. The defaults are the
    admin socket's: whoever may use that may hold it."""

    connections: int = sys.maxsize
    idle: float = 75.0
    header: float = math.inf
    body: float = math.inf
    write: float = math.inf
    head: int = 64 << 10

    @property
    def headers(self) -> int:
        """How many a request may have."""
        return max(_FEWEST, self.head // _A_HEADER)


class Connection(RequestHandler):
    """Whatever cannot be gone on with gets an OCI error where an answer is still possible."""

    __slots__ = ("_full", "_head_since", "_limits", "_moved", "_payload", "_wire", "cut_for")

    def __init__(self, manager: web.Server, limits: Limits, full: RegistryError | None, **more: Any) -> None:
        """`full`: what this one is answered instead of being listened to."""
        more |= {"max_line_size": limits.head, "max_field_size": limits.head, "max_headers": limits.headers}
        super().__init__(manager, keepalive_timeout=limits.idle, **more)
        # Nobody pipelines, and 32 requests in advance are 32 heads in memory.
        self._max_msg_queue_size, self._msg_queue_resume_size = 2, 1
        self._limits = limits
        self._full = full
        self._payload: StreamReader = EMPTY_PAYLOAD
        self._wire = 0
        self._head_since = 0.0
        self._moved: tuple[str, int, float] = "", 0, 0.0
        self.cut_for = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to listen, or says at once that it cannot."""
        super().connection_made(transport)
        if self._full is not None:
            self.refuse(self._full, "full")

    @property
    def waits(self) -> bool:
        """Nothing is being answered: the next request has not come, or not whole."""
        return self._waiter is not None and not self._waiter.done() and not self._force_close

    @property
    def refused(self) -> bool:
        """This one was told to go and is only being let go."""
        return self._full is not None

    @property
    def waiting_since(self) -> float:
        """The loop's time of the last answer's end, or of connecting."""
        return self._next_keepalive_close_time - self._limits.idle

    def data_received(self, data: bytes) -> None:
        """Counts what has come since a request began, of its head or around its body."""
        if self._force_close or self._close:
            return
        between, count = self._payload.is_eof(), self._request_count
        super().data_received(data)
        if self._request_count != count and self._messages:
            if self._wire + len(data) > self._limits.head:
                self._weigh()
            self._payload, self._wire, self._head_since = self._messages[-1][1], 0, 0.0
        elif between:
            self._wire += len(data)
            self._head_since = self._head_since or self._loop.time()
            if self._wire > self._limits.head:
                self._head_too_large()
        elif self._payload.is_eof():
            self._wire = 0
        else:
            self._wire += len(data)
            if self._wire > _FRAMING[0] + _FRAMING[1] * self._payload.total_bytes:
                self.cut("the body is all framing", "size")

    def _weigh(self) -> None:
        """A head that came at once was never counted while it was on its way."""
        for at, (message, payload) in enumerate(self._messages):
            if isinstance(message, RawRequestMessage) and _size(message) > self._limits.head:
                self._messages[at] = _ErrInfo(status=431, exc=self._too_long(), message=""), payload

    def _too_long(self) -> HeadTooLarge:
        return HeadTooLarge(f"the request's head is longer than {self._limits.head} bytes: {_INSTEAD}")

    def _head_too_large(self) -> None:
        if self.waits:
            self.refuse(self._too_long(), "size")
        else:
            metrics.ENDED.labels("size").inc()
            self.close()  # it would be the next request, behind the answer that is under way

    def check(self, now: float) -> None:
        """To be called now and then: ends what does not go on."""
        if not self.waits:
            self._check_progress(now)
        elif self._head_since and now - max(self._head_since, self.waiting_since) > self._limits.header:
            self.refuse(TimedOut(f"no whole request within {self._limits.header:g} s"), "header")

    def _check_progress(self, now: float) -> None:
        way, done = self._progress()
        before, count, since = self._moved
        if not way or way != before or done - count >= LEAST:
            self._moved = way, done, now
        elif way == "body" and now - since > self._limits.body:
            metrics.ENDED.labels("body").inc()
            self._payload.set_exception(TimedOut(f"nothing more of the body within {self._limits.body:g} s"))
        elif way == "write" and now - since > self._limits.write:
            self.cut(f"the client took nothing for {self._limits.write:g} s", "write")

    def _progress(self) -> tuple[str, int]:
        """What the client is waited for, and how far it is; "" where it is not the one who is waited for."""
        if not self._payload.is_eof() and self._payload._waiter is not None:
            return "body", self._payload.total_bytes
        link = self.transport.get_extra_info("socket") if self.transport is not None else None
        if link is None or link.family == socket.AF_UNIX or link.fileno() < 0:
            return "", 0
        with contextlib.suppress(OSError, struct.error):  # an older kernel gives less
            info = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            unacked, acked, unsent = _INFO.unpack(info)
            if unacked or unsent:
                return "write", acked
        return "", 0

    def make_room(self) -> None:
        """Ends a connection that waits for its next request, as if it had been idle for too long."""
        metrics.ENDED.labels("idle").inc()
        self.force_close()

    def refuse(self, problem: RegistryError, reason: str) -> None:
        """Answer without a request, and go. `reason` is the metric's."""
        if not self._close:  # else what ended it has been counted
            metrics.ENDED.labels(reason).inc()
        transport = self.transport
        self.close()
        if transport is None or transport.is_closing():
            return
        transport.write(respond.unasked(problem))
        if transport.can_write_eof():
            transport.write_eof()
            self._loop.call_later(LINGER, transport.abort)
        else:
            transport.close()

    def cut(self, why: str, reason: str) -> None:
        """End it now: an answer that has begun cannot become a refusal. `reason` is the metric's."""
        metrics.ENDED.labels(reason).inc()
        self.cut_for = why
        self.close()
        link = self.transport.get_extra_info("socket") if self.transport is not None else None
        if link is not None:
            with contextlib.suppress(OSError):
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _GONE)
                link.shutdown(socket.SHUT_RDWR)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """An unreadable request gets an OCI error body too. Raises ConnectionError when an answer has begun, and
        CancelledError when the connection is only being let go: the rest of a large head is on its way."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        problem = self._unreadable(status, exc)
        if isinstance(problem, HeadTooLarge):
            self.refuse(problem, "size")
            self.transport = None  # aiohttp would close it at once, and the kernel take the answer back
            raise asyncio.CancelledError
        answer = respond.error(Exchange(request), problem)
        answer.force_close()
        return answer

    def _unreadable(self, status: int, exc: BaseException | None) -> RegistryError:
        match exc:
            case HeadTooLarge():
                return exc
            case LineTooLong():
                return HeadTooLarge(
                    f"a line of the request's head is longer than {self._limits.head} bytes: {_INSTEAD}"
                )
            case BadHttpMessage() if exc.message.startswith(_TOO_MANY):
                most = f"more than {self._limits.headers} headers"
                return HeadTooLarge(f"the request has {most}: {_INSTEAD}, which allows one for every {_A_HEADER} bytes")
            case _ if status >= 500:
                return RegistryError("an internal error; the log of tidegate says more")
        return RequestInvalid("the request cannot be read: it is malformed")


def _size(message: RawRequestMessage) -> int:
    """A head's bytes, as short as it can be written."""
    first = len(message.method) + len(message.path) + len("  HTTP/1.1\r\n\r\n")
    return first + sum(len(name) + len(value) + len(":\r\n") for name, value in message.raw_headers)
