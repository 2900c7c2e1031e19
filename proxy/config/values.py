"""How single values are read and written: each reader takes what TOML holds and gives the setting, or says what
it must be. Pure; no reader knows its key, section or file, so that `load` alone words where a mistake stands.

Every reader raises ValueError whose text continues "<key> ...".
"""

import json
import math
import os
import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit, urlunsplit

from yarl import URL

from proxy.config.settings import Secret, Share
from proxy.errors import NameInvalid
from proxy.oci.names import registry_name

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+\Z")
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_PATTERN = re.compile(r"[A-Za-z0-9.*?_\[\]:-]+\Z")
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|KiB|MiB|GiB|TiB)\Z")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?) ?%\Z")
_SLOWEST = 1 << 20
_SEGMENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")


def _not(expected: str, value: object) -> ValueError:
    try:
        shown = json.dumps(value, default=str, ensure_ascii=False)
    except RecursionError:  # a.a.a.a... = 1
        shown = "a table"
    return ValueError(f"must be {expected}, not {shown if len(shown) <= 60 else shown[:57] + '...'}")


def text(value: object) -> str:
    """Any text of one line."""
    if not isinstance(value, str) or "\n" in value or "\0" in value:
        raise _not("text of one line", value)
    return value


def secret(value: object) -> Secret:
    """Text that is never shown, not even when it is wrong."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("must be text of one line")
    return Secret(value)


def choice(*options: str) -> Callable[[object], str]:
    """One of a few words."""

    def read(value: object) -> str:
        if value not in options:
            raise _not(" or ".join(f'"{option}"' for option in options), value)
        return str(value)

    return read


def flag(value: object) -> bool:
    """true or false; the words count, for that is all the environment has."""
    found = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise _not("true or false", value)
    return found


def whole(low: int, high: int) -> Callable[[object], int]:
    """A whole number within bounds; digits in text count, for that is all the environment has."""

    def read(value: object) -> int:
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise _not(f"a whole number from {low} to {high}", value)
        return number

    return read


def duration(value: object) -> float:
    """ "1h30m" -> seconds."""
    if not isinstance(value, str) or not _DURATION.match(value):
        raise _not('a duration such as "30s", "5m" or "1h"', value)
    return sum(float(number) * _UNITS[unit] for number, unit in _PIECE.findall(value))


def positive(value: object) -> float:
    """A duration above zero: a timeout of zero would fail everything."""
    seconds = duration(value)
    if seconds <= 0:
        raise _not("longer than zero", value)
    return seconds


def lasting(value: object) -> float:
    """A duration, or "forever"."""
    if value == "forever":
        return math.inf
    try:
        return duration(value)
    except ValueError:
        raise _not('a duration such as "1h", or "forever"', value) from None


def size(value: object) -> int:
    """ "50GiB" -> bytes."""
    match = _SIZE.match(value) if isinstance(value, str) else None
    if match is None:
        raise _not('a size such as "512MiB" or "50GiB"', value)
    return int(float(match[1]) * _SIZES[match[2]])


def share(value: object) -> Share:
    """ "50GiB", or "80%" of the file system."""
    if isinstance(value, str) and (match := _PERCENT.match(value)) and 0 <= float(match[1]) <= 100:
        return Share(0, float(match[1]) / 100)
    try:
        return Share(size(value), 0.0)
    except ValueError:
        raise _not('a size such as "50GiB", or a share of the file system such as "80%"', value) from None


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
        raise _not('a size for each second such as "50MiB", at least "1MiB"', value)
    return found


def strings(value: object) -> tuple[str, ...]:
    """A list of non-empty texts."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item.strip() for item in value):
        raise _not('a list of texts such as ["a", "b"]', value)
    return tuple(item.strip() for item in value)


def host(value: object) -> str:
    """A registry's host[:port] in its one spelling."""
    try:
        return registry_name(text(value))
    except NameInvalid:
        raise _not('a host such as "quay.io" or "cache.corp:5000"', value) from None


def hosts(value: object) -> tuple[str, ...]:
    """A list of hosts, each once."""
    return tuple(dict.fromkeys(host(item) for item in strings(value)))


