"""One request and what became of it: filled in on the way, read by the metrics and the access line."""

import time
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


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

    @property
    def client(self) -> str:
        """The peer's address."""
        peer = self.request.transport.get_extra_info("peername") if self.request.transport is not None else None
        return peer[0] if isinstance(peer, tuple) and peer else "-"

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
            "error": self.error,
        }
