"""Two ways to the same bytes: what the first `urls` does not bring, the second one does, in the same answer.

Four workers, fifty clients, and both sources count what they were asked: what the first one has sent is not asked for
again.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes import Cut, Drip, Flip, Hangup, Html, Silence, Stall, Status, WrongLength, origin_in_thread
from tests.support import CLIENTS, MIB, assert_few, blob_path, crowd, get, kept, noise, quick, spread, until

REPO = "pause"
SIZE = 4 * MIB
HALF = SIZE // 2


@pytest.fixture
def second():
    """The other source; `far` is the first one."""
    with origin_in_thread() as running:
        yield running


@pytest.fixture
def start(tidegate, far, second):
    """A tidegate with four workers and two ways."""

    def start(**keys):
        return tidegate(quick(far.url, **{"urls": [far.url, second.url], "stall_timeout": "2s", **keys}), workers=4)

    return start


def everywhere(content, *sources):
    """A cold blob that all of them have: digest, path."""
    for source in sources:
        digest = source.add_blob(REPO, content)
    return digest, blob_path(REPO, digest)


def asked_from(request):
    """Where a request's Range begins, 0 without one."""
    found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
    return int(found[1]) if found else 0


# In the middle


BREAKS = {"cut": Cut(HALF), "stall": Stall(HALF), "cut at the last byte": Cut(SIZE - 1)}


@pytest.mark.parametrize("kind", BREAKS)
def test_what_breaks_at_the_first_source_goes_on_at_the_second(start, far, second, kind):
    content = noise(SIZE)
    digest, path = everywhere(content, far, second)
    far.fault(digest, Drip(512 << 10, 0.02), BREAKS[kind])
    with spread(start(), CLIENTS) as clients:
        answers = crowd(clients, path)
    assert all(got.is_blob(content) for got in answers)
    (first,), (rest,) = far.log, second.log
    assert (first.status, rest.status) == (200, 206)
    # Where it broke; the last of it may have died in a buffer.
    assert first.sent - MIB < asked_from(rest) <= first.sent
    assert rest.sent == SIZE - asked_from(rest)


def test_a_second_break_goes_back_to_the_first_source(start, far, second):
    content = noise(SIZE)
    digest, path = everywhere(content, far, second)
    far.fault(digest, Stall(MIB), times=1)
    second.fault(digest, Stall(MIB), times=1)
    server = start()
    with spread(server, CLIENTS) as clients:
        assert all(got.is_blob(content) for got in crowd(clients, path))
    assert [asked_from(request) for request in far.log] == [0, 2 * MIB]
    assert [asked_from(request) for request in second.log] == [MIB]
    assert kept(server, digest) == content


# Before the first byte


