"""end-7a: pushing manifests, and what is refused."""

import json

import pytest

from tests.conformance.client import Repository, is_about
from tests.conformance.content import (
    MIB,
    OCI_INDEX,
    OCI_MANIFEST,
    Content,
    blob,
    encoded,
    image,
    index,
    padded,
)
from tests.conformance.test_blobs import MALFORMED, NOWHERE

BROKEN = {
    "empty": b"",
    "not-json": b'{"schemaVersion": 2,',
    "a-list": b"[]",
    "a-word": b'"manifest"',
    "config-a-word": b'{"schemaVersion":2,"mediaType":"%b","config":"x","layers":[]}' % OCI_MANIFEST.encode(),
    "a-layer-without-digest": b'{"schemaVersion":2,"mediaType":"%b","config":{"mediaType":"a/b","size":2,'
    b'"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},'
    b'"layers":[{"mediaType":"a/b","size":3,"digest":"abc"}]}' % OCI_MANIFEST.encode(),
    "not-utf-8": b'{"schemaVersion":2,"mediaType":"\xff"}',
}


def test_by_tag(repo: Repository) -> None:
    """end-7a: PUT is 201; Location is a manifest to be pulled, Docker-Content-Digest the digest of the bytes."""
    content = image()
    for part in content.parts:
        repo.push_blob(part)
    answer = repo.put_manifest(content, "v1").expect(201)
    assert answer.header("Docker-Content-Digest") == content.digest
    pulled = repo.registry.ask("GET", answer.header("Location"), Accept=OCI_MANIFEST)
    is_about(pulled, content)


def test_by_digest(repo: Repository) -> None:
    """end-7a: so it is by digest, and no tag comes of it."""
    content = repo.push_all(image(), "v1")
    untagged = repo.push_all(image())
    answer = repo.put_manifest(untagged).expect(201)
    assert answer.header("Docker-Content-Digest") == untagged.digest
    is_about(repo.registry.ask("GET", answer.header("Location"), Accept=OCI_MANIFEST), untagged)
    is_about(repo.manifest("v1"), content)
    assert repo.tags().expect(200).json()["tags"] == ["v1"]


def test_by_sha512(repo: Repository) -> None:
    """end-7a: a manifest pushed by its sha512 digest, of blobs named by sha512, is served under that digest."""
    content = repo.push_all(image(algorithm="sha512"))
    answer = repo.put_manifest(content).expect(201)
    assert answer.header("Docker-Content-Digest") == content.digest
    is_about(repo.manifest(content.digest), content)


def test_a_tag_moves(repo: Repository) -> None:
    """end-7a: pushing a tag again moves it; the earlier manifest stays under its digest."""
    first, second = repo.push_all(image(), "v1"), repo.push_all(image(), "v1")
    is_about(repo.manifest("v1"), second)
    is_about(repo.manifest(first.digest), first)
    assert repo.tags().expect(200).json()["tags"] == ["v1"]


def test_the_wrong_digest(repo: Repository) -> None:
    """end-7a: bytes that do not match the digest they are pushed by are 400 DIGEST_INVALID, and nothing is stored."""
    content = repo.push_all(image())
    changed = Content(content.body + b"  ", content.media_type)
    repo.put_manifest(changed, NOWHERE).refused(400, "DIGEST_INVALID")
    repo.manifest(NOWHERE).expect(404)
    repo.manifest(changed.digest).expect(404)


@pytest.mark.parametrize("digest", MALFORMED.values(), ids=MALFORMED)
def test_no_proper_digest(repo: Repository, digest: str) -> None:
    """end-7a: what is no digest, or one of an unsupported algorithm, is 400."""
    content = repo.push_all(image())
    repo.put_manifest(content, digest).expect(400)


# Parts that are missing


@pytest.mark.parametrize("missing", [0, 1], ids=["config", "layer"])
def test_a_missing_blob(repo: Repository, missing: int) -> None:
    """end-7a: a manifest with a blob that is not there is refused with MANIFEST_BLOB_UNKNOWN (optional)."""
    content = image()
    repo.push_blob(content.parts[1 - missing])
    answer = repo.put_manifest(content, "v1").expect(400, 404)
    assert set(answer.codes()) == {"MANIFEST_BLOB_UNKNOWN"}, answer
    repo.manifest("v1").expect(404)


def test_a_blob_of_another_repository(repo: Repository, other: Repository) -> None:
    """end-7a: a blob of another repository has to be mounted or pushed first (optional)."""
    content = repo.push_all(image(), "v1")
    answer = other.put_manifest(content, "v1").expect(400, 404)
    assert set(answer.codes()) == {"MANIFEST_BLOB_UNKNOWN"}, answer


def test_all_missing_blobs_are_named(repo: Repository) -> None:
    """end-7a: refused for missing blobs, it has one error or more of that code and no other."""
    answer = repo.put_manifest(image(layers=3), "v1").expect(400, 404)
    assert set(answer.codes()) == {"MANIFEST_BLOB_UNKNOWN"}, answer


