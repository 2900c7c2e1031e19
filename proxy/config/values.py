"""How single values are read and written: each reader takes what TOML holds and gives the setting, or says what
it must be. Pure; no reader knows its key, section or file, so that `load` alone words where a mistake stands.

Every reader raises ValueError whose text continues "<key> ...".
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit, urlunsplit

from yarl import URL

from proxy.config.settings import Secret
from proxy.errors import NameInvalid
from proxy.oci.names import registry_name

_PATTERN = re.compile(r"[A-Za-z0-9.*?_\[\]:-]+\Z")
_SEGMENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")


def unlike(expected: str, value: object) -> ValueError:
    """What a reader raises."""
    try:
        shown = json.dumps(value, default=str, ensure_ascii=False)
    except RecursionError:  # a.a.a.a... = 1
        shown = "a table"
    return ValueError(f"must be {expected}, not {shown if len(shown) <= 60 else shown[:57] + '...'}")


def text(value: object) -> str:
    """Any text of one line."""
    if not isinstance(value, str) or "\n" in value or "\0" in value:
        raise unlike("text of one line", value)
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
            raise unlike(" or ".join(f'"{option}"' for option in options), value)
        return str(value)

    return read


def flag(value: object) -> bool:
    """true or false; the words count, for that is all the environment has."""
    found = {"true": True, "false": False}.get(value) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise unlike("true or false", value)
    return found


def whole(low: int, high: int) -> Callable[[object], int]:
    """A whole number within bounds; digits in text count, for that is all the environment has."""

    def read(value: object) -> int:
        number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            raise unlike(f"a whole number from {low} to {high}", value)
        return number

    return read


def strings(value: object) -> tuple[str, ...]:
    """A list of non-empty texts."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item.strip() for item in value):
        raise unlike('a list of texts such as ["a", "b"]', value)
    return tuple(item.strip() for item in value)


def host(value: object) -> str:
    """A registry's host[:port] in its one spelling."""
    try:
        return registry_name(text(value))
    except NameInvalid:
        raise unlike('a host such as "quay.io" or "cache.corp:5000"', value) from None


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
            raise unlike('a list of host patterns, wildcards beside ASCII only ("xn--...")', value) from None
        if not _PATTERN.match(pattern):
            raise unlike('a list of host patterns such as ["*.pkg.dev"]', value)
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
        raise unlike('one path segment such as "k8s"', value)
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
        raise unlike(expected, shown) from None
    if not good or not named or parts.query or parts.fragment or any(c.isspace() for c in shown):
        raise unlike(expected, shown)
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
        raise unlike('a list of URLs such as ["https://registry.k8s.io"]', value)
    return found


def proxy(value: object) -> str:
    """The URL of an HTTP proxy, or "" for none; it may hold an account. A bare host:port means http, as in curl."""
    if value == "":
        return ""
    expected = 'a URL such as "http://proxy.corp:3128"'
    if "://" not in text(value) and not text(value).rpartition(":")[2].isdigit():
        raise unlike(expected, hide_password(text(value)))  # curl would mean 1080 and Go 80: say which
    return _url(value if "://" in text(value) else f"http://{value}", expected)


def parse_listen(value: object) -> tuple[str, int]:
    """ "HOST:PORT" -> (host without brackets, port); raises ValueError."""
    address, colon, port = text(value).rpartition(":")
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    if not colon or not bare or (":" in bare and bare == address) or not 0 <= number <= 65535:
        raise unlike("HOST:PORT such as 127.0.0.1:5000, 0.0.0.0:5000 or [::]:5000", value)
    return bare, number


def listen(value: object) -> str:
    """An address to listen on, still as text."""
    parse_listen(value)
    return text(value)


def optional_listen(value: object) -> str:
    """An address to listen on, or "" for none."""
    return listen(value) if value != "" else ""


def format_list(items: Sequence[str]) -> str:
    """A list as TOML writes it."""
    return json.dumps(list(items), ensure_ascii=False)


def format_flag(value: bool) -> str:
    """A flag as TOML writes it."""
    return "true" if value else "false"
