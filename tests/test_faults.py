"""What an upstream may do to a blob, and what its clients get to see of it: the right bytes or an honest error.

Every answer is judged by the same rule: a body that ended as announced is the blob, everything else is a status above
399 or a cut connection. And one failure is one chain of requests, whoever asked.
"""

import random
import time

import pytest

from tests.fakes import (
    Cut,
    Drip,
    Flip,
    GzipRange,
    Hangup,
    Html,
    IgnoreRange,
    NoLength,
    Silence,
    Stall,
    Status,
    WrongLength,
    WrongRangeStart,
    WrongRangeTotal,
)
from tests.support import CLIENTS, MIB, assert_few, blob_path, crowd, finished, get, kept, noise, quick, spread, until

REPO = "coredns/coredns"
SIZE = 3 * MIB
HALF = SIZE // 2


def made(far, seed):
    """A blob nobody has asked for yet: content, digest, path."""
    content = noise(SIZE, seed)
    digest = far.add_blob(REPO, content)
    return content, digest, blob_path(REPO, digest)


@pytest.fixture
def cold(shared, request):
    """The same, other bytes for each test."""
    return made(shared[0], request.node.name)


def honest(got, content):
    """Whole and right, or an error, or visibly cut."""
    return got.is_blob(content) or got.status >= 400 or not got.whole


# Before the first byte: the status is still free, and one chain of attempts is all 50 clients cost


