"""The rows of the comparison with other caches: one test a row, counting upstream requests and bytes.

Rows that are only seconds or requests a second stand in tests/bench, which is run by hand.
"""

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fakes import Cut, Drip, Flip, Silence, Stall, Status
from tests.support import (
    CLIENTS,
    MIB,
    blob_path,
    crowd,
    finished,
    get,
    kept,
    noise,
    quick,
    spread,
    until,
    written,
)

REPO = "kube-proxy"
SLOW = Drip(128 << 10, 0.02)  # about 6 MiB/s


def cold(far, size=4 * MIB):
    content = noise(size)
    digest = far.add_blob(REPO, content)
    return content, digest, blob_path(REPO, digest)


def test_20_clients_one_cold_32_mib_blob(tidegate, far):
    content, _, path = cold(far, 32 * MIB)
    server = tidegate(quick(far.url), workers=2)
    with spread(server, 20) as clients:
        assert all(got.is_blob(content) for got in crowd(clients, path))
    assert far.log.sent() == 32 * MIB
    assert far.count() == 1


def test_resident_memory_after_a_large_cold_blob(tidegate, far):
    """A quarter of the row's gigabyte, by 8 clients: what would grow with the size would show."""
    content = noise(16 * MIB) * 16
    path = blob_path(REPO, far.add_blob(REPO, content))
    server = tidegate(quick(far.url), workers=2)
    with spread(server, 8) as clients, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda each: _count(each.start(path)), clients)) == [len(content)] * 8
    for pid in server.worker_pids():
        peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])
        assert peak < 120 * 1024


def _count(response):
    size = 0
    while piece := response.read(MIB):
        size += len(piece)
    return size


def test_head_of_an_uncached_blob(tidegate, far):
    content, digest, path = cold(far)
    image = far.add_image("told", "v1", content)
    server = tidegate(quick(far.url), workers=4)
    with spread(server, 8) as clients, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: each.get(path, "HEAD"), clients))
    for got in answers:
        assert (got.status, got.headers["Content-Length"]) == (200, str(len(content)))
        assert got.headers["Docker-Content-Digest"] == digest
    assert [request.method for request in far.log] == ["HEAD"]
    layer = next(each for each in image.blobs if each != digest)
    assert get(server, "/v2/told/manifests/v1").status == 200
    far.log.clear()
    known = get(server, blob_path("told", layer), "HEAD")
    assert (known.status, known.headers["Content-Length"]) == (200, str(len(image.blobs[layer])))
    # That its manifest lists it is no proof that it is there: a HEAD says what a GET would say.
    assert [(request.method, request.path) for request in far.log] == [("HEAD", blob_path("told", layer))]
    assert not (server.data / "ingest").exists() or not list((server.data / "ingest").iterdir())


def test_range_on_a_miss(tidegate, far):
    content, digest, path = cold(far, 24 * MIB)
    far.fault(digest, Drip(MIB, 0.05), times=1)
    server = tidegate(quick(far.url), workers=2)
    asked = {
        "bytes=1000-": content[1000:],
        "bytes=-5000000": content[-5000000:],
        "bytes=2000000-9999999": content[2000000:10000000],
        "bytes=20000000-20500000": content[20000000:20500001],  # far ahead and small: a request of its own
    }
    with spread(server, 8) as clients, ThreadPoolExecutor(8) as pool:
        answers = [(pool.submit(each.get, path, Range=header), body)
                   for each, (header, body) in zip(clients, list(asked.items()) * 2, strict=True)]  # fmt: skip
        for future, body in answers:
            got = future.result()
            assert (got.status, got.whole, got.body) == (206, True, body)
    ranged = [request for request in far.log if "range" in request.headers]
    assert far.count() - len(ranged) == 1
    assert {request.headers["range"] for request in ranged} == {"bytes=20000000-20500000"}
    assert 1 <= len(ranged) <= 2
    until(lambda: server.metrics().total("tidegate_requests_total", result="bypass") == len(ranged))
    assert kept(server, digest) == content


def test_client_leaves_in_the_middle(tidegate, far):
    content, digest, path = cold(far)
    far.fault(digest, SLOW)
    server = tidegate(quick(far.url), workers=2)
    with spread(server, 2) as clients:
        for each in clients:
            each.start(path).read(1000)
        for each in clients:
            each.leave()
    assert written(server, digest) < len(content)
    assert kept(server, digest) == content
    assert get(server, path).is_blob(content)
    assert (far.count(), far.log.sent()) == (1, len(content))


def test_upstream_cut_in_the_middle(tidegate, far):
    content, digest, path = cold(far)
    far.fault(digest, Cut(MIB), times=1)
    server = tidegate(quick(far.url), workers=2)
    with spread(server, 10) as clients:
        assert all(got.is_blob(content) for got in crowd(clients, path))
    first, second = (request.headers.get("range") for request in far.log)
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= MIB  # the last of it may have died in a buffer
    assert len(content) <= far.log.sent() < len(content) + MIB


