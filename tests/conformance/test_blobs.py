"""end-2: blobs as they are pulled, whole and in ranges."""

import pytest

from tests.conformance.client import Repository, is_about
from tests.conformance.content import Content, blob, digest_of, image

NOWHERE = digest_of(b"nobody pushes this")
MALFORMED = {
    "short": "sha256:abc",
    "not-hex": "sha256:" + "g" * 64,
    "unknown-algorithm": "md5:" + "0" * 32,
    "too-long": "sha256:" + "0" * 128,
    "empty": "sha256:",
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_is_served_with_its_headers(repo: Repository, method: str) -> None:
    """end-2: an existing blob is 200 with Content-Length and Docker-Content-Digest; only GET has the bytes."""
    content = repo.push_blob(blob())
    is_about(repo.blob(content.digest, method), content)


def test_a_blob_of_some_size(repo: Repository) -> None:
    """end-2: every byte of a blob larger than any buffer arrives."""
    content = repo.push_blob(blob(5_000_011))
    is_about(repo.blob(content.digest), content)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_empty_blob(repo: Repository, method: str) -> None:
    """end-2: a blob of no bytes is a blob; Content-Length is 0."""
    content = repo.push_blob(Content(b""))
    is_about(repo.blob(content.digest, method), content)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_sha512_blob(repo: Repository, method: str) -> None:
    """end-2: a blob pushed by its sha512 digest is served under it, and the header names that digest."""
    content = repo.push_blob(blob(algorithm="sha512"))
    is_about(repo.blob(content.digest, method), content)


def test_an_unknown_blob(repo: Repository) -> None:
    """end-2: a blob that is not in the repository is 404 BLOB_UNKNOWN."""
    repo.push_blob(blob())
    repo.blob(NOWHERE).refused(404, "BLOB_UNKNOWN")


def test_an_unknown_blob_has_no_body_for_head(repo: Repository) -> None:
    """end-2: HEAD of a blob that is not there is 404, without a body."""
    repo.push_blob(blob())
    assert repo.blob(NOWHERE, "HEAD").expect(404).body == b""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_unknown_repository_has_no_blobs(repo: Repository, method: str) -> None:
    """end-2: so is any blob of a repository that does not exist."""
    repo.blob(NOWHERE, method).expect(404)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_blob_of_another_repository(repo: Repository, other: Repository, method: str) -> None:
    """end-2: content belongs to the repository it was pushed to; in another one it is 404."""
    content = repo.push_blob(blob())
    other.push_blob(blob())
    other.blob(content.digest, method).expect(404)


@pytest.mark.parametrize("digest", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_digest(repo: Repository, digest: str) -> None:
    """end-2: what is no digest is refused as DIGEST_INVALID, or simply not found."""
    repo.push_blob(blob())
    answer = repo.blob(digest).expect(400, 404)
    if answer.status == 400:
        answer.refused(400, "DIGEST_INVALID")


def test_a_digest_is_lower_case(repo: Repository) -> None:
    """end-2: hexadecimal digits of a digest are lower case; another spelling is not the same content."""
    content = repo.push_blob(blob())
    algorithm, _, digits = content.digest.partition(":")
    repo.blob(f"{algorithm}:{digits.upper()}").expect(400, 404)


def test_a_pushed_layer_can_be_pulled_after_its_manifest(repo: Repository) -> None:
    """end-2: every blob of an image is there once the image is."""
    content = repo.push_all(image(layers=3), "v1")
    for part in content.parts:
        is_about(repo.blob(part.digest), part)


# Ranges: RFC 9110, section 14

SIZE = 2048
PARTS = {
    "500-1499": (500, 1500),
    "0-0": (0, 1),
    "500-": (500, SIZE),
    "-500": (SIZE - 500, SIZE),
    "-5000": (0, SIZE),
    "2000-5000": (2000, SIZE),
}


@pytest.mark.parametrize("asked", PARTS)
def test_a_range(repo: Repository, asked: str) -> None:
    """end-2: a satisfiable range is 206 with its bytes, Content-Range and Content-Length, cut off at the end."""
    content = repo.push_blob(blob(SIZE))
    start, end = PARTS[asked]
    answer = repo.blob(content.digest, Range=f"bytes={asked}").expect(206)
    assert answer.body == content.body[start:end]
    assert answer.header("Content-Range") == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.header("Content-Length") == str(end - start)


@pytest.mark.parametrize("asked", ["2048-", "5000-10000"])
def test_a_range_behind_the_end(repo: Repository, asked: str) -> None:
    """end-2: a range that begins behind the last byte is 416, and Content-Range tells the size."""
    content = repo.push_blob(blob(SIZE))
    answer = repo.blob(content.digest, Range=f"bytes={asked}").expect(416)
    assert answer.header("Content-Range") == f"bytes */{SIZE}"


@pytest.mark.parametrize("asked", ["bytes=500-0", "bytes=x-y", "bytes=-"])
def test_a_range_that_is_none(repo: Repository, asked: str) -> None:
    """end-2: what is no range is ignored or refused, never served as some part."""
    content = repo.push_blob(blob(SIZE))
    answer = repo.blob(content.digest, Range=asked).expect(200, 416)
    assert answer.status == 416 or answer.body == content.body


def test_a_range_of_another_unit(repo: Repository) -> None:
    """end-2: a unit the registry does not know is ignored."""
    content = repo.push_blob(blob(SIZE))
    is_about(repo.blob(content.digest, Range="lines=1-2"), content)


def test_ranges_are_offered(repo: Repository) -> None:
    """end-2: who supports ranges says so with Accept-Ranges."""
    content = repo.push_blob(blob(SIZE))
    assert repo.blob(content.digest, "HEAD").header("Accept-Ranges") == "bytes"


def test_a_range_means_nothing_to_head(repo: Repository) -> None:
    """end-2: Range is defined for GET alone; HEAD tells the whole size."""
    content = repo.push_blob(blob(SIZE))
    is_about(repo.blob(content.digest, "HEAD", Range="bytes=0-9"), content)
