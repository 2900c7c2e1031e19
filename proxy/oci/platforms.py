"""Platforms: what an index says its manifests are for, and which of them somebody chose.

OCI image-spec, image-index.md, "platform". No I/O; a document that says nonsense names no platform.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from proxy.errors import DigestInvalid, ManifestUnknown, NameInvalid
from proxy.oci.digest import Digest
from proxy.oci.media import BLOB, Descriptor, listed

_ATTESTS = "vnd.docker.reference.digest"


@dataclass(frozen=True, slots=True)
class Platform:
    """An operating system and an architecture; without `variant` every variant of it."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises NameInvalid."""
        words = text.split("/")
        if len(words) not in (2, 3) or not all(word.isalnum() for word in words):
            raise NameInvalid(f"{text[:40]!r} is not a platform such as linux/amd64 or linux/arm/v7")
        return cls(*words)

    def takes(self, other: "Platform") -> bool:
        """Whether `other` is what is meant by this."""
        same = (self.os, self.architecture) == (other.os, other.architecture)
        return same and self.variant in ("", other.variant)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


@dataclass(frozen=True, slots=True)
class Entry:
    """One manifest of an index. `attests`: the digest of the manifest it says something of, else empty."""

    said: Descriptor
    platform: Platform | None
    attests: str


def entries(content: bytes) -> list[Entry]:
    """The manifests of an index, none where it is no index."""
    return [entry for entry in map(_entry, listed(content)) if entry is not None]


def _entry(row: Any) -> Entry | None:
    size, media_type, notes = row.get("size"), row.get("mediaType"), row.get("annotations")
    try:
        digest = Digest.parse(str(row.get("digest")))
    except DigestInvalid:
        return None
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        return None
    attests = notes.get(_ATTESTS, "") if isinstance(notes, dict) else ""
    said = Descriptor(digest, size, media_type if isinstance(media_type, str) else BLOB)
    return Entry(said, _platform(row.get("platform")), str(attests))


def _platform(row: Any) -> Platform | None:
    if not isinstance(row, dict):
        return None
    words = [row.get(field, "") for field in ("os", "architecture", "variant")]
    if not all(isinstance(word, str) for word in words) or "unknown" in words or not all(words[:2]):
        return None
    return Platform(*words)


def choose(found: Sequence[Entry], wanted: Sequence[Platform]) -> list[Entry]:
    """The manifests of the wanted platforms, all where none is wanted; what attests to a chosen one, and what is for
    no platform, comes along. Raises ManifestUnknown, naming the platforms there are."""
    there = [entry.platform for entry in found if entry.platform is not None]
    for each in wanted if there else ():
        if not any(map(each.takes, there)):
            names = ", ".join(dict.fromkeys(map(str, there)))
            raise ManifestUnknown(f"there is no {each} of it; there are {names}")
    named = {str(entry.said.digest) for entry in found if entry.platform and _taken(entry.platform, wanted)}
    return [entry for entry in found if _comes(entry, named)]


def _taken(platform: Platform, wanted: Iterable[Platform]) -> bool:
    return not wanted or any(each.takes(platform) for each in wanted)


def _comes(entry: Entry, named: set[str]) -> bool:
    if entry.platform is not None:
        return str(entry.said.digest) in named
    return not entry.attests or entry.attests in named
