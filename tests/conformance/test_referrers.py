"""end-12a and end-12b: what refers to a manifest."""

from typing import Any

import pytest

from tests.conformance.client import Answer, Repository
from tests.conformance.content import OCI_CONFIG, OCI_INDEX, Content, artifact, image, index
from tests.conformance.test_blobs import MALFORMED, NOWHERE

SBOM = "application/vnd.example.sbom.v1"
SIGNATURE = "application/vnd.example.signature.v1"


def entries(answer: Answer) -> list[dict[str, Any]]:
    """The descriptors of a page, which has to be an image index."""
    answer.expect(200)
    assert answer.header("Content-Type") == OCI_INDEX
    document = answer.json()
    assert (document["schemaVersion"], document["mediaType"]) == (2, OCI_INDEX)
    assert isinstance(document["manifests"], list)
    return document["manifests"]


def everything(repo: Repository, digest: str, **query: str) -> dict[str, dict[str, Any]]:
    """The descriptors of all pages by digest, none of them twice."""
    answer = repo.referrers(digest, **query)
    found = entries(answer)
    while (further := answer.next()) is not None:
        answer = repo.registry.ask("GET", further)
        found += entries(answer)
    named = {entry["digest"]: entry for entry in found}
    assert len(named) == len(found)
    return named


def test_none(repo: Repository) -> None:
    """end-12a: a manifest nothing refers to has an index without manifests, 200."""
    content = repo.push_all(image(), "v1")
    assert entries(repo.referrers(content.digest)) == []


def test_an_unknown_digest(repo: Repository) -> None:
    """end-12a: it is never 404: a digest nobody has pushed has no referrers."""
    repo.push_all(image(), "v1")
    assert entries(repo.referrers(NOWHERE)) == []


def test_an_unknown_repository(repo: Repository) -> None:
    """end-12a: nor for a repository that does not exist: 404 would mean that the call is not supported."""
    assert entries(repo.referrers(NOWHERE)) == []


@pytest.mark.parametrize("digest", [*MALFORMED.values(), "v1"], ids=[*MALFORMED, "tag"])
def test_a_malformed_digest(repo: Repository, digest: str) -> None:
    """end-12a: what is no digest is 400."""
    repo.push_all(image(), "v1")
    repo.referrers(digest).expect(400)


def test_an_artifact(repo: Repository) -> None:
    """end-12a: a referrer is told by type, digest, size, artifactType and all its annotations."""
    subject = repo.push_all(image(), "v1")
    annotations = {"org.example.format": "json", "org.example.of": "v1"}
    content = repo.push_all(artifact(SBOM, subject, annotations=annotations))
    assert everything(repo, subject.digest) == {
        content.digest: content.descriptor(artifactType=SBOM, annotations=annotations)
    }


def test_an_image_without_artifact_type(repo: Repository) -> None:
    """end-12a: where a manifest has no artifactType, its config's media type stands for it."""
    subject = repo.push_all(image(), "v1")
    content = repo.push_all(image(subject=subject.descriptor()))
    assert everything(repo, subject.digest)[content.digest]["artifactType"] == OCI_CONFIG


def test_an_index_without_artifact_type(repo: Repository) -> None:
    """end-12a: an index has none, and none is told."""
    subject = repo.push_all(image(), "v1")
    content = repo.push_all(index([], subject=subject.descriptor(), annotations={"a": "b"}))
    assert everything(repo, subject.digest) == {content.digest: content.descriptor(annotations={"a": "b"})}


def test_an_index_with_artifact_type(repo: Repository) -> None:
    """end-12a: an index that has one is told with it."""
    subject = repo.push_all(index([image()]), "v1")
    content = repo.push_all(index([], subject=subject.descriptor(), artifactType=SBOM))
    assert everything(repo, subject.digest)[content.digest]["artifactType"] == SBOM


def test_several(repo: Repository) -> None:
    """end-12a: all of them, tagged or not, each once however often it was pushed."""
    subject = repo.push_all(image(), "v1")
    first, second = (repo.push_all(artifact(kind, subject)) for kind in (SBOM, SIGNATURE))
    repo.push(first, "sbom")
    repo.push(first, "sbom-too")
    assert set(everything(repo, subject.digest)) == {first.digest, second.digest}