def test_a_sparse_index(repo: Repository) -> None:
    """end-7a: an index with an image that is not there is taken as it is, or refused with MANIFEST_BLOB_UNKNOWN."""
    content = index([repo.push_all(image()), image()])
    answer = repo.put_manifest(content, "sparse").expect(201, 400, 404)
    if answer.status == 201:
        is_about(repo.manifest("sparse"), content)
    else:
        assert set(answer.codes()) == {"MANIFEST_BLOB_UNKNOWN"}, answer
        repo.manifest("sparse").expect(404)


# What is no manifest


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_no_manifest(repo: Repository, body: bytes) -> None:
    """end-7a: what cannot be a manifest is 400 MANIFEST_INVALID (DIGEST_INVALID for a digest in it); no tag is set."""
    repo.push_blob(Content(b"{}"))
    answer = repo.put_manifest(Content(body, OCI_MANIFEST), "v1").expect(400)
    assert {"MANIFEST_INVALID", "DIGEST_INVALID"} & set(answer.codes()), answer
    repo.manifest("v1").expect(404)


def test_a_type_that_is_not_its_own(repo: Repository) -> None:
    """end-7a: Content-Type must be the manifest's mediaType; where they differ it is refused."""
    content = repo.push_all(image())
    repo.put_manifest(Content(content.body, OCI_INDEX), "v1").refused(400, "MANIFEST_INVALID")
    repo.manifest("v1").expect(404)


def test_parameters_of_the_type(repo: Repository) -> None:
    """end-7a, end-3: parameters of Content-Type are ignored, and not told when the manifest is pulled."""
    content = repo.push_all(image())
    repo.put_manifest(Content(content.body, f"{OCI_MANIFEST}; charset=utf-8"), "v1").expect(201)
    assert repo.manifest("v1").expect(200).header("Content-Type") == OCI_MANIFEST


# Size


def test_four_mebibytes(repo: Repository) -> None:
    """end-7a: manifests of up to 4 MiB at least are accepted."""
    content = repo.push_all(padded(4 * MIB), "v1")
    assert len(content.body) == 4 * MIB
    is_about(repo.manifest("v1"), content)


def test_too_large(repo: Repository) -> None:
    """end-7a: there is a limit, and a manifest above it is 413."""
    content = padded(16 * MIB)
    for part in content.parts:
        repo.push_blob(part)
    repo.put_manifest(content, "v1").expect(413)
    repo.manifest("v1").expect(404)


# Bytes


def test_every_byte_is_kept(repo: Repository) -> None:
    """end-7a: the manifest is stored exactly as provided: spaces, order of keys, escapes, unknown fields."""
    plain = image()
    document = json.loads(plain.body)
    odd = json.dumps({"x-unknown": {"ä": [1.0, 1e3, None]}, **dict(reversed(document.items()))}, indent=3)
    content = Content(b"\n\t" + odd.encode() + b" \r\n\n", OCI_MANIFEST, plain.parts)
    repo.push_all(content, "v1")
    is_about(repo.manifest("v1"), content)
    is_about(repo.manifest(content.digest), content)


def test_the_type_may_be_missing_inside(repo: Repository) -> None:
    """end-7a, end-3: mediaType in the document is optional: Content-Type counts and comes back."""
    plain = image()
    document = json.loads(plain.body)
    del document["mediaType"]
    content = Content(json.dumps(document).encode(), OCI_MANIFEST, plain.parts)
    repo.push_all(content, "v1")
    answer = repo.manifest("v1")
    is_about(answer, content)
    assert answer.header("Content-Type") == OCI_MANIFEST


# Subjects


def test_a_subject(repo: Repository) -> None:
    """end-7a: a manifest with a subject is answered with OCI-Subject, the subject's digest."""
    subject = repo.push_all(image(), "v1")
    content = image(subject=subject.descriptor())
    for part in content.parts:
        repo.push_blob(part)
    assert repo.put_manifest(content).expect(201).header("OCI-Subject") == subject.digest
    assert repo.put_manifest(content, "v2").expect(201).header("OCI-Subject") == subject.digest


def test_a_subject_that_is_missing(repo: Repository) -> None:
    """end-7a: a subject that does not exist, or not yet, must be accepted."""
    content = repo.push_all(image(subject=image().descriptor()), "v1")
    is_about(repo.manifest("v1"), content)


def test_no_subject(repo: Repository) -> None:
    """end-7a: without a subject there is no OCI-Subject."""
    content = repo.push_all(image())
    assert repo.put_manifest(content).expect(201).headers.get("OCI-Subject") is None


def test_an_index_with_a_subject(repo: Repository) -> None:
    """end-7a: an index may have a subject as well."""
    subject = repo.push_all(image(), "v1")
    content = index([], subject=subject.descriptor())
    assert repo.put_manifest(content).expect(201).header("OCI-Subject") == subject.digest


def test_a_subject_that_is_no_descriptor(repo: Repository) -> None:
    """end-7a: a subject without a digest makes a manifest invalid."""
    parts = [repo.push_blob(blob()), repo.push_blob(blob())]
    config, layer = (part.descriptor() for part in parts)
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer], "subject": "v1"}
    repo.put_manifest(encoded(document), "v1").refused(400, "MANIFEST_INVALID")
