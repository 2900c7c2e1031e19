"""What can go wrong with an answer: one frozen value a fault, and the answer it bends before it is sent.

A fault changes the Answer and nothing else; the origin sends whatever the Answer says, however wrong. That keeps every
combination possible: Fault values of one rule are applied in the order given.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(slots=True)
class Answer:
    """An answer about to be sent. `start` and `total` are set for blobs, where a range may be a part of the whole."""

    status: int
    body: bytes | memoryview = b""
    headers: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    start: int = 0
    total: int = 0
    length: int | None = None  # what Content-Length says; None: the truth
    framing: Literal["length", "chunked", "close"] = "length"
    wait: float = 0.0  # seconds before the status line
    silent: bool = False
    hang_up: bool = False
    cut: int | None = None  # close after so many body bytes
    stall: int | None = None  # stop sending after so many body bytes, connection open
    piece: int = 256 << 10
    pause: float = 0.0  # seconds between two pieces


@dataclass(frozen=True, slots=True)
class Fault:
    """The base: bends nothing, keeps the Range."""

    keeps_range = True

    def bend(self, answer: Answer) -> None:
        """Change `answer` in place."""


@dataclass(frozen=True, slots=True)
class Cut(Fault):
    """Close the connection after `after` body bytes of this answer."""

    after: int

    def bend(self, answer: Answer) -> None:
        answer.cut = self.after


@dataclass(frozen=True, slots=True)
class Stall(Fault):
    """Send nothing more after `after` body bytes, and keep the connection open."""

    after: int

    def bend(self, answer: Answer) -> None:
        answer.stall = self.after


@dataclass(frozen=True, slots=True)
class Drip(Fault):
    """`piece` bytes, then `delay` seconds, and so on."""

    piece: int
    delay: float

    def bend(self, answer: Answer) -> None:
        answer.piece, answer.pause = self.piece, self.delay


@dataclass(frozen=True, slots=True)
class WrongLength(Fault):
    """Content-Length is wrong by `delta`; the connection closes after the body, so a positive one looks like a cut."""

    delta: int

    def bend(self, answer: Answer) -> None:
        answer.length = len(answer.body) + self.delta
        answer.cut = len(answer.body)


@dataclass(frozen=True, slots=True)
class Flip(Fault):
    """One wrong byte, `at` counted from the start of the whole blob."""

    at: int

    def bend(self, answer: Answer) -> None:
        place = self.at - answer.start
        if 0 <= place < len(answer.body):
            changed = bytearray(answer.body)
            changed[place] ^= 0xFF
            answer.body = bytes(changed)


@dataclass(frozen=True, slots=True)
class IgnoreRange(Fault):
    """200 and the whole blob, whatever range was asked."""

    keeps_range = False


@dataclass(frozen=True, slots=True)
class WrongRangeStart(Fault):
    """A 206 that says it starts `shift` bytes later than asked, while its bytes start where asked."""

    shift: int = 1

    def bend(self, answer: Answer) -> None:
        _claim_range(answer, answer.start + self.shift, answer.total)


@dataclass(frozen=True, slots=True)
class WrongRangeTotal(Fault):
    """A 206 whose total is wrong by `delta`."""

    delta: int = 1

    def bend(self, answer: Answer) -> None:
        _claim_range(answer, answer.start, answer.total + self.delta)


def _claim_range(answer: Answer, start: int, total: int) -> None:
    if answer.status == 206:
        answer.headers["Content-Range"] = f"bytes {start}-{start + len(answer.body) - 1}/{total}"


@dataclass(frozen=True, slots=True)
class GzipRange(Fault):
    """A 206 with a content coding, as a meddling middlebox makes it."""

    def bend(self, answer: Answer) -> None:
        if answer.status == 206:
            answer.headers["Content-Encoding"] = "gzip"
            answer.body = gzip.compress(answer.body, 1)


@dataclass(frozen=True, slots=True)
class Status(Fault):
    """Another answer altogether; with a 3xx code and a Location header, a redirect."""

    code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def bend(self, answer: Answer) -> None:
        answer.status, answer.headers, answer.body = self.code, dict(self.headers), self.body


@dataclass(frozen=True, slots=True)
class Silence(Fault):
    """Takes the request and never answers."""

    def bend(self, answer: Answer) -> None:
        answer.silent = True


@dataclass(frozen=True, slots=True)
class Hangup(Fault):
    """Takes the request and closes the connection without a byte."""

    def bend(self, answer: Answer) -> None:
        answer.hang_up = True


@dataclass(frozen=True, slots=True)
class NoLength(Fault):
    """Chunked, so nobody knows the size before the end."""

    def bend(self, answer: Answer) -> None:
        answer.framing = "chunked"


@dataclass(frozen=True, slots=True)
class CloseDelimited(Fault):
    """Neither length nor chunks: the body ends when the connection closes."""

    def bend(self, answer: Answer) -> None:
        answer.framing = "close"


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """The right answer, `seconds` late."""

    seconds: float

    def bend(self, answer: Answer) -> None:
        answer.wait = self.seconds


@dataclass(frozen=True, slots=True)
class Html(Fault):
    """A firewall's block page under a 200."""

    def bend(self, answer: Answer) -> None:
        answer.status = 200
        answer.headers = {"Content-Type": "text/html"}
        answer.body = b"<html><title>Blocked</title>This site is blocked by policy.</html>"
