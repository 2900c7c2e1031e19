"""What `ls`, `pin` and `rm` say. Pure but for `Progress`, which writes to the stream it is given and nothing else."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self, TextIO

from proxy.config import format_size

_WIDTH = 24
_QUIET = 5.0
"""Seconds between two lines of progress where nobody watches a bar."""


def chosen(rows: Sequence[Any], *, pinned: bool, name: str, incomplete: bool) -> list[Any]:
    """The rows that were asked for."""
    return [
        row
        for row in rows
        if (row["pinned"] or not pinned)
        and (not name or name in row["pinned"])
        and not (incomplete and row["complete"])
    ]


def ordered(rows: Sequence[Any], order: str | None) -> list[Any]:
    """Largest first, longest unused first, or latest used first; by name where nothing is said."""
    match order:
        case "size":
            return sorted(rows, key=lambda row: -row["size"])
        case "age":
            return sorted(rows, key=lambda row: row["used"])
        case "used":
            return sorted(rows, key=lambda row: -row["used"])
        case _:
            return list(rows)


def table(rows: Sequence[Any]) -> str:
    """One line an image."""
    if not rows:
        return "no image"
    return _columns([("REPOSITORY", "REFERENCE", "SIZE", "USED", "COMPLETE", "PINNED"), *map(_cells, rows)])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    reference = row["reference"][:19] if ":" in row["reference"] else row["reference"]
    pinned = ",".join(row["pinned"]) or "-"
    return row["repository"], reference, format_size(row["size"]), _day(row["used"]), _complete(row), pinned


def _complete(row: Mapping[str, Any]) -> str:
    if not row["complete"]:
        return f"no, {row['missing']} missing"
    some = row["platforms_here"] < row["platforms"]
    return f"{row['platforms_here']} of {row['platforms']} platforms" if some else "yes"


def parts(row: Mapping[str, Any]) -> str:
    """One image: what it is, then its parts."""
    between = "@" if ":" in row["reference"] else ":"
    head = f"{row['repository']}{between}{row['reference']}   {_complete(row)}   {format_size(row['size'])}"
    pinned = f"   pinned in {', '.join(row['pinned'])}" if row["pinned"] else ""
    lines = [("DIGEST", "MEDIA TYPE", "PLATFORM", "SIZE", "")]
    lines += [
        (part["digest"], part["media_type"], part["platform"] or "-", format_size(part["size"]), _here(part))
        for part in row["parts"]
    ]
    return f"{head}{pinned}\n{_columns(lines)}"


def _here(part: Mapping[str, Any]) -> str:
    return "here" if part["here"] else "missing"


def _columns(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds)) if seconds else "-"


def removed(row: Mapping[str, Any]) -> str:
    """What became of one image."""
    if "error" in row:
        return str(row["error"])
    words = [f"{row['image']}: removed {row['removed']} blobs, {format_size(row['bytes'])}"]
    words += [f"{row['kept']} kept for other images"] if row["kept"] else []
    words += [f"{len(row['reading'])} being read now and left for eviction"] if row["reading"] else []
    return ", ".join(words)


def pinned(end: Mapping[str, Any]) -> str:
    """How a pin ended: each image, then what is missing and why."""
    if end["refused"]:
        return ""
    lines = [f"{row['image']}  {_pinned(row)}  {row['digest']}" for row in end["images"]]
    lines += [f"missing  {_name(row)}: {row['error']}" for row in end["missing"]]
    if end["missing"] and end["images"]:
        lines.append(f"what is here stays, pinned in {end['set']}; the same command again goes on from there")
    return "\n".join(lines)


def _pinned(row: Mapping[str, Any]) -> str:
    return f"{row['parts']} parts, {format_size(row['size'])}, {'all here' if row['here'] else 'INCOMPLETE'}"


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['image']} {row['digest']}".rstrip()


def _columns_of(out: TextIO) -> int:
    """How wide the terminal is; some say 0."""
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except OSError:
        return 80


class Progress:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self, out: TextIO, *, quiet: bool) -> None:
        self._out = out
        self._bar = out.isatty() and not quiet
        self._quiet = quiet
        self._said = time.monotonic()
        self._image = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def take(self, news: Mapping[str, Any]) -> None:
        """One document of the service."""
        if self._quiet or "done" in news:
            return
        if "parts" in news:
            self._line(f"{news['image']}  {news['parts']} parts, {format_size(news['size'])}")
        elif "image" in news:
            self._image = news["image"]
        elif "total" in news:
            self._total(news["total"])

    def _total(self, total: Mapping[str, Any]) -> None:
        share = total["bytes"] / total["size"] if total["size"] else 0.0
        amount = f"{format_size(total['bytes'])} of {format_size(total['size'])}"
        words = f"{amount}  {total['here']} of {total['parts']} parts"
        if self._bar:
            full = "#" * int(share * _WIDTH)
            line = f"[{full:-<{_WIDTH}}] {words}  {self._image}"
            self._out.write(f"\r\x1b[K{line[: _columns_of(self._out) - 1]}")
            self._out.flush()
        elif time.monotonic() - self._said >= _QUIET and total["parts"]:
            self._line(words)

    def _line(self, words: str) -> None:
        self._said = time.monotonic()
        self._out.write(f"\r\x1b[K{words}\n" if self._bar else f"{words}\n")
        self._out.flush()
