"""What a pushed manifest needs and says: its children, its subject, how a list of referrers describes it.

OCI image-spec manifest.md and image-index.md; distribution-spec, "Pushing Manifests" and "Listing Referrers". Pure;
a document that cannot be a manifest raises ManifestInvalid.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.errors import DigestInvalid, ManifestInvalid
from proxy.oci.digest import Digest
from proxy.oci.media import OCI_INDEX, OCI_MANIFEST, Descriptor


@dataclass(frozen=True, slots=True)
class Needs:
    """`blobs` and `manifests` must be there before it is; `subject` need not. `kind` is its artifact type."""

    blobs: tuple[Digest, ...] = ()
    manifests: tuple[Digest, ...] = ()
    subject: Digest | None = None
    kind: str = ""
    annotations: Mapping[str, Any] = field(default_factory=dict)

    def described(self, descriptor: Descriptor) -> dict[str, Any]:
        """As a list of referrers shows it."""
        found: dict[str, Any] = {
            "mediaType": descriptor.media_type,
            "digest": str(descriptor.digest),
            "size": descriptor.size,
        }
        found |= {"artifactType": self.kind} if self.kind else {}
        return found | ({"annotations": dict(self.annotations)} if self.annotations else {})


def needs(content: bytes) -> Needs:
    """What these bytes say. Layers with `urls` are had elsewhere and need not be here. Raises ManifestInvalid."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise ManifestInvalid("a manifest must be JSON, and this is not") from None
    if not isinstance(document, dict):
        raise ManifestInvalid("a manifest must be a JSON object, and this is not")
    config, subject = document.get("config"), document.get("subject")
    layers = [*_entries(document, "layers"), *_entries(document, "blobs")]
    blobs = [_digest(layer, "a layer") for layer in layers if not layer.get("urls")]
    blobs += [] if config is None else [_digest(config, "config")]
    return Needs(
        blobs=tuple(blobs),
        manifests=tuple(_digest(entry, "a manifest") for entry in _entries(document, "manifests")),
        subject=None if subject is None else _digest(subject, "subject"),
        kind=_kind(document, config),
        annotations=_object(document.get("annotations")),
    )


def check(content: bytes, media_type: str) -> None:
    """Whether these bytes may be stored under that Content-Type. Raises ManifestInvalid."""
    needs(content)
    said = json.loads(content).get("mediaType", media_type)
    if said != media_type:
        raise ManifestInvalid(f"Content-Type is {media_type[:80]!r}, the manifest's own mediaType {str(said)[:80]!r}")


def _kind(document: Mapping[str, Any], config: object) -> str:
    """artifactType, else for images the config's media type."""
    if isinstance(kind := document.get("artifactType"), str) and kind:
        return kind
    is_image = document.get("mediaType", OCI_MANIFEST) != OCI_INDEX and "manifests" not in document
    kind = _object(config).get("mediaType") if is_image else None
    return kind if isinstance(kind, str) else ""


def _entries(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = document.get(key)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ManifestInvalid(f"{key} of a manifest must be a list of descriptors")
    return found


def _digest(entry: object, what: str) -> Digest:
    text = _object(entry).get("digest")
    try:
        return Digest.parse(text if isinstance(text, str) else "")
    except DigestInvalid:
        raise ManifestInvalid(
            f"{what} of the manifest has no digest, or one that is none: {str(text)[:80]!r}"
        ) from None


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def named(content: bytes) -> frozenset[Digest]:
    """Every digest these bytes say anywhere: more than a registry must have, and nothing that any kind of manifest
    could mean by a field this release does not know. Raises ManifestInvalid."""
    try:
        waiting: list[object] = [json.loads(content)]
    except (ValueError, RecursionError):
        raise ManifestInvalid("a manifest must be JSON, and this is not") from None
    found = set()
    while waiting:
        match waiting.pop():
            case dict() as table:
                waiting += table.values()
            case list() as items:
                waiting += items
            case str() as text:
                with contextlib.suppress(DigestInvalid):
                    found.add(Digest.parse(text))
    return frozenset(found)
