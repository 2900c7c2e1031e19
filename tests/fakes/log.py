"""What a fake was asked: one Request a line, in order of arrival. Tests count these instead of trusting metrics.

The list is only ever appended to, so a test thread may read it while a server thread writes.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Request:
    """One request as it arrived; `path` and `query` keep their escapes, header names are lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 0  # 0: nothing was answered
    sent: int = 0  # body bytes handed to the kernel so far
    at: float = field(default_factory=time.monotonic)

    @property
    def target(self) -> str:
        """Path and query as they stood in the request line."""
        return f"{self.path}?{self.query}" if self.query else self.path

    def matches(self, method: str | None, contains: str | None) -> bool:
        return method in (None, self.method) and (contains is None or contains in self.target)


class Log(list[Request]):
    """All requests of one server since its start or the last clear()."""

    def select(self, method: str | None = None, contains: str | None = None) -> list[Request]:
        return [request for request in list(self) if request.matches(method, contains)]

    def count(self, method: str | None = None, contains: str | None = None) -> int:  # type: ignore[override]
        """How many requests had this method and this text in path or query."""
        return len(self.select(method, contains))

    def sent(self, contains: str | None = None) -> int:
        """Body bytes of all answers to requests with this text in path or query."""
        return sum(request.sent for request in self.select(contains=contains))