def test_upstream_stalls(tidegate, far):
    content, digest, path = cold(far)
    far.fault(digest, Stall(MIB), times=1)
    server = tidegate(quick(far.url), workers=2)
    with spread(server, 10) as clients:
        answers = crowd(clients, path)
    assert all(got.is_blob(content) for got in answers)
    assert all(0.9 < got.seconds < 5 for got in answers)
    assert [request.headers.get("range") for request in far.log] == [None, f"bytes={MIB}-"]


def test_upstream_stalls_for_ever(tidegate, far):
    content, digest, path = cold(far)
    far.fault(digest, Stall(MIB), times=1)
    far.fault(digest, Stall(0))
    server = tidegate(quick(far.url, stall_timeout="500ms"), workers=2)
    got = get(server, path)
    assert not got.is_blob(content)
    assert not got.whole
    assert got.seconds < 15
    assert far.count() <= 5


def test_one_wrong_byte_from_upstream(tidegate, far):
    _, digest, path = cold(far)
    far.fault(digest, Flip(2 * MIB))
    server = tidegate(quick(far.url), workers=4)
    with spread(server, 20) as clients:
        assert not any(got.whole and got.status == 200 for got in crowd(clients, path))
    assert not finished(server, digest).exists()
    assert far.count() == 2


@pytest.mark.parametrize("kind", ["404", "429", "500", "never"])
def test_50_clients_4_workers_cold_blob_that_the_upstream_refuses(tidegate, far, kind):
    """With the deadline a user has not set: the answer comes within 25 s, for the refusals at once."""
    _, digest, path = cold(far)
    faults = {"404": Status(404), "429": Status(429), "500": Status(500), "never": Silence()}
    far.fault(digest, faults[kind])
    server = tidegate(quick(far.url, first_byte_deadline="2s"), workers=4)
    with spread(server, CLIENTS) as clients:
        answers = crowd(clients, path)
    assert {got.status for got in answers} == {404 if kind == "404" else 503}
    assert far.count() <= (1 if kind in ("404", "429") else 4)


def test_upstream_answers_429(tidegate, far):
    image = far.add_image(REPO, "v1", b"layer")
    server = tidegate(quick(far.url, tag_ttl="0s"), workers=2)
    path = f"/v2/{REPO}/manifests/v1"
    assert get(server, path).body == image.manifest
    far.fault("/v2/", Status(429, {"Retry-After": "33"}))
    stale = get(server, path)
    assert (stale.status, stale.body) == (200, image.manifest)
    assert stale.headers["Warning"].startswith("299 ")
    for unknown in (f"/v2/{REPO}/manifests/v2", *(blob_path(REPO, digest) for digest in image.blobs)):
        refused = get(server, unknown)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "33")
        assert "429" in refused.reason


def test_cached_tag_upstream_accepts_and_never_answers(tidegate, far):
    image = far.add_image(REPO, "v1", b"layer")
    server = tidegate(quick(far.url, tag_ttl="0s", first_byte_deadline="1s"), workers=2)
    path = f"/v2/{REPO}/manifests/v1"
    get(server, path)
    far.fault("/v2/", Silence())
    first = get(server, path)
    assert (first.status, first.body) == (200, image.manifest)
    assert first.headers["Warning"].startswith("299 ")
    assert first.seconds < 2.5
    asked = far.count()
    with spread(server, 10) as clients:
        again = crowd(clients, path)
    assert all(got.body == image.manifest and got.seconds < 1 for got in again)
    assert far.count() == asked  # for a while nobody asks


def test_start_while_the_upstream_is_down(tidegate, far, tmp_path):
    image = far.add_image(REPO, "v1", noise(MIB))
    config = quick(far.url, tag_ttl="0s")
    server = tidegate(config, workers=2)
    paths = [f"/v2/{REPO}/manifests/v1", *(blob_path(REPO, digest) for digest in image.blobs)]
    before = [get(server, path).body for path in paths]
    for digest in image.blobs:
        kept(server, digest)
    server.stop()
    far.refusing = True
    again = tidegate(config, workers=2)
    assert [get(again, path).body for path in paths] == before
    assert get(again, "/readyz").status == 200
    began = time.monotonic()
    assert get(again, f"/v2/{REPO}/manifests/other").status == 503
    assert time.monotonic() - began < 4


def test_cost_of_one_anonymous_blob_miss(tidegate, far):
    """One chain: each hop of the redirects once, no ping before it."""
    content, digest, path = cold(far)
    elsewhere = f"{far.url}/v2/elsewhere/blobs/{digest}"
    far.add_blob("elsewhere", content)
    far.fault(f"/{REPO}/", Status(307, {"Location": elsewhere}))
    server = tidegate(quick(far.url), workers=2)
    assert get(server, path).is_blob(content)
    assert [(request.method, request.status) for request in far.log] == [("GET", 307), ("GET", 200)]