REFUSALS = {
    "404": (Status(404), 404, 1),
    "401": (Status(401), 403, 1),
    "403": (Status(403), 403, 1),
    "429": (Status(429, {"Retry-After": "17"}), 503, 1),
    "500": (Status(500), 503, 4),
    "503": (Status(503, {"Retry-After": "40"}), 503, 4),
    "hangs up": (Hangup(), 503, 8),  # aiohttp asks again by itself on a kept-alive connection
    "a web page": (Html(), 503, 4),
    "never": (Silence(), 503, 4),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_50_clients_of_a_refused_blob_cost_one_chain_of_attempts(tidegate, far, kind):
    _, digest, path = made(far, kind)
    fault, status, most = REFUSALS[kind]
    far.fault(digest, fault)
    server = tidegate(quick(far.url), workers=4)
    with spread(server, CLIENTS) as clients:
        answers = crowd(clients, path)
    assert {got.status for got in answers} == {status}
    assert all(got.whole for got in answers)
    assert max(got.seconds for got in answers) < 8
    assert_few(far, most)
    assert not finished(server, digest).exists()
    wait = {got.headers.get("Retry-After") for got in answers}
    assert wait == {{"429": "17", "503": "40"}.get(kind, wait.copy().pop())}
    assert (None in wait) == (status != 503)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_web_page_is_no_blob_and_leaves_nothing_behind(shared, cold, method):
    """Its length would be taken for the blob's, and a cut 200 for a bad line."""
    far, server = shared
    content, digest, path = cold
    page = far.fault(digest, Html())
    assert get(server, path, method).status == 503
    far.rules.remove(page)
    head = until(lambda: (got := get(server, path, "HEAD")).status == 200 and got)
    assert head.headers["Content-Length"] == str(len(content))
    assert until(lambda: get(server, path).is_blob(content))


# In the middle: resumed inside the same response


ROUGH = {
    "cut": [Cut(HALF)],
    "cut twice": [Cut(HALF), Cut(100_000)],
    "stalled": [Stall(HALF)],
    "cut, then ignores Range": [Cut(HALF), IgnoreRange()],
    "cut, then a 206 from elsewhere": [Cut(HALF), WrongRangeStart()],
    "cut, then a 206 from earlier": [Cut(HALF), WrongRangeStart(-1)],
    "cut, then a gzipped 206": [Cut(HALF), GzipRange()],
    "cut, then 400 as the CDN did": [Cut(HALF), Status(400)],
    "cut, then 503": [Cut(HALF), Status(503)],
    "cut, then 416": [Cut(HALF), Status(416, {"Content-Range": f"bytes */{SIZE}"})],
    "cut before the first byte": [Cut(0)],
    "hung up at first": [Hangup(), Hangup()],
}


@pytest.mark.parametrize("rough", ROUGH)
def test_a_rough_upstream_is_smoothed_inside_one_response(shared, cold, rough):
    far, server = shared
    content, digest, path = cold
    for fault in ROUGH[rough]:
        far.fault(digest, fault, times=1)
    assert get(server, path).is_blob(content)
    assert far.count("GET", digest) <= len(ROUGH[rough]) + 2
    assert kept(server, digest) == content
    first = next((request.sent for request in far.log.select(contains=digest) if request.sent), 0)
    if first and first < SIZE:
        # At most what was sent: the last of it may still have been in a buffer when the connection broke.
        resumed = int(far.log.select(contains=digest)[1].headers["range"].removeprefix("bytes=").removesuffix("-"))
        assert first - (1 << 20) < resumed <= first


LIES = {
    "too long": [WrongLength(1000)],
    "too short": [WrongLength(-1000)],
    "another total in the 206": [Cut(HALF), WrongRangeTotal(1000)],
    "a smaller total in the 206": [Cut(HALF), WrongRangeTotal(-1000)],
    "one byte wrong": [Flip(HALF)],
    "the first byte wrong": [Flip(0)],
    "the last byte wrong": [Flip(SIZE - 1)],
    "a wrong byte behind a cut": [Cut(HALF), Flip(HALF + 10)],
    "unknown size, cut in the middle": [NoLength(), Cut(HALF)],
}


@pytest.mark.parametrize("ever", [False, True], ids=["at first", "always"])
@pytest.mark.parametrize("lie", LIES)
def test_no_lie_of_an_upstream_becomes_a_complete_body(shared, cold, lie, ever):
    far, server = shared
    content, digest, path = cold
    *before, last = LIES[lie]
    if lie.startswith("unknown"):
        far.fault(digest, *LIES[lie], times=None if ever else 1)
    else:
        for fault in before:
            far.fault(digest, fault, times=1)
        far.fault(digest, last, times=None if ever else 1)
    with spread(server, 8) as clients:
        answers = crowd(clients, path)
    assert all(honest(got, content) for got in answers)
    assert far.count(contains=digest) < 10
    if ever and "wrong" in lie:
        assert not finished(server, digest).exists()
        until(lambda: get(server, path).status == 503)  # the second try may still be under way


def test_a_wrong_first_answer_is_forgotten_once_the_upstream_is_right(shared, cold):
    far, server = shared
    content, digest, path = cold
    wrong = far.fault(digest, Flip(10))
    assert not get(server, path).is_blob(content)
    far.rules.remove(wrong)
    assert until(lambda: get(server, path).is_blob(content))
    assert kept(server, digest) == content


def test_416_at_the_end_of_a_part_of_unknown_size_completes_it(tidegate, far):
    """All bytes came, but not the end of the chunked body: N is known only from the 416's Content-Range. A stall, not
    a cut, because a client library may drop what it has not handed over when the connection breaks."""
    content = noise(SIZE)
    digest = far.add_blob(REPO, content)
    path = blob_path(REPO, digest)
    far.fault(digest, NoLength(), Stall(SIZE), times=1)
    # Three seconds: on a busy machine a second may pass before the first of the bytes is read.
    server = tidegate(quick(far.url, stall_timeout="3s", first_byte_deadline="10s"), workers=1)
    assert get(server, path).is_blob(content)
    assert [request.status for request in far.log.select(contains=digest)] == [200, 416]
    assert kept(server, digest) == content


def test_a_wrong_size_in_a_manifest_is_told_apart_from_the_blob(shared, cold):
    """Whoever lies, manifest or upstream: they differ, so nothing is delivered under that repository's name."""
    far, server = shared
    content, digest, path = cold
    lie = f'{{"schemaVersion":2,"layers":[{{"mediaType":"a/b","digest":"{digest}","size":{SIZE - 5}}}]}}'
    far.add_manifest(REPO, "lie", lie.encode())
    far.add_blob("honest", content)
    assert get(server, f"/v2/{REPO}/manifests/lie").status == 200
    refused = get(server, path)
    assert refused.status == 503
    assert str(SIZE) in refused.reason
    assert get(server, blob_path("honest", digest)).is_blob(content)


def test_a_dripping_upstream_is_passed_on_as_it_drips(shared, cold):
    far, server = shared
    content, digest, path = cold
    far.fault(digest, Drip(64 << 10, 0.02))
    with spread(server, 1) as (one,):
        began = time.monotonic()
        response = one.start(path)
        assert response.read(1000) == content[:1000]
        first = time.monotonic() - began
        assert response.read() == content[1000:]
    assert first < (time.monotonic() - began) / 3


@pytest.mark.parametrize("seed", range(3))
def test_any_row_of_faults_ends_in_the_blob_or_an_error(shared, cold, seed):
    """Faults in an order nobody thought of."""
    far, server = shared
    content, digest, path = cold
    dice = random.Random(seed)
    pool = [
        Cut(dice.randrange(SIZE)), Cut(1), Flip(dice.randrange(SIZE)), IgnoreRange(), WrongRangeStart(5),
        WrongRangeTotal(7), GzipRange(), Status(500), Status(206), Hangup(), NoLength(), WrongLength(9), Html(),
    ]  # fmt: skip
    for fault in dice.sample(pool, 6):
        far.fault(digest, fault, times=1)
    with spread(server, 6) as clients:
        assert all(honest(got, content) for got in crowd(clients, path))
    assert until(lambda: get(server, path).is_blob(content), 15)
    assert kept(server, digest) == content