def patterns(value: object) -> tuple[str, ...]:
    """A list of host patterns, `*` for any characters: hosts only, because a port or a path would never match; in
    ASCII, as hosts are compared."""
    found = []
    for item in strings(value):
        try:
            pattern = ".".join(map(_ascii, item.split(".")))
        except ValueError:
            raise _not('a list of host patterns, wildcards beside ASCII only ("xn--...")', value) from None
        if not _PATTERN.match(pattern):
            raise _not('a list of host patterns such as ["*.pkg.dev"]', value)
        found.append(pattern.lower())
    return tuple(found)


def _ascii(label: str) -> str:
    """One label of a name as it goes over the wire. Raises ValueError."""
    if label.isascii():
        return label
    if any(c in label for c in "*?[]"):
        raise ValueError(label)
    return URL.build(scheme="http", host=label).raw_host or ""


def segment(value: object) -> str:
    """The first segment of a path, or "" for none."""
    if value != "" and not _SEGMENT.match(text(value)):
        raise _not('one path segment such as "k8s"', value)
    return text(value)


def path(value: object) -> str:
    """A file or folder, made absolute here, once; "" stays empty."""
    return os.path.abspath(text(value)) if text(value) else ""


def hide_password(url: str) -> str:
    """The URL with stars in place of its password."""
    user, at, rest = url.rpartition("@")
    scheme, slashes, account = user.rpartition("://")
    name, colon, _ = account.partition(":")
    return f"{scheme}{slashes}{name}:***{at}{rest}" if at and colon else url


def _url(value: object, expected: str) -> str:
    shown = hide_password(text(value))
    try:
        parts = urlsplit(text(value))
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
        named = URL(text(value)).host  # what connects decodes the name, and may find that it cannot
    except (ValueError, IndexError):
        raise _not(expected, shown) from None
    if not good or not named or parts.query or parts.fragment or any(c.isspace() for c in shown):
        raise _not(expected, shown)
    return urlunsplit(parts).rstrip("/")


def url(value: object) -> str:
    """http or https, a host, perhaps a path; no account, because a secret has a key of its own."""
    found = _url(value, 'a URL such as "https://registry.example:5000", without query')
    if "@" in urlsplit(found).netloc:
        raise ValueError("must not hold an account; use username and password_file")
    return found


def optional_url(value: object) -> str:
    """A URL, or "" for none."""
    return url(value) if value != "" else ""


def urls(value: object) -> tuple[str, ...]:
    """A list of at least one URL."""
    found = tuple(url(item) for item in strings(value))
    if not found:
        raise _not('a list of URLs such as ["https://registry.k8s.io"]', value)
    return found


def proxy(value: object) -> str:
    """The URL of an HTTP proxy, or "" for none; it may hold an account. A bare host:port means http, as in curl."""
    if value == "":
        return ""
    expected = 'a URL such as "http://proxy.corp:3128"'
    return _url(value if "://" in text(value) else f"http://{value}", expected)


def parse_listen(value: object) -> tuple[str, int]:
    """ "HOST:PORT" -> (host without brackets, port); raises ValueError."""
    address, colon, port = text(value).rpartition(":")
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    if not colon or not bare or (":" in bare and bare == address) or not 0 <= number <= 65535:
        raise _not("HOST:PORT such as 127.0.0.1:5000, 0.0.0.0:5000 or [::]:5000", value)
    return bare, number


def listen(value: object) -> str:
    """An address to listen on, still as text."""
    parse_listen(value)
    return text(value)


def optional_listen(value: object) -> str:
    """An address to listen on, or "" for none."""
    return listen(value) if value != "" else ""


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration that `lasting` reads back."""
    if math.isinf(seconds):
        return "forever"
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    return f"{seconds:g}s"


def format_list(items: Sequence[str]) -> str:
    """A list as TOML writes it."""
    return json.dumps(list(items), ensure_ascii=False)


def format_flag(value: bool) -> str:
    """A flag as TOML writes it."""
    return "true" if value else "false"


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