def test_a_referrer_of_a_referrer(repo: Repository) -> None:
    """end-12a: only what refers to the digest itself is listed."""
    subject = repo.push_all(image(), "v1")
    sbom = repo.push_all(artifact(SBOM, subject))
    signature = repo.push_all(artifact(SIGNATURE, sbom))
    assert set(everything(repo, subject.digest)) == {sbom.digest}
    assert set(everything(repo, sbom.digest)) == {signature.digest}


def test_before_the_subject(repo: Repository) -> None:
    """end-12a, end-7a: what is pushed before its subject is listed at once, and still is when the subject has come."""
    subject = image()
    content = repo.push_all(artifact(SBOM, subject))
    assert set(everything(repo, subject.digest)) == {content.digest}
    repo.push_all(subject, "v1")
    assert set(everything(repo, subject.digest)) == {content.digest}


def test_deleted(repo: Repository) -> None:
    """end-12a, end-9: a referrer that was deleted is listed no more."""
    subject = repo.push_all(image(), "v1")
    first, second = (repo.push_all(artifact(kind, subject)) for kind in (SBOM, SIGNATURE))
    repo.ask("DELETE", f"manifests/{first.digest}").expect(202)
    assert set(everything(repo, subject.digest)) == {second.digest}


def test_a_deleted_subject(repo: Repository) -> None:
    """end-12a, end-9: a subject that was deleted is one that is not there: 200, never 404."""
    subject = repo.push_all(image(), "v1")
    repo.push_all(artifact(SBOM, subject))
    repo.ask("DELETE", f"manifests/{subject.digest}").expect(202)
    entries(repo.referrers(subject.digest))


def test_another_repository(repo: Repository, other: Repository) -> None:
    """end-12a: referrers are those of this repository."""
    subject = repo.push_all(image(), "v1")
    repo.push_all(artifact(SBOM, subject))
    other.push_all(subject, "v1")
    assert entries(other.referrers(subject.digest)) == []


def test_a_sha512_subject(repo: Repository) -> None:
    """end-12a: a subject named by sha512 is found by that name."""
    subject = repo.push_all(image(algorithm="sha512"))
    content = repo.push_all(artifact(SBOM, subject))
    assert set(everything(repo, subject.digest)) == {content.digest}


def test_many(repo: Repository) -> None:
    """end-12a: more than fit in one answer come in pages, each with a Link to the next one, all together complete."""
    subject = repo.push_all(image(), "v1")
    plain = artifact(SBOM, subject)
    repo.push_all(plain)
    parts = plain.parts
    note = "n" * 100_000
    pushed = {plain.digest}
    for number in range(60):
        made = artifact(SBOM, subject, annotations={"number": str(number), "note": note})
        body = made.body.replace(made.parts[-1].digest.encode(), parts[-1].digest.encode())
        pushed.add(repo.push(Content(body, made.media_type, parts)).digest)
    assert set(everything(repo, subject.digest)) == pushed


@pytest.mark.parametrize("kind", [SBOM, SIGNATURE, OCI_CONFIG, "application/vnd.example.none"])
def test_filtered(repo: Repository, kind: str) -> None:
    """end-12b: artifactType leaves only referrers of that type, and OCI-Filters-Applied says so (optional)."""
    subject = repo.push_all(image(), "v1")
    referrers = [
        (SBOM, repo.push_all(artifact(SBOM, subject))),
        (SBOM, repo.push_all(index([], subject=subject.descriptor(), artifactType=SBOM))),
        (SIGNATURE, repo.push_all(artifact(SIGNATURE, subject))),
        (OCI_CONFIG, repo.push_all(image(subject=subject.descriptor()))),
    ]
    answer = repo.referrers(subject.digest, artifactType=kind)
    assert "artifactType" in answer.header("OCI-Filters-Applied").replace(" ", "").split(",")
    wanted = {content.digest for of, content in referrers if of == kind}
    assert set(everything(repo, subject.digest, artifactType=kind)) == wanted


def test_not_filtered(repo: Repository) -> None:
    """end-12a: without a filter no filter is said to be applied."""
    subject = repo.push_all(image(), "v1")
    assert repo.referrers(subject.digest).expect(200).headers.get("OCI-Filters-Applied") is None


def test_the_fallback_tag(repo: Repository) -> None:
    """end-7a, end-3: clients of registries without this call keep an index under a tag made of the digest."""
    subject = repo.push_all(image(), "v1")
    listing = index([repo.push_all(artifact(SBOM, subject))])
    tag = subject.digest.replace(":", "-")
    repo.push(listing, tag)
    assert repo.manifest(tag).expect(200).body == listing.body
