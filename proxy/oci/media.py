"""Media types, descriptors, and what a manifest says of its children. Manifests are never converted or re-encoded.

OCI image-spec manifest.md, image-index.md, descriptor.md; Docker image manifest v2 schema 2.
"""

import json
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
_MANIFESTS = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)

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


def media_type_in(content: bytes) -> str | None:
    """The mediaType field of a manifest, for an upstream that sends no Content-Type."""
    value = _object(content).get("mediaType")
    return value if isinstance(value, str) else None


def own_media_type(content: bytes) -> str | None:
    """What a manifest says by itself that it is, by its mediaType or its shape; None for what is no manifest."""
    document = _object(content)
    if document.get("schemaVersion") != 2:
        return None
    if (said := document.get("mediaType")) is not None:
        return said if said in _MANIFESTS else None
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
