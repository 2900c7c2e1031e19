"""Byte ranges: the one kind of Range a registry honours, and Content-Range as an upstream sends it.

RFC 9110 section 14. Several ranges, an unknown unit or a malformed header mean "no range": the whole body is right.
"""

import re
from dataclasses import dataclass

from proxy.errors import RangeUnsatisfiable

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})\Z", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes start <= i < stop of a body."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Wanted:
    """A Range header as asked: `last` is inclusive; `first` None means the last `last` bytes."""

    first: int | None
    last: int | None

    def within(self, size: int) -> Span:
        """The span of a body of `size` bytes; raises RangeUnsatisfiable."""
        if self.first is None:
            start, stop = max(0, size - (self.last or 0)), size
        else:
            start, stop = self.first, size if self.last is None else min(self.last + 1, size)
        if start >= stop:
            raise RangeUnsatisfiable(f"the range lies outside the {size} bytes there are", size)
        return Span(start, stop)


@dataclass(frozen=True, slots=True)
class ContentRange:
    """What an upstream says a 206 or 416 holds; None where it says `*`."""

    start: int | None
    stop: int | None
    total: int | None


def parse_range(header: str | None) -> Wanted | None:
    """The one range asked for, or None when the whole body is the right answer."""
    match = _RANGE.match(header.strip()) if header else None
    if match is None:
        return None
    first, last = (int(g) if g else None for g in match.groups())
    if (first is None and last is None) or (first is not None and last is not None and last < first):
        return None
    return Wanted(first, last)


def parse_content_range(header: str | None) -> ContentRange | None:
    """None when absent or malformed."""
    match = _CONTENT_RANGE.match(header.strip()) if header else None
    if match is None:
        return None
    first, last, total = match.groups()
    size = None if total == "*" else int(total)
    if first is None:
        return ContentRange(None, None, size)
    start, stop = int(first), int(last) + 1
    sane = start < stop and (size is None or stop <= size)
    return ContentRange(start, stop, size) if sane else None
