"""end-4 and end-6: sessions that take a blob in one piece, and how they are closed."""

import pytest

from tests.conformance.client import Repository, is_about, located
from tests.conformance.content import OCTETS, Content, blob
from tests.conformance.test_blobs import MALFORMED

ALGORITHMS = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])


def test_a_session_begins(repo: Repository) -> None:
    """end-4a: POST is 202, and Location is where the blob goes."""
    location = repo.begin().expect(202).header("Location")
    content = blob()
    repo.finish(location, content.digest, content.body).expect(201)


def test_sessions_are_apart(repo: Repository) -> None:
    """end-4a: concurrent uploads are supported: each has its location, and none gets another one's bytes."""
    first, second = repo.session(), repo.session()
    assert first != second
    one, two = blob(), blob()
    first = repo.patch(first, one.body[:500], 0).expect(202).header("Location")
    second = repo.patch(second, two.body[:500], 0).expect(202).header("Location")
    repo.finish(first, one.digest, one.body[500:]).expect(201)
    repo.finish(second, two.digest, two.body[500:]).expect(201)
    is_about(repo.blob(one.digest), one)
    is_about(repo.blob(two.digest), two)


def test_a_session_is_of_one_repository(repo: Repository, other: Repository) -> None:
    """end-4a: the location of one repository is no session of another one."""
    location = repo.session()
    assert repo.name in location
    content = blob()
    repo.finish(location.replace(repo.name, other.name), content.digest, content.body).expect(400, 404)


# A single POST


@ALGORITHMS
def test_a_single_post(repo: Repository, algorithm: str) -> None:
    """end-4b: POST with digest and body is the whole upload: 201, Location is a blob to be pulled (optional)."""
    content = blob(algorithm=algorithm)
    path = repo.path("blobs/uploads/", digest=content.digest)
    answer = repo.registry.ask("POST", path, content.body, Content_Type=OCTETS).expect(201)
    assert answer.header("Docker-Content-Digest") == content.digest
    is_about(repo.registry.ask("GET", answer.header("Location")), content)


def test_a_single_post_of_nothing(repo: Repository) -> None:
    """end-4b: the empty blob too (optional)."""
    content = Content(b"")
    path = repo.path("blobs/uploads/", digest=content.digest)
    repo.registry.ask("POST", path, b"", Content_Type=OCTETS).expect(201)
    is_about(repo.blob(content.digest), content)


def test_a_single_post_of_something_else(repo: Repository) -> None:
    """end-4b: a body that does not match the digest is 400 DIGEST_INVALID, and nothing is stored."""
    content = blob()
    path = repo.path("blobs/uploads/", digest=content.digest)
    repo.registry.ask("POST", path, content.body + b"!", Content_Type=OCTETS).refused(400, "DIGEST_INVALID")
    repo.blob(content.digest, "HEAD").expect(404)


@pytest.mark.parametrize("digest", MALFORMED.values(), ids=MALFORMED)
def test_a_single_post_without_a_digest(repo: Repository, digest: str) -> None:
    """end-4b: what is no digest, or one of an unsupported algorithm, is 400 DIGEST_INVALID."""
    path = repo.path("blobs/uploads/", digest=digest)
    repo.registry.ask("POST", path, b"content", Content_Type=OCTETS).refused(400, "DIGEST_INVALID")


# Algorithms


@ALGORITHMS
def test_an_algorithm_told_in_advance(repo: Repository, algorithm: str) -> None:
    """end-4c: digest-algorithm tells what the blob will be named by; the session is as any other."""
    content = blob(algorithm=algorithm)
    location = repo.begin(digest_algorithm=algorithm).expect(202).header("Location")
    location = repo.patch(location, content.body[:300], 0).expect(202).header("Location")
    repo.finish(location, content.digest, content.body[300:]).expect(201)
    is_about(repo.blob(content.digest), content)


def test_an_algorithm_told_in_advance_is_a_hint(repo: Repository) -> None:
    """end-4c: it is no promise: a session closed with a digest of another algorithm is checked by that one."""
    content = blob()
    location = repo.begin(digest_algorithm="sha512").expect(202).header("Location")
    location = repo.patch(location, content.body).expect(202).header("Location")
    repo.finish(location, content.digest).expect(201)
    is_about(repo.blob(content.digest), content)


def test_an_unsupported_algorithm(repo: Repository) -> None:
    """end-4c: an algorithm the registry does not support is 400."""
    repo.begin(digest_algorithm="md5").expect(400)


# Closing


@ALGORITHMS
def test_the_whole_blob_in_the_put(repo: Repository, algorithm: str) -> None:
    """end-6: PUT with digest and body is 201, and Location is a blob to be pulled."""
    content = blob(algorithm=algorithm)
    answer = repo.finish(repo.session(), content.digest, content.body).expect(201)
    assert answer.header("Docker-Content-Digest") == content.digest
    is_about(repo.registry.ask("GET", answer.header("Location")), content)


