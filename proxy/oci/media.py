"""Media types, descriptors, and what a manifest says of its children. Manifests are never converted or re-encoded.

OCI image-spec manifest.md, image-index.md, descriptor.md; Docker image manifest v2 schema 2.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.errors import DigestInvalid
from proxy.oci.digest import Digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
BLOB = "application/octet-stream"
_KNOWN = frozenset({OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST})
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][\w!#$&^.+-]{0,126}/[A-Za-z0-9][\w!#$&^.+-]{0,126}\Z", re.ASCII)

ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST, "*/*;q=0.1"))
"""What every upstream is asked for: the client's own Accept neither varies nor converts what is stored."""

MANIFEST_LIMIT = 8 << 20
"""Bytes of a manifest we take; the specification wants at least 4 MiB."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a registry says of one piece of content. `size` in bytes, None when nobody has said it yet."""

    digest: Digest
    size: int | None
    media_type: str = BLOB


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest's bytes, exactly as its registry sent them."""

    descriptor: Descriptor
    content: bytes


def children(content: bytes) -> list[Descriptor]:
    """Everything a manifest points at: config, layers, manifests, subject excluded.

    A document that is no JSON object, or lists nothing, has none; entries that are no descriptors are passed over,
    because an artifact may carry anything.
    """
    document = _object(content)
    entries: list[object] = [document.get("config")]
    for field in ("layers", "blobs", "manifests"):
        listed = document.get(field)
        entries += listed if isinstance(listed, list) else []
    return list(_descriptors(entries))


def listed(content: bytes) -> list[Mapping[str, Any]]:
    """The descriptors of an index, as they stand there; none where it is no index."""
    entries = _object(content).get("manifests")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def manifest_type(content: bytes, said: str) -> str | None:
    """The media type of a manifest: its own mediaType field, else what its shape says, else what the upstream `said` in
    Content-Type; None for what is no JSON object and therefore no manifest, such as a firewall's page.

    What the bytes say comes first, because it is the same whoever delivers them; descriptors are made of it.
    """
    document = _object(content)
    value = document.get("mediaType")
    if isinstance(value, str) and _MEDIA_TYPE.match(value):
        return value
    if not document:
        return None
    said = said.partition(";")[0].strip().lower()
    if said in _KNOWN:
        return said
    if "manifests" in document:
        return OCI_INDEX
    return OCI_MANIFEST if "layers" in document or not _MEDIA_TYPE.match(said) else said


def own_media_type(content: bytes) -> str | None:
    """What a manifest says by itself that it is, by its mediaType or its shape; None for what is no manifest."""
    document = _object(content)
    if document.get("schemaVersion") != 2:
        return None
    if (said := document.get("mediaType")) is not None:
        return said if isinstance(said, str) and said in _KNOWN else None
    if isinstance(document.get("manifests"), list):
        return OCI_INDEX
    shaped = isinstance(document.get("config"), dict) and isinstance(document.get("layers"), list)
    return OCI_MANIFEST if shaped else None


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _descriptors(entries: list[object]) -> Iterator[Descriptor]:
    for entry in entries:
        if not isinstance(entry, dict):
            continue
        digest, size, media_type = entry.get("digest"), entry.get("size"), entry.get("mediaType")
        if not isinstance(digest, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
            continue
        try:
            yield Descriptor(Digest.parse(digest), size, media_type if isinstance(media_type, str) else BLOB)
        except DigestInvalid:
            continue
