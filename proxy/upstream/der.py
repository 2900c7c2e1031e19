"""Who issued a certificate and when it ends, read from its bytes (X.690, RFC 5280 section 4.1). Pure.

Python's ssl describes only certificates it has verified; here the name of exactly those is wanted that it rejects, and
the end of our own one.
Nothing is trusted because of what is read here: it is shown to a person.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

_OID, _VERSION, _UTC_TIME = 0x06, 0xA0, 0x17
_NAMES = {b"\x55\x04\x03": "CN", b"\x55\x04\x0a": "O", b"\x55\x04\x0b": "OU"}
_CODECS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}


def issuer(certificate: bytes) -> dict[str, str]:
    """The issuer's common name, organization and unit as "CN", "O", "OU", those that are there; ValueError when these
    bytes are no certificate."""
    found: dict[str, str] = {}
    for _, relative in _items(_field(certificate, 2)):  # after serial number and signature algorithm
        for _, pair in _items(relative):
            (_, oid), (kind, value) = _two(pair)
            if oid in _NAMES:
                found[_NAMES[oid]] = value.decode(_CODECS.get(kind, "latin-1"), "replace")
    return found


def not_after(certificate: bytes) -> float:
    """When it ends, as seconds since 1970; ValueError when these bytes are no certificate."""
    times = list(_items(_field(certificate, 3)))
    if len(times) != 2:
        raise ValueError("a certificate has a beginning and an end")
    kind, text = times[1]
    form = "%y%m%d%H%M%SZ" if kind == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC).timestamp()


def _field(certificate: bytes, number: int) -> bytes:
    """A field of what is signed, the version not counted. Raises ValueError."""
    (_, whole), *_ = _items(certificate)
    (_, signed), *_ = _items(whole)
    fields = [value for tag, value in _items(signed) if tag != _VERSION]
    if len(fields) <= number:
        raise ValueError("a certificate has more fields")
    return fields[number]


def _two(pair: bytes) -> tuple[tuple[int, bytes], tuple[int, bytes]]:
    items = list(_items(pair))
    if len(items) != 2 or items[0][0] != _OID:
        raise ValueError("not a name and its value")
    return items[0], items[1]


def _items(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of what stands one after the other in `content`. Raises ValueError."""
    at = 0
    while at < len(content):
        tag, at, end = _head(content, at)
        yield tag, content[at:end]
        at = end


def _head(content: bytes, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the item at `at`."""
    if at + 2 > len(content):
        raise ValueError("cut off")
    tag, length, at = content[at], content[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or at + size > len(content):
            raise ValueError("a length that cannot be")
        length, at = int.from_bytes(content[at : at + size], "big"), at + size
    if at + length > len(content):
        raise ValueError("cut off")
    return tag, at, at + length