REFUSALS = {
    "404": Status(404), "403": Status(403), "429": Status(429, {"Retry-After": "60"}), "500": Status(500),
    "a web page": Html(), "hangs up": Hangup(), "silence": Silence(),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_the_first_source_refuses_the_second_one_has(start, far, second, kind):
    content = noise(SIZE)
    digest, path = everywhere(content, far, second)
    far.fault(digest, REFUSALS[kind])
    with spread(start(), CLIENTS) as clients:
        answers = crowd(clients, path)
    assert all(got.is_blob(content) for got in answers)
    assert max(got.seconds for got in answers) < 8
    # aiohttp asks again by itself on a kept-alive connection that was closed
    assert 1 <= far.count() <= (2 if kind == "hangs up" else 1)
    assert (second.count(), second.log.sent()) == (1, SIZE)


def test_a_first_source_that_is_down_costs_nobody_anything(start, far, second):
    content = noise(SIZE)
    _, path = everywhere(content, far, second)
    far.refusing = True
    with spread(start(), CLIENTS) as clients:
        assert all(got.is_blob(content) for got in crowd(clients, path))
    assert (second.count(), second.log.sent()) == (1, SIZE)


@pytest.mark.parametrize("kind", ["404", "500", "silence"])
def test_when_both_refuse_it_is_one_chain_of_attempts(start, far, second, kind):
    digest, path = everywhere(noise(SIZE), far, second)
    for source in (far, second):
        source.fault(digest, REFUSALS[kind])
    with spread(start(first_byte_deadline="2s"), CLIENTS) as clients:
        answers = crowd(clients, path)
    assert {got.status for got in answers} == {404 if kind == "404" else 503}
    assert max(got.seconds for got in answers) < 8
    most = 1 if kind == "404" else 4
    for source in (far, second):
        assert_few(source, most)


def test_another_repository_s_clients_may_come_while_the_first_source_is_waited_for(tidegate, far):
    """They bring a source of their own while no attempt is running: between two of them."""
    content = noise(MIB)
    paths = [blob_path(repo, far.add_blob(repo, content)) for repo in ("one", "two")]
    far.fault("/v2/one/blobs/", Status(503, {"Retry-After": "2"}), times=1)
    server = tidegate(quick(far.url, first_byte_deadline="8s"), workers=1)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(get, server, paths[0])
        until(lambda: far.count("GET", "/v2/one/blobs/"))
        time.sleep(0.5)  # its answer has arrived, and two seconds of waiting have begun
        assert get(server, paths[1]).is_blob(content)
        assert first.result().is_blob(content)
    assert "Traceback" not in server.stderr


# Lies


def test_wrong_bytes_of_the_first_source_come_right_from_the_second(start, far, second):
    """Who has got some of them is cut off; nobody ever has a whole wrong body; one more download, from the other."""
    content = noise(SIZE)
    digest, path = everywhere(content, far, second)
    far.fault(digest, Drip(512 << 10, 0.02), Flip(HALF))
    server = start()
    with spread(server, CLIENTS) as clients:
        answers = crowd(clients, path)
    assert all(got.is_blob(content) or not got.whole for got in answers), answers
    assert kept(server, digest) == content
    assert all(get(server, path).is_blob(content) for _ in range(4))
    assert [asked_from(request) for request in (*far.log, *second.log)] == [0, 0]
    assert (far.count(), second.count(), second.log.sent()) == (1, 1, SIZE)


def test_a_wrong_byte_in_front_of_a_cut_comes_right_too(start, far, second):
    """The second source continues what is spoilt already, and then sends all of it."""
    content = noise(SIZE)
    digest, path = everywhere(content, far, second)
    far.fault(digest, Flip(1000), Stall(HALF))
    server = start()
    with spread(server, CLIENTS) as clients:
        answers = crowd(clients, path)
    assert all(got.is_blob(content) or not got.whole for got in answers), answers
    assert kept(server, digest) == content
    assert [asked_from(request) for request in far.log] == [0]
    assert [asked_from(request) for request in second.log] == [HALF, 0]


@pytest.mark.parametrize("delta", [1000, -1000], ids=["too long", "too short"])
def test_a_length_that_the_manifest_denies_costs_one_request(start, far, second, delta):
    content = noise(SIZE)
    digest, path = everywhere(content, far, second)
    for source in (far, second):
        source.add_image(REPO, "3.9", content)
    far.fault(digest, WrongLength(delta))
    server = start()
    assert get(server, f"/v2/{REPO}/manifests/3.9").status == 200
    with spread(server, CLIENTS) as clients:
        assert all(got.is_blob(content) for got in crowd(clients, path))
    assert (far.count(contains=digest), second.count(contains=digest), second.log.sent()) == (1, 1, SIZE)


def test_a_length_that_nobody_denies_is_never_delivered(start, far, second):
    content = noise(SIZE)
    digest, path = everywhere(content, far, second)
    far.fault(digest, WrongLength(1000))
    server = start()
    with spread(server, CLIENTS) as clients:
        assert not any(got.whole and got.status == 200 and got.body != content for got in crowd(clients, path))
    until(lambda: get(server, path).is_blob(content), 15)
    assert kept(server, digest) == content


# Manifests


@pytest.mark.parametrize("kind", ["500", "429", "hangs up", "a web page", "silence"])
def test_manifests_and_tags_come_from_the_second_source_as_well(start, far, second, kind):
    image = second.add_image(REPO, "3.9", b"layer")
    far.fault("/v2/", REFUSALS[kind])
    with spread(start(), CLIENTS) as clients:
        for path in ("manifests/3.9", f"manifests/{image.digest}", "tags/list"):
            answers = crowd(clients, f"/v2/{REPO}/{path}")
            assert {got.status for got in answers} == {200}, path
            assert path == "tags/list" or all(got.body == image.manifest for got in answers)
    assert second.count(contains="/manifests/") == second.count(contains="/tags/") == 1
