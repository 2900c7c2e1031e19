"""end-5, end-13 and end-14: blobs in chunks, what a session has so far, and giving it up."""

import pytest

from tests.conformance.client import Repository, is_about
from tests.conformance.content import OCTETS, blob

UNKNOWN = "blobs/uploads/11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize("framing", ["length", "http-chunks"])
def test_streamed(repo: Repository, framing: str) -> None:
    """end-5: PATCH without Content-Range takes the whole stream: 202 with Location and Range up to the last byte."""
    content = blob(100_000)
    pieces = iter([content.body[:1], content.body[1:]]) if framing == "http-chunks" else content.body
    answer = repo.patch(repo.session(), pieces).expect(202)
    assert answer.header("Range") == "0-99999"
    repo.finish(answer.header("Location"), content.digest).expect(201)
    is_about(repo.blob(content.digest), content)


def test_chunks_in_order(repo: Repository) -> None:
    """end-5: each chunk with its Content-Range is 202; Range ends where the chunk ended, and Location leads on."""
    opened = repo.begin().expect(202)
    size = max(1000, int(opened.headers.get("OCI-Chunk-Min-Length", "0")))
    content = blob(3 * size - 5)
    location = opened.header("Location")
    for start in range(0, len(content.body), size):
        chunk = content.body[start : start + size]
        answer = repo.patch(location, chunk, start).expect(202)
        assert answer.header("Range") == f"0-{start + len(chunk) - 1}"
        location = answer.header("Location")
    repo.finish(location, content.digest).expect(201)
    is_about(repo.blob(content.digest), content)


def test_a_minimum_length_of_chunks(repo: Repository) -> None:
    """end-4a, end-5: OCI-Chunk-Min-Length, if told, is a number of bytes; only chunks before the last must have it."""
    opened = repo.begin().expect(202)
    told = opened.headers.get("OCI-Chunk-Min-Length", "1")
    assert told.isdecimal() and int(told) >= 1, opened
    content = blob(int(told) + 1)
    location = repo.patch(opened.header("Location"), content.body[: int(told)], 0).expect(202).header("Location")
    location = repo.patch(location, content.body[int(told) :], int(told)).expect(202).header("Location")
    repo.finish(location, content.digest).expect(201)


@pytest.mark.parametrize("start", [1, 1000])
def test_the_first_chunk_begins_at_zero(repo: Repository, start: int) -> None:
    """end-5: a first chunk that begins anywhere else is 416."""
    content = blob(3000)
    repo.patch(repo.session(), content.body[start:], start).expect(416)


@pytest.mark.parametrize("start", [0, 999, 1001, 2000], ids=["again", "overlap", "gap", "skip"])
def test_a_chunk_out_of_order(repo: Repository, start: int) -> None:
    """end-5, end-13: a chunk that does not begin behind the last one is 416; GET tells where to go on from, and the
    upload is none the worse."""
    content = blob(3000)
    location = repo.patch(repo.session(), content.body[:1000], 0).expect(202).header("Location")
    repo.patch(location, content.body[start : start + 1000], start).expect(416)
    status = repo.registry.ask("GET", location).expect(204)
    assert status.header("Range") == "0-999"
    location = repo.patch(status.header("Location"), content.body[1000:], 1000).expect(202).header("Location")
    repo.finish(location, content.digest).expect(201)
    is_about(repo.blob(content.digest), content)


@pytest.mark.parametrize("place", ["bytes 0-99/100", "99-0", "0-", "a-b", "-"])
def test_no_proper_content_range(repo: Repository, place: str) -> None:
    """end-5: Content-Range is two numbers with a dash, the first one not the greater; anything else is refused."""
    headers = {"Content_Type": OCTETS, "Content_Range": place}
    repo.registry.ask("PATCH", repo.session(), b"x" * 100, **headers).expect(400, 416)


