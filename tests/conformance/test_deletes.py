"""end-9 and end-10: deleting tags, manifests and blobs."""

import pytest

from tests.conformance.client import Answer, Repository, is_about
from tests.conformance.content import blob, image, index
from tests.conformance.test_blobs import MALFORMED, NOWHERE


def delete_manifest(repo: Repository, reference: str) -> Answer:
    return repo.ask("DELETE", f"manifests/{reference}")


def delete_blob(repo: Repository, digest: str) -> Answer:
    return repo.ask("DELETE", f"blobs/{digest}")


def test_a_tag(repo: Repository) -> None:
    """end-9: deleting a tag is 202; the tag is 404 at once, its manifest and its other tags stay."""
    content = repo.push_all(image(), "v1")
    repo.push(content, "v2")
    delete_manifest(repo, "v1").expect(202)
    repo.manifest("v1").refused(404, "MANIFEST_UNKNOWN")
    is_about(repo.manifest("v2"), content)
    is_about(repo.manifest(content.digest), content)
    assert repo.tags().expect(200).json()["tags"] == ["v2"]


def test_the_last_tag(repo: Repository) -> None:
    """end-9, end-8a: a repository without tags is still there while it has a manifest: 200 and an empty list."""
    content = repo.push_all(image(), "v1")
    delete_manifest(repo, "v1").expect(202)
    assert repo.tags().expect(200).json()["tags"] == []
    is_about(repo.manifest(content.digest), content)


def test_an_unknown_tag(repo: Repository) -> None:
    """end-9: a tag that is not there is 404."""
    repo.push_all(image(), "v1")
    delete_manifest(repo, "v2").refused(404, "MANIFEST_UNKNOWN")


def test_a_manifest(repo: Repository) -> None:
    """end-9: deleting a manifest is 202; it and every tag that pointed to it are 404, other content stays."""
    content, kept = repo.push_all(image(), "v1"), repo.push_all(image(), "kept")
    repo.push(content, "v2")
    delete_manifest(repo, content.digest).expect(202)
    for reference in (content.digest, "v1", "v2"):
        repo.manifest(reference).expect(404)
        repo.manifest(reference, "HEAD").expect(404)
    assert repo.tags().expect(200).json()["tags"] == ["kept"]
    is_about(repo.manifest("kept"), kept)


def test_an_unknown_manifest(repo: Repository) -> None:
    """end-9: a manifest that is not there is 404, so deleting twice is."""
    content = repo.push_all(image(), "v1")
    delete_manifest(repo, NOWHERE).refused(404, "MANIFEST_UNKNOWN")
    delete_manifest(repo, content.digest).expect(202)
    delete_manifest(repo, content.digest).refused(404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("reference", ["v1", NOWHERE], ids=["tag", "digest"])
def test_a_manifest_of_an_unknown_repository(repo: Repository, reference: str) -> None:
    """end-9: in a repository that does not exist everything is 404."""
    delete_manifest(repo, reference).expect(404)


@pytest.mark.parametrize("digest", MALFORMED.values(), ids=MALFORMED)
def test_a_manifest_without_a_digest(repo: Repository, digest: str) -> None:
    """end-9: what is no digest is refused, or simply not found."""
    repo.push_all(image(), "v1")
    delete_manifest(repo, digest).expect(400, 404)


def test_a_manifest_in_one_of_two_repositories(repo: Repository, other: Repository) -> None:
    """end-9: the same manifest in another repository stays."""
    content = repo.push_all(image(), "v1")
    other.push_all(content, "v1")
    delete_manifest(repo, content.digest).expect(202)
    is_about(other.manifest("v1"), content)


def test_an_image_of_an_index(repo: Repository) -> None:
    """end-9: the index is another manifest than its images: one can go without the other."""
    child = image()
    content = repo.push_all(index([child, image()]), "v1")
    delete_manifest(repo, content.digest).expect(202)
    is_about(repo.manifest(child.digest), child)


def test_a_manifest_comes_back(repo: Repository) -> None:
    """end-9, end-7a: what was deleted can be pushed again."""
    content = repo.push_all(image(), "v1")
    delete_manifest(repo, content.digest).expect(202)
    repo.push_all(content, "v1")
    is_about(repo.manifest("v1"), content)


def test_a_blob(repo: Repository) -> None:
    """end-10: deleting a blob is 202, and it is 404 at once."""
    content = repo.push_blob(blob())
    delete_blob(repo, content.digest).expect(202)
    repo.blob(content.digest).refused(404, "BLOB_UNKNOWN")
    repo.blob(content.digest, "HEAD").expect(404)


def test_a_sha512_blob(repo: Repository) -> None:
    """end-10: by its sha512 digest as well."""
    content = repo.push_blob(blob(algorithm="sha512"))
    delete_blob(repo, content.digest).expect(202)
    repo.blob(content.digest).refused(404, "BLOB_UNKNOWN")


def test_an_unknown_blob(repo: Repository) -> None:
    """end-10: a blob that is not there is 404 BLOB_UNKNOWN, so deleting twice is."""
    content = repo.push_blob(blob())
    delete_blob(repo, NOWHERE).refused(404, "BLOB_UNKNOWN")
    delete_blob(repo, content.digest).expect(202)
    delete_blob(repo, content.digest).refused(404, "BLOB_UNKNOWN")


def test_a_blob_of_an_unknown_repository(repo: Repository) -> None:
    """end-10: in a repository that does not exist every blob is 404."""
    delete_blob(repo, NOWHERE).expect(404)


@pytest.mark.parametrize("digest", MALFORMED.values(), ids=MALFORMED)
def test_a_blob_without_a_digest(repo: Repository, digest: str) -> None:
    """end-10: what is no digest is refused, or simply not found."""
    repo.push_blob(blob())
    delete_blob(repo, digest).expect(400, 404)


def test_a_blob_in_one_of_two_repositories(repo: Repository, other: Repository) -> None:
    """end-10: the same blob in another repository stays."""
    content = repo.push_blob(blob())
    other.push_blob(content)
    delete_blob(repo, content.digest).expect(202)
    is_about(other.blob(content.digest), content)


def test_a_blob_comes_back(repo: Repository) -> None:
    """end-10, end-6: what was deleted can be pushed again."""
    content = repo.push_blob(blob())
    delete_blob(repo, content.digest).expect(202)
    repo.push_blob(content)
    is_about(repo.blob(content.digest), content)
