"""One line per request, on standard output: client, kind, upstream, repository, reference, result, status, bytes, ms,
and the trace it belongs to.

Lines are collected and written together every 200 ms or 64 KiB; a logging call per request costs 15-20 us, a tenth
of a whole manifest hit. No header and no query is in a line, so no token is.
"""

import asyncio
import contextlib
import json
import os
import select
import time

from proxy.http.exchange import Exchange

_EVERY = 0.2
_LIMIT = 64 << 10


class AccessLog:
    """Writes to a descriptor; `form` is text or json."""

    def __init__(self, form: str, fd: int = 1) -> None:
        self._json = form == "json"
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._lines: list[str] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._second = 0
        self._stamp = ""

    def write(self, exchange: Exchange) -> None:
        """Take a line for this exchange."""
        line = self._line(exchange)
        self._lines.append(line)
        self._size += len(line)
        if self._size >= _LIMIT:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_EVERY, self.flush)

    def flush(self) -> None:
        """Write what there is. A log that cannot be written stops no request."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._size = self._lines, [], 0
        batch = ""
        for line in (*lines, ""):
            if batch and (not line or len(batch) + len(line) > select.PIPE_BUF):
                self._put(batch)
                batch = ""
            batch += line

    def _put(self, text: str) -> None:
        """At most PIPE_BUF bytes at once, which the kernel does not mix with other workers' and which fit into a pipe
        that says it is writable: a reader that stops reading costs lines, never a stopped loop."""
        with contextlib.suppress(OSError):
            if self._poll.poll(0):
                os.write(self._fd, text.encode("ascii", errors="backslashreplace"))

    def _line(self, exchange: Exchange) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
        if self._json:
            return json.dumps({"time": self._stamp, **exchange.row()}) + "\n"
        e = exchange
        ms = (time.perf_counter() - e.started) * 1000
        name = f"{e.upstream}/{e.repo}" if e.repo else "-"
        reference = e.reference[:19] if ":" in e.reference else e.reference
        line = (
            f"{self._stamp} {e.client} {e.request.method} {e.kind} {name} {reference or '-'} {e.result or '-'} "
            f"{e.status} {e.sent} {ms:.1f}ms {e.trace}{f' by {e.alias}' if e.alias else ''}"
        )
        return _plain(f"{line} {e.error}" if e.error else line) + "\n"


def _plain(line: str) -> str:
    """What a client wrote is in the line: its control characters would reach the terminal of whoever reads it."""
    if line.isascii() and line.isprintable():
        return line
    return line.encode("unicode_escape").decode("ascii")