@ALGORITHMS
def test_nothing_in_the_put(repo: Repository, algorithm: str) -> None:
    """end-6: PUT without a body closes what PATCH has brought."""
    content = blob(algorithm=algorithm)
    location = repo.patch(repo.session(), content.body).expect(202).header("Location")
    answer = repo.finish(location, content.digest).expect(201)
    is_about(repo.registry.ask("GET", answer.header("Location")), content)


def test_the_last_chunk_in_the_put(repo: Repository) -> None:
    """end-6: the last chunk may come with the PUT, with its Content-Range."""
    content = blob(3000)
    location = repo.patch(repo.session(), content.body[:2000], 0).expect(202).header("Location")
    repo.finish(location, content.digest, content.body[2000:], Content_Range="2000-2999").expect(201)
    is_about(repo.blob(content.digest), content)


@pytest.mark.parametrize("place", ["2500-3499", "0-999", "1000-1999"])
def test_the_last_chunk_out_of_order(repo: Repository, place: str) -> None:
    """end-6, end-13: out of order there it is 416, and the session can still be closed as it should be."""
    content = blob(3000)
    location = repo.patch(repo.session(), content.body[:2000], 0).expect(202).header("Location")
    repo.finish(location, content.digest, content.body[2000:], Content_Range=place).expect(416)
    status = repo.registry.ask("GET", location).expect(204)
    assert status.header("Range") == "0-1999"
    repo.finish(status.header("Location"), content.digest, content.body[2000:], Content_Range="2000-2999").expect(201)
    is_about(repo.blob(content.digest), content)


def test_a_put_in_http_chunks(repo: Repository) -> None:
    """end-6: a body of unknown length is taken as well."""
    content = blob(200_000)
    pieces = (content.body[start : start + 7001] for start in range(0, 200_000, 7001))
    repo.finish(repo.session(), content.digest, pieces).expect(201)
    is_about(repo.blob(content.digest), content)


def test_an_empty_upload(repo: Repository) -> None:
    """end-6: a session closed without a byte is the empty blob."""
    content = Content(b"")
    repo.finish(repo.session(), content.digest).expect(201)
    is_about(repo.blob(content.digest), content)


def test_no_digest(repo: Repository) -> None:
    """end-6: the closing PUT must have the digest; without it is 400 DIGEST_INVALID."""
    repo.finish(repo.session(), None, b"content").refused(400, "DIGEST_INVALID")


@pytest.mark.parametrize("digest", MALFORMED.values(), ids=MALFORMED)
def test_no_proper_digest(repo: Repository, digest: str) -> None:
    """end-6: what is no digest, or one of an unsupported algorithm, is 400 DIGEST_INVALID."""
    repo.finish(repo.session(), digest, b"content").refused(400, "DIGEST_INVALID")


def test_an_upper_case_digest(repo: Repository) -> None:
    """end-6: the digits of a digest are lower case; a right one in upper case is 400."""
    content = blob()
    algorithm, _, digits = content.digest.partition(":")
    repo.finish(repo.session(), f"{algorithm}:{digits.upper()}", content.body).refused(400, "DIGEST_INVALID")


@ALGORITHMS
@pytest.mark.parametrize("way", ["put", "patch", "both"])
def test_the_wrong_digest(repo: Repository, algorithm: str, way: str) -> None:
    """end-6: content that does not match is 400 DIGEST_INVALID however it came, and nothing is stored."""
    content = blob(algorithm=algorithm)
    sent = content.body + b"!"
    split = {"put": 0, "patch": len(sent), "both": 500}[way]
    location = repo.session()
    if split:
        location = repo.patch(location, sent[:split]).expect(202).header("Location")
    repo.finish(location, content.digest, sent[split:] or None).refused(400, "DIGEST_INVALID")
    repo.blob(content.digest, "HEAD").expect(404)


def test_a_closed_session_is_gone(repo: Repository) -> None:
    """end-6, end-5, end-13: after the 201 the session is unknown to every method: 404 BLOB_UPLOAD_UNKNOWN. Who did not
    hear the 201 and finishes once more may hear it then, for what is there and for nothing else."""
    content, other = blob(), blob()
    location = repo.session()
    repo.finish(location, content.digest, content.body).expect(201)
    repo.finish(location, content.digest, content.body).expect(201, 404)
    repo.finish(location, other.digest, other.body).refused(404, "BLOB_UPLOAD_UNKNOWN")
    repo.patch(location, b"more").refused(404, "BLOB_UPLOAD_UNKNOWN")
    repo.registry.ask("GET", location).refused(404, "BLOB_UPLOAD_UNKNOWN")


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_an_unknown_session(repo: Repository, method: str) -> None:
    """end-5, end-6: a session that never was is 404 BLOB_UPLOAD_UNKNOWN."""
    content = blob()
    path = located(repo.path("blobs/uploads/11111111-2222-4333-8444-555555555555"), content.digest)
    repo.registry.ask(method, path, content.body, Content_Type=OCTETS).refused(404, "BLOB_UPLOAD_UNKNOWN")
