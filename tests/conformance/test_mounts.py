"""end-11: blobs taken from another repository."""

import pytest

from tests.conformance.client import Repository, is_about
from tests.conformance.content import blob, image
from tests.conformance.test_blobs import NOWHERE


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_mounted(repo: Repository, other: Repository, algorithm: str) -> None:
    """end-11: a blob that is in `from` is mounted: 201, Location is a blob of this repository to be pulled."""
    content = repo.push_blob(blob(algorithm=algorithm))
    answer = other.begin(mount=content.digest, **{"from": repo.name}).expect(201)
    assert answer.header("Docker-Content-Digest") == content.digest
    assert other.name in answer.header("Location")
    is_about(repo.registry.ask("GET", answer.header("Location")), content)


def test_mounted_without_from(repo: Repository, other: Repository) -> None:
    """end-11: `from` may be left out, and the blob be mounted from where it is found (optional)."""
    content = repo.push_blob(blob())
    answer = other.begin(mount=content.digest).expect(201)
    is_about(repo.registry.ask("GET", answer.header("Location")), content)


def test_nothing_to_mount(repo: Repository, other: Repository) -> None:
    """end-11, end-4a: a blob that is not in `from` cannot be mounted: 202, and Location is a session to push it."""
    repo.push_blob(blob())
    content = blob()
    location = other.begin(mount=content.digest, **{"from": repo.name}).expect(202).header("Location")
    other.finish(location, content.digest, content.body).expect(201)
    is_about(other.blob(content.digest), content)


def test_nowhere_to_mount_from(repo: Repository, other: Repository) -> None:
    """end-11: nor from a repository that does not exist."""
    location = repo.begin(mount=NOWHERE, **{"from": other.name}).expect(202).header("Location")
    content = blob()
    repo.finish(location, content.digest, content.body).expect(201)


def test_nothing_to_mount_without_from(repo: Repository) -> None:
    """end-11: nor from nowhere, when nobody has it: 202."""
    repo.begin(mount=NOWHERE).expect(202).header("Location")


def test_mounted_where_it_is(repo: Repository) -> None:
    """end-11: a repository may name itself."""
    content = repo.push_blob(blob())
    repo.begin(mount=content.digest, **{"from": repo.name}).expect(201)


def test_a_mount_without_a_digest(repo: Repository, other: Repository) -> None:
    """end-11: what is no digest is refused or opens a session, and is never mounted."""
    repo.push_blob(blob())
    other.begin(mount="sha256:abc", **{"from": repo.name}).expect(202, 400)


def test_a_mount_outlives_its_source(repo: Repository, other: Repository) -> None:
    """end-11, end-10: deleting the blob in one of the repositories leaves it in the other one."""
    content = repo.push_blob(blob())
    other.begin(mount=content.digest, **{"from": repo.name}).expect(201)
    repo.ask("DELETE", f"blobs/{content.digest}").expect(202)
    repo.blob(content.digest, "HEAD").expect(404)
    is_about(other.blob(content.digest), content)


def test_an_image_of_mounted_blobs(repo: Repository, other: Repository) -> None:
    """end-11, end-7a: a manifest whose blobs were mounted can be pushed."""
    content = repo.push_all(image(layers=2), "v1")
    for part in content.parts:
        other.begin(mount=part.digest, **{"from": repo.name}).expect(201)
    other.push(content, "v1")
    is_about(other.manifest("v1"), content)
