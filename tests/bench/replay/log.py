"""A trace out of our own access log, text or JSON (proxy/http/access.py writes both).

What a log does not know is put this way: an object's size is the most bytes one answer for it carried, so one that was
only ever cut or asked in ranges counts less; ranges a client asks of one object within a minute are one request; a
digest is known by its first 12 digits; a manifest asked by its tag has no digest in the log and is an object by that
name. HEAD is no request for bytes, and what failed or was not found is left out.
"""

import json
from calendar import timegm
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from time import strptime
from typing import Any

from tests.bench.replay.trace import Request, Trace, blocks

_KINDS = frozenset({"blob", "manifest", "tag"})
_ONE_PULL = 60.0
_COLUMNS = ("time", "client", "method", "kind", "name", "reference", "result", "status", "bytes")


@dataclass(frozen=True, slots=True)
class Line:
    """What a trace needs of a line: one answer with content."""

    time: float
    client: str
    key: str
    bytes: int
    part: bool
    manifest: bool


def convert(origin: str, lines: Iterable[str]) -> Trace:
    """The trace of a log; lines of anything else (the program's own messages) are passed over."""
    whole = list(_pulls(line for each in lines if (line := parse(each)) is not None))
    sizes: dict[str, int] = {}
    for line in whole:
        sizes[line.key] = max(sizes.get(line.key, 1), line.bytes)
    requests = [Request(line.time, line.key, blocks(sizes[line.key]), line.manifest) for line in whole]
    return Trace(origin, sorted(requests, key=lambda each: each.time))


def parse(line: str) -> Line | None:
    """One line of the log, in either format; None for one that is no answer with content."""
    try:
        row = _row(line)
        if row["method"] != "GET" or row["kind"] not in _KINDS or int(row["status"]) not in (200, 206):
            return None
        reference = str(row["reference"])
        key = reference if ":" in reference else f"{row['name']}:{reference}"
        time = float(timegm(strptime(row["time"], "%Y-%m-%dT%H:%M:%SZ")))
        return Line(time, row["client"], key, int(row["bytes"]), int(row["status"]) == 206, row["kind"] != "blob")
    except (ValueError, KeyError, TypeError):
        return None


def _row(line: str) -> dict[str, Any]:
    if line.startswith("{"):
        row: dict[str, Any] = json.loads(line)
        return row | {"name": f"{row['upstream']}/{row['repository']}"}
    return dict(zip(_COLUMNS, line.split(" "), strict=False))


def _pulls(lines: Iterable[Line]) -> Iterator[Line]:
    """The same, a client's ranges of one object put together: at the time of the first, with the bytes of all."""
    open_ranges: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if not line.part:
            yield line
            continue
        parts = open_ranges.setdefault((line.client, line.key), [])
        if parts and line.time - parts[-1].time >= _ONE_PULL:
            yield _joined(parts)
            parts.clear()
        parts.append(line)
    yield from (_joined(parts) for parts in open_ranges.values())


def _joined(parts: list[Line]) -> Line:
    first = parts[0]
    total = sum(part.bytes for part in parts)
    return Line(first.time, first.client, first.key, total, True, first.manifest)
