"""Ranges and conditions as RFC 9110 says, out of a running fill and out of a finished file alike."""

from tests.fakes import Stall
from tests.support import MIB, blob_path, client, digest_of, get, kept, noise, quick, until

REPO = "etcd"
BIG = 3 * MIB
LAST = BIG - 1
RANGES = {
    "bytes=0-0": (0, 0),
    "bytes=5-": (5, LAST),
    "bytes=-7": (LAST - 6, LAST),
    "bytes=-99999999": (0, LAST),
    "bytes=100-99999999": (100, LAST),
    "bytes=1048576-2097152": (1048576, 2097152),
    f"bytes={LAST}-": (LAST, LAST),
    f"bytes={LAST + 1}-": 416,
    "bytes=-0": 416,
    "bytes=0-1,5-6": 200,
    "bytes=9-3": 200,
    "lines=1-2": 200,
    "bytes=abc": 200,
}


def test_ranges_on_a_miss_and_on_a_hit(shared):
    far, server = shared
    for header, expected in RANGES.items():
        content = noise(BIG, header)
        digest = far.add_blob(REPO, content)
        for _ in ("miss", "hit"):
            got = get(server, blob_path(REPO, digest), Range=header)
            match expected:
                case (first, last):
                    assert (got.status, got.whole, got.body) == (206, True, content[first : last + 1])
                    assert got.headers["Content-Range"] == f"bytes {first}-{last}/{len(content)}"
                case 416:
                    assert (got.status, got.headers["Content-Range"]) == (416, f"bytes */{len(content)}")
                case 200:
                    assert got.is_blob(content)
            assert kept(server, digest) == content
        assert [request.headers.get("range") for request in far.log.select(contains=digest)] == [None]


def test_conditions(shared):
    far, server = shared
    content = noise(BIG, "conditions")
    digest = far.add_blob(REPO, content)
    path, tag = blob_path(REPO, digest), f'"{digest}"'
    assert get(server, path, If_None_Match=tag).status == 304
    assert far.count("GET", digest) == 0  # who has it already starts no download
    first = get(server, path)
    assert first.is_blob(content)
    assert first.headers["ETag"] == tag
    for header in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        got = get(server, path, If_None_Match=header)
        assert (got.status, got.body) == (304, b"")
        assert got.headers["ETag"] == tag
    assert get(server, path, If_None_Match='"other"').is_blob(content)
    assert get(server, path, If_Range=tag, Range="bytes=0-9").body == content[:10]
    assert get(server, path, If_Range='"other"', Range="bytes=0-9").is_blob(content)
    assert get(server, path, "HEAD", Range="bytes=0-9").headers["Content-Length"] == str(BIG)


def test_500_one_byte_ranges_by_a_client_that_leaves(tidegate, far):
    """Nobody makes the cache download the world: at most max_fills run, and it serves others afterwards."""
    blobs = [far.add_blob(REPO, noise(100_000, number)) for number in range(500)]
    fresh = noise(BIG, "fresh")
    far.add_blob("fresh", fresh)
    stuck = far.fault(f"/{REPO}/", Stall(50_000))
    server = tidegate(quick(far.url, max_fills=4, first_byte_deadline="4s"), workers=2)
    for digest in blobs:
        with client(server) as one:
            one.send(blob_path(REPO, digest), Range="bytes=99999-")
            one.leave()
    until(lambda: far.count() >= 4)
    assert len({request.path for request in far.log}) <= 4
    far.rules.remove(stuck)
    until(lambda: get(server, blob_path("fresh", digest_of(fresh))).is_blob(fresh), 20)
    until(lambda: server.metrics().total("tidegate_fills_in_flight") == 0, 20)
    assert len(server.worker_pids()) == 2
    assert get(server, blob_path(REPO, blobs[-1])).status == 200