@pytest.mark.parametrize("place", ["0-49", "0-199"])
def test_a_content_range_of_another_length(repo: Repository, place: str) -> None:
    """end-5: Content-Range and Content-Length must agree, else the chunk is refused (SIZE_INVALID) and not counted."""
    location = repo.session()
    headers = {"Content_Type": OCTETS, "Content_Range": place}
    answer = repo.registry.ask("PATCH", location, b"x" * 100, **headers).expect(400, 416)
    if answer.status == 400:
        assert {"SIZE_INVALID", "BLOB_UPLOAD_INVALID"} & set(answer.codes())
    content = blob()
    location = repo.patch(location, content.body, 0).expect(202).header("Location")
    repo.finish(location, content.digest).expect(201)


def test_many_small_chunks(repo: Repository) -> None:
    """end-5: without OCI-Chunk-Min-Length chunks may be as small as they like."""
    opened = repo.begin().expect(202)
    size = int(opened.headers.get("OCI-Chunk-Min-Length", "1"))
    content = blob(20 * size)
    location = opened.header("Location")
    for start in range(0, 20 * size, size):
        location = repo.patch(location, content.body[start : start + size], start).expect(202).header("Location")
    repo.finish(location, content.digest).expect(201)
    is_about(repo.blob(content.digest), content)


# What a session has


def test_the_status_of_a_fresh_session(repo: Repository) -> None:
    """end-13: GET of a session is 204 with Location and a Range that begins with 0-."""
    answer = repo.registry.ask("GET", repo.session()).expect(204)
    assert answer.header("Range").startswith("0-")
    assert answer.body == b""
    content = blob()
    repo.finish(answer.header("Location"), content.digest, content.body).expect(201)


def test_the_status_after_a_chunk(repo: Repository) -> None:
    """end-13: Range tells the position of the last byte the session has; asking twice changes nothing."""
    content = blob()
    location = repo.patch(repo.session(), content.body[:700], 0).expect(202).header("Location")
    for _ in range(2):
        status = repo.registry.ask("GET", location).expect(204)
        assert status.header("Range") == "0-699"
    location = repo.patch(status.header("Location"), content.body[700:], 700).expect(202).header("Location")
    repo.finish(location, content.digest).expect(201)


def test_the_status_of_nothing(repo: Repository) -> None:
    """end-13: an unknown session is 404 BLOB_UPLOAD_UNKNOWN."""
    repo.ask("GET", UNKNOWN).refused(404, "BLOB_UPLOAD_UNKNOWN")


# Giving up


def test_a_cancelled_session_is_gone(repo: Repository) -> None:
    """end-14: DELETE is 204; after it every method finds no session: 404 BLOB_UPLOAD_UNKNOWN."""
    content = blob()
    location = repo.patch(repo.session(), content.body, 0).expect(202).header("Location")
    assert repo.registry.ask("DELETE", location).expect(204).body == b""
    repo.registry.ask("GET", location).refused(404, "BLOB_UPLOAD_UNKNOWN")
    repo.patch(location, b"more").refused(404, "BLOB_UPLOAD_UNKNOWN")
    repo.finish(location, content.digest).refused(404, "BLOB_UPLOAD_UNKNOWN")
    repo.registry.ask("DELETE", location).refused(404, "BLOB_UPLOAD_UNKNOWN")
    repo.blob(content.digest, "HEAD").expect(404)


def test_cancelling_nothing(repo: Repository) -> None:
    """end-14: an unknown session is 404 BLOB_UPLOAD_UNKNOWN."""
    repo.ask("DELETE", UNKNOWN).refused(404, "BLOB_UPLOAD_UNKNOWN")


def test_cancelling_one_of_two(repo: Repository) -> None:
    """end-14: another session, of the same blob even, goes on."""
    content = blob()
    first, second = repo.session(), repo.session()
    second = repo.patch(second, content.body[:500], 0).expect(202).header("Location")
    repo.registry.ask("DELETE", first).expect(204)
    repo.finish(second, content.digest, content.body[500:]).expect(201)
    is_about(repo.blob(content.digest), content)
