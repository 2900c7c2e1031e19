"""Settings that are amounts: durations, sizes, shares of a file system, bytes a second; read, and written as they are
read.

Readers as in values.py: each raises ValueError whose text continues "<key> ...".
"""

import math
import re

from proxy.config.settings import Share
from proxy.config.values import unlike

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+\Z")
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|KiB|MiB|GiB|TiB)\Z")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%\Z")
_SLOWEST = 1 << 20
_LEAST_HEAD, _MOST_HEAD = 8 << 10, 1 << 20


def duration(value: object) -> float:
    """ "1h30m" -> seconds."""
    if not isinstance(value, str) or not _DURATION.match(value):
        raise unlike('a duration such as "30s", "5m" or "1h"', value)
    return sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(value))


def positive(value: object) -> float:
    """A duration above zero: a timeout of zero would fail everything."""
    seconds = duration(value)
    if seconds <= 0:
        raise unlike("longer than zero", value)
    return seconds


def lasting(value: object) -> float:
    """A duration, or "forever"."""
    if value == "forever":
        return math.inf
    try:
        return duration(value)
    except ValueError:
        raise unlike('a duration such as "1h", or "forever"', value) from None


def size(value: object) -> int:
    """ "50GiB" -> bytes."""
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise unlike('a size such as "512MiB" or "50GiB"', value)
    return int(float(match[1]) * _SIZES[match[2]])


def share(value: object) -> Share:
    """ "50GiB", or "80%" of the file system."""
    if isinstance(value, str) and (match := _PERCENT.match(value)) and 0 <= float(match[1]) <= 100:
        return Share(0, float(match[1]) / 100)
    try:
        return Share(size(value), 0.0)
    except ValueError:
        raise unlike('a size such as "50GiB", or a share of the file system such as "80%"', value) from None


def limit(value: object) -> Share:
    """The same, or "" for no limit."""
    return Share(0, 0.0) if value == "" else share(value)


def bandwidth(value: object) -> int:
    """Bytes a second, "" for no limit. Slower than 1 MiB a second, the pieces of 16 downloads would take longer than a
    stall may."""
    if value == "":
        return 0
    found = size(value)
    if found < _SLOWEST:
        raise unlike('a size for each second such as "50MiB", at least "1MiB"', value)
    return found


def header_size(value: object) -> int:
    """Bytes of a request's head. Registries' tokens alone reach 8 KiB; what is allowed, anybody may fill."""
    found = size(value)
    if not _LEAST_HEAD <= found <= _MOST_HEAD:
        raise ValueError(f'must be from "8KiB" to "1MiB", not {show_size(found)}')
    return found


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration that `lasting` reads back."""
    if math.isinf(seconds):
        return "forever"
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def format_size(count: float) -> str:
    """Bytes for people: 512 B, 1.5 MiB, 38 GiB."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(count) >= 1024 and len(units) > 1:
        count /= 1024
        del units[0]
    return f"{count:.0f} {units[0]}" if count >= 10 or count == int(count) else f"{count:.1f} {units[0]}"


def show_size(count: int) -> str:
    """Bytes as a setting is written, so that the same number is read back; "" for none."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count and count % _SIZES[unit] == 0:
            return f'"{count // _SIZES[unit]}{unit}"'
    return f'"{count}B"' if count else '""'


def show_share(value: Share) -> str:
    """As a setting is written."""
    return f'"{value.fraction * 100:g}%"' if value.fraction else show_size(value.bytes) if value.bytes else '"0B"'


def show_limit(value: Share) -> str:
    """As a setting is written; "" for none."""
    return show_share(value) if value.fraction or value.bytes else '""'
