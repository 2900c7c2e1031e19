"""end-7a and end-3: everything that is a manifest: images, indexes, artifacts, Docker's own, and odd ones."""

import base64
from collections.abc import Callable

import pytest

from tests.conformance.client import Repository, is_about
from tests.conformance.content import (
    EMPTY,
    OCI_FOREIGN,
    Content,
    artifact,
    blob,
    docker_image,
    docker_list,
    encoded,
    image,
    index,
    manifest,
    platforms,
)

SBOM = "application/vnd.example.sbom.v1"


def with_data() -> Content:
    """A descriptor may carry its content."""
    config = Content(b'{"some": "config"}', "application/vnd.example.config")
    layer = blob()
    fields = config.descriptor(data=base64.b64encode(config.body).decode())
    plain = manifest(config, [layer])
    document = {"schemaVersion": 2, "mediaType": plain.media_type, "config": fields, "layers": [layer.descriptor()]}
    return encoded(document, plain.parts)


def repeated_layer() -> Content:
    layer = blob()
    return manifest(blob(50, "application/vnd.oci.image.config.v1+json"), [layer, layer])


KINDS: dict[str, Callable[[], Content]] = {
    "image": image,
    "image-of-many-layers": lambda: image(layers=20),
    "image-without-layers": lambda: image(layers=0),
    "image-with-annotations": lambda: image(annotations={"org.example.ä": "line\nline"}),
    "image-with-a-layer-twice": repeated_layer,
    "image-with-an-empty-layer": lambda: manifest(EMPTY, [Content(b"")]),
    "index": lambda: index(platforms()),
    "index-of-nothing": lambda: index([]),
    "index-of-indexes": lambda: index([index(platforms()), index(platforms())]),
    "index-with-an-artifact": lambda: index([image(), artifact(SBOM)], artifactType=SBOM),
    "artifact": lambda: artifact(SBOM),
    "artifact-without-content": lambda: manifest(EMPTY, [EMPTY], artifactType=SBOM),
    "artifact-with-its-own-config": lambda: manifest(blob(40, SBOM), [blob(50, "text/plain")]),
    "layers-of-any-type": lambda: manifest(EMPTY, [blob(50, "application/vnd.example+x"), blob(50, "text/plain")]),
    "descriptor-with-data": with_data,
    "docker-image": docker_image,
    "docker-list": lambda: docker_list([docker_image(), docker_image()]),
    "unknown-fields": lambda: image(unknown={"deep": [{"er": None}]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(repo: Repository, kind: str) -> None:
    """end-7a, end-3: pushed by tag it comes back by tag and by digest, byte for byte, with its type."""
    content = repo.push_all(KINDS[kind](), "v1")
    for reference in ("v1", content.digest):
        for method in ("GET", "HEAD"):
            answer = repo.manifest(reference, method)
            is_about(answer, content)
            assert answer.header("Content-Type") == content.media_type
    for part in content.parts:
        pulled = repo.manifest(part.digest) if part.is_manifest else repo.blob(part.digest)
        is_about(pulled, part)


@pytest.mark.parametrize("kind", ["image", "index", "artifact"])
def test_every_kind_by_sha512(repo: Repository, kind: str) -> None:
    """end-7a, end-3: named by sha512 throughout, it is served under that name."""
    made = {
        "image": lambda: image(algorithm="sha512"),
        "index": lambda: index([image(algorithm="sha512")], "sha512"),
        "artifact": lambda: manifest(blob(40, SBOM, "sha512"), [blob(algorithm="sha512")], "sha512"),
    }
    content = repo.push_all(made[kind]())
    is_about(repo.manifest(content.digest), content)
    is_about(repo.manifest(content.digest, "HEAD"), content)


def test_a_foreign_layer(repo: Repository) -> None:
    """end-7a: a layer that may not be distributed is not pushed, and the manifest is accepted without it."""
    absent = blob(media_type=OCI_FOREIGN)
    urls = [f"https://layers.example.com/{absent.digest}"]
    present, config = blob(), blob(40, "application/vnd.oci.image.config.v1+json")
    plain = manifest(config, [present])
    document = {
        "schemaVersion": 2,
        "mediaType": plain.media_type,
        "config": config.descriptor(),
        "layers": [absent.descriptor(urls=urls), present.descriptor()],
    }
    content = repo.push_all(encoded(document, plain.parts), "v1")
    is_about(repo.manifest("v1"), content)
    repo.blob(absent.digest).expect(404)


def test_a_foreign_layer_that_is_pushed_all_the_same(repo: Repository) -> None:
    """end-7a: one that was pushed is served as any other."""
    content = repo.push_all(manifest(blob(40), [blob(media_type=OCI_FOREIGN)]), "v1")
    is_about(repo.blob(content.parts[-1].digest), content.parts[-1])
