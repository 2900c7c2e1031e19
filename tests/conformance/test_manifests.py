"""end-3: manifests as they are pulled."""

import pytest

from tests.conformance.client import Repository, is_about
from tests.conformance.content import OCI_INDEX, OCI_MANIFEST, image, index, platforms
from tests.conformance.test_blobs import MALFORMED, NOWHERE

METHODS = pytest.mark.parametrize("method", ["GET", "HEAD"])


@METHODS
def test_by_tag(repo: Repository, method: str) -> None:
    """end-3: an existing manifest is 200 with its bytes, length, digest, and the type it was pushed with."""
    content = repo.push_all(image(), "v1")
    answer = repo.manifest("v1", method)
    is_about(answer, content)
    assert answer.header("Content-Type") == OCI_MANIFEST


@METHODS
def test_by_digest(repo: Repository, method: str) -> None:
    """end-3: the same by its digest, tagged or not."""
    content = repo.push_all(image())
    answer = repo.manifest(content.digest, method)
    is_about(answer, content)
    assert answer.header("Content-Type") == OCI_MANIFEST


@METHODS
def test_an_index(repo: Repository, method: str) -> None:
    """end-3: an index is served as an index, never as one of its images."""
    content = repo.push_all(index(platforms()), "v1")
    answer = repo.manifest("v1", method)
    is_about(answer, content)
    assert answer.header("Content-Type") == OCI_INDEX


@pytest.mark.parametrize("accept", ["*/*", "application/json", OCI_INDEX])
def test_accept_does_not_convert(repo: Repository, accept: str) -> None:
    """end-3: the registry provides the expected manifest; Accept is advice, and no other bytes are made of it."""
    content = repo.push_all(image(), "v1")
    is_about(repo.manifest("v1", accept=accept), content)


@METHODS
@pytest.mark.parametrize("reference", ["nothing", NOWHERE], ids=["tag", "digest"])
def test_an_unknown_manifest(repo: Repository, method: str, reference: str) -> None:
    """end-3: a manifest that is not in the repository is 404 MANIFEST_UNKNOWN; HEAD has no body."""
    repo.push_all(image(), "v1")
    answer = repo.manifest(reference, method).expect(404)
    if method == "GET":
        answer.refused(404, "MANIFEST_UNKNOWN")
    else:
        assert answer.body == b""


@METHODS
def test_an_unknown_repository(repo: Repository, method: str) -> None:
    """end-3: so is everything in a repository that does not exist."""
    answer = repo.manifest("v1", method).expect(404)
    if method == "GET":
        assert {"NAME_UNKNOWN", "MANIFEST_UNKNOWN"} & set(answer.codes())


@pytest.mark.parametrize("digest", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_digest(repo: Repository, digest: str) -> None:
    """end-3: what is no digest is refused, or simply not found."""
    repo.push_all(image(), "v1")
    repo.manifest(digest).expect(400, 404)


def test_a_manifest_of_another_repository(repo: Repository, other: Repository) -> None:
    """end-3: a manifest is in the repository it was pushed to and in no other one."""
    content = repo.push_all(image(), "v1")
    other.push_all(image(), "v1")
    other.manifest(content.digest).expect(404)


def test_a_blob_is_no_manifest(repo: Repository) -> None:
    """end-3: the digest of a layer is no manifest."""
    content = repo.push_all(image(), "v1")
    repo.manifest(content.parts[-1].digest).expect(404)


def test_a_repository_inside_another_one(repo: Repository, other: Repository) -> None:
    """end-3: a repository below another one is a repository of its own."""
    outer, inner = repo.push_all(image(), "v1"), other.push_all(image(), "v1")
    assert other.name.startswith(repo.name + "/")
    is_about(repo.manifest("v1"), outer)
    is_about(other.manifest("v1"), inner)
