"""One request and what became of it: filled in on the way, read by the metrics and the access line."""

import random
import re
import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,64}")


@dataclass(slots=True)
class Exchange:
    """`sent` counts body bytes really written; `first_byte` is the clock's value when the first one was."""

    request: web.BaseRequest
    kind: str = "other"
    upstream: str = ""
    repo: str = ""
    reference: str = ""
    result: str = ""
    alias: str = ""
    status: int = 0
    sent: int = 0
    error: str = ""
    started: float = field(default_factory=time.perf_counter)
    first_byte: float = 0.0
    _trace: str = ""

    @property
    def trace(self) -> str:
        """What ties this request's lines together, here and at whoever sent it: the trace id of `traceparent` (W3C
        Trace Context, section 3.2), else `X-Request-Id`, else a number of our own."""
        if not self._trace:
            given = self.request.headers
            if found := _TRACEPARENT.match(given.get("traceparent", "")):
                self._trace = found[1]
            elif found := _REQUEST_ID.fullmatch(given.get("X-Request-Id", "")):
                self._trace = found[0]
            else:
                self._trace = f"{random.getrandbits(64):016x}"
        return self._trace

    @property
    def client(self) -> str:
        """The peer's address, also when the connection has gone."""
        return self.request.remote or "-"

    def row(self) -> dict[str, Any]:
        """What the access line says, as fields."""
        return {
            "client": self.client,
            "method": self.request.method,
            "kind": self.kind,
            "upstream": self.upstream,
            "repository": self.repo,
            "reference": self.reference[:19] if self.reference.startswith("sha") else self.reference,
            "alias": self.alias,
            "result": self.result,
            "status": self.status,
            "bytes": self.sent,
            "ms": round((time.perf_counter() - self.started) * 1000, 1),
            "trace": self.trace,
            "error": self.error,
        }
