"""What is pushed: blobs, manifests, indexes and artifacts as bytes with the digest, type and parts they have.

Content is new for every call unless a test gives the bytes, so that tests never meet each other's blobs in a registry
they share. Nothing here speaks to a registry.
"""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
OCTETS = "application/octet-stream"

MANIFESTS = frozenset({OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST})
ACCEPT = ", ".join(sorted(MANIFESTS))
MIB = 1 << 20

Document = dict[str, Any]


@dataclass(frozen=True)
class Content:
    """Bytes of one media type; `parts` are what a registry wants to have before them."""

    body: bytes
    media_type: str = OCTETS
    parts: tuple["Content", ...] = ()
    algorithm: str = "sha256"

    @cached_property
    def digest(self) -> str:
        return digest_of(self.body, self.algorithm)

    @property
    def is_manifest(self) -> bool:
        return self.media_type in MANIFESTS

    def descriptor(self, **fields: Any) -> Document:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.body), **fields}


EMPTY = Content(b"{}", OCI_EMPTY)


def digest_of(body: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


def blob(size: int = 1000, media_type: str = OCI_LAYER, algorithm: str = "sha256") -> Content:
    """Bytes nobody has seen before."""
    return Content(secrets.token_bytes(size), media_type, algorithm=algorithm)


def encoded(document: Document, parts: Sequence[Content] = (), algorithm: str = "sha256") -> Content:
    """A manifest as compact JSON; its media type is the document's own."""
    body = json.dumps(document, separators=(",", ":")).encode()
    return Content(body, document["mediaType"], tuple(parts), algorithm)


def image(layers: int = 1, algorithm: str = "sha256", **fields: Any) -> Content:
    """An image manifest of new blobs."""
    config = Content(json.dumps({"nonce": secrets.token_hex(8)}).encode(), OCI_CONFIG, algorithm=algorithm)
    return manifest(config, [blob(algorithm=algorithm) for _ in range(layers)], algorithm, **fields)


def manifest(config: Content, layers: Sequence[Content], algorithm: str = "sha256", **fields: Any) -> Content:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
        **fields,
    }
    return encoded(document, (config, *layers), algorithm)


def artifact(kind: str, subject: Content | None = None, **fields: Any) -> Content:
    """An artifact of this type with the empty config and one blob of its own; no subject unless one is given."""
    if subject is not None:
        fields["subject"] = subject.descriptor()
    return manifest(EMPTY, [blob(50, "application/vnd.example.data")], artifactType=kind, **fields)


def index(manifests: Sequence[Content], algorithm: str = "sha256", **fields: Any) -> Content:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [each.descriptor() for each in manifests],
        **fields,
    }
    return encoded(document, manifests, algorithm)


def platforms() -> list[Content]:
    """Two images an index can be made of."""
    return [image(), image()]


def docker_image() -> Content:
    """Docker's image manifest, version 2, schema 2."""
    config = Content(json.dumps({"nonce": secrets.token_hex(8)}).encode(), DOCKER_CONFIG)
    layer = blob(media_type=DOCKER_LAYER)
    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
    }
    return encoded(document, [config, layer])


def docker_list(manifests: Sequence[Content]) -> Content:
    platform = {"architecture": "amd64", "os": "linux"}
    listed = [each.descriptor(platform=platform) for each in manifests]
    return encoded({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": listed}, manifests)


def padded(size: int) -> Content:
    """An image manifest of exactly this many bytes."""
    bare = image(annotations={"padding": ""})
    return Content(bare.body.replace(b'"padding":""', b'"padding":"%b"' % (b"x" * (size - len(bare.body)))),
                   bare.media_type, bare.parts)  # fmt: skip
