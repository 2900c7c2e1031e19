"""A disk that takes no more: pulls go on without being kept, somebody says so, and all is well when there is room."""

import threading
import time

import pytest

from tests.fakes import Drip, Flip
from tests.real.disk import disk
from tests.real.processes import NotStarted
from tests.support import (
    MIB,
    blob_path,
    client,
    digest_of,
    finished,
    get,
    kept,
    noise,
    part,
    quick,
    spread,
    until,
    written,
)

pytestmark = pytest.mark.real("mount")
ROOM = {"cache": {"min_free": "0B"}}


@pytest.fixture
def small(tmp_path):
    with disk(tmp_path / "disk", 40) as made:
        yield made


@pytest.fixture
def server(tidegate, far, small, tmp_path):
    return tidegate(quick(far.url, tag_ttl="1ms") | ROOM, data=small.path / "data", folder=tmp_path / "run", workers=2)


def add(far, size=4 * MIB, seed=0):
    content = noise(size, seed)
    return content, blob_path("pause", far.add_blob("pause", content))


def ready(server):
    return get(server, "/readyz").body.decode()


def test_cold_blobs_pass_through_and_are_kept_again_when_there_is_room(server, far, small):
    content, path = add(far)
    small.fill()
    for _ in range(2):
        assert get(server, path).is_blob(content)
    assert far.count("GET", "blobs") >= 2, "nothing was kept"
    assert "degraded" in ready(server)
    assert "passed through" in ready(server)
    assert server.metrics().total("tidegate_unkept_total") >= 1
    assert server.stderr.count("passed through and not kept") == 1, "one line"
    small.free()
    digest = path.rpartition("/")[2]
    until(lambda: get(server, path).is_blob(content) and finished(server, digest).exists())
    asked = far.count()
    assert get(server, path).is_blob(content)
    assert far.count() == asked
    until(lambda: ready(server) == "ok\n", 20)


def test_many_at_once_pass_through(server, far, small):
    blobs = [add(far, MIB, seed) for seed in range(20)]
    small.fill()
    with spread(server, 20) as clients:
        for one, (_, path) in zip(clients, blobs, strict=True):
            one.send(path)
        for one, (content, _) in zip(clients, blobs, strict=True):
            response = one.response()
            assert (response.reason, response.read()) == ("OK", content)


def test_a_reader_in_the_middle_goes_on_when_the_disk_fills_up(server, far, small):
    content, path = add(far, 12 * MIB)
    digest = path.rpartition("/")[2]
    far.fault(digest, Drip(256 << 10, 0.02))
    with client(server) as one:
        response = one.start(path)
        until(lambda: written(server, digest) > 2 * MIB)
        small.fill(leave=MIB)
        assert response.read() == content
    assert not part(server, digest).exists(), "what does not fit is given back"
    until(lambda: far.count() >= 2)


def test_every_reader_of_the_worker_goes_on(server, far, small):
    content, path = add(far, 12 * MIB)
    digest = path.rpartition("/")[2]
    far.fault(digest, Drip(256 << 10, 0.02))
    got = []
    threads = [threading.Thread(target=lambda: got.append(get(server, path))) for _ in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: written(server, digest) > 2 * MIB)
    small.fill(leave=MIB)
    for thread in threads:
        thread.join()
    assert any(one.is_blob(content) for one in got)
    assert all(one.is_blob(content) or not one.whole for one in got), "those elsewhere are cut, and ask again"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=100-1099", 100, 1100), ("bytes=3000000-3999999", 3000000, 4000000), ("bytes=4000000-", 4000000, None),
     ("bytes=-100", -100, None)],
)  # fmt: skip
def test_ranges_pass_through(server, far, small, asked, start, stop):
    content, path = add(far)
    small.fill()
    got = get(server, path, Range=asked)
    assert (got.status, got.body, got.whole) == (206, content[start:stop], True)
    assert got.headers["Content-Range"].endswith(f"/{len(content)}")


def test_wrong_bytes_are_never_a_whole_answer(server, far, small):
    _, path = add(far)
    far.fault(path.rpartition("/")[2], Flip(MIB))
    small.fill()
    got = get(server, path)
    assert not got.whole or got.status == 503
    tail = get(server, path, Range=f"bytes={3 * MIB}-")
    assert not tail.whole or tail.status == 503


def test_names_are_answered_too(server, far, small):
    image = far.add_image("pause", "3.9", b"layer")
    other = far.add_image("pause", "3.8", b"another")
    assert get(server, "/v2/pause/manifests/3.9").body == image.manifest
    small.fill()
    assert get(server, "/v2/pause/manifests/3.9").body == image.manifest
    assert get(server, "/v2/pause/manifests/3.8").body == other.manifest
    assert get(server, f"/v2/pause/manifests/{other.digest}").body == other.manifest
    assert get(server, "/v2/pause/manifests/none").status == 404
    assert get(server, blob_path("pause", digest_of(b"none")), "HEAD").status == 404
    assert get(server, "/v2/pause/tags/list").status == 200
    far.refusing = True
    stale = get(server, "/v2/pause/manifests/3.9")
    assert (stale.status, stale.body) == (200, image.manifest)
    assert "Warning" in stale.headers
    assert not [line for line in server.stderr.splitlines() if "Traceback" in line]


def test_a_disk_that_became_read_only(server, far, small):
    image = far.add_image("pause", "3.9", b"layer")
    fresh = far.add_image("pause", "3.8", b"another")
    content, path = add(far)
    assert get(server, "/v2/pause/manifests/3.9").body == image.manifest
    with small.read_only():
        for _ in range(2):
            assert get(server, path).is_blob(content)
        assert get(server, "/v2/pause/manifests/3.9").body == image.manifest
        assert get(server, "/v2/pause/manifests/3.8").body == fresh.manifest
        assert get(server, f"/v2/pause/manifests/{fresh.digest}").body == fresh.manifest
        assert get(server, "/v2/pause/manifests/none").status == 404
        assert get(server, path, "HEAD").status == 200
        assert "passed through" in ready(server)
        far.refusing = True
        assert get(server, "/v2/pause/manifests/3.9").body == image.manifest
        far.refusing = False
    until(lambda: get(server, path).is_blob(content) and finished(server, path.rpartition("/")[2]).exists(), 20)
    until(lambda: ready(server) == "ok\n", 30)
    assert "Traceback" not in server.stderr


def test_an_upstream_that_says_no_is_heard_through_a_full_disk(server, far, small):
    small.fill()
    content, path = add(far)
    assert get(server, path).is_blob(content)
    assert get(server, blob_path("pause", digest_of(b"none"))).status == 404
    far.refusing = True
    assert get(server, blob_path("pause", digest_of(b"other"))).status == 503


def test_space_is_made_before_it_is_missing(tidegate, far, small, tmp_path):
    """Old content goes before anything has to be passed through."""
    from tests.test_eviction import age

    config = quick(far.url) | {"cache": {"min_free": "6MiB"}}
    server = tidegate(config, data=small.path / "data", folder=tmp_path / "run", workers=2)
    blobs = [add(far, 4 * MIB, seed) for seed in range(10)]
    for content, path in blobs:
        assert get(server, path).is_blob(content)
        kept(server, path.rpartition("/")[2])
        age(server)
    assert server.metrics().total("tidegate_unkept_total") == 0
    assert server.metrics().total("tidegate_cache_evicted_bytes_total", reason="min_free") > 0
    assert server.metrics().total("tidegate_disk_free_bytes") >= 6 * MIB
    assert ready(server) == "ok\n"


def test_a_start_on_a_full_disk_is_one_line(tidegate, far, small, tmp_path):
    (small.path / "data").mkdir()
    small.fill()
    began = time.monotonic()
    with pytest.raises(
        NotStarted, match=r"ended with 1:\n.*cannot be used: No space left on device; use --data DIR or make room$"
    ):
        tidegate(quick(far.url), data=small.path / "data", folder=tmp_path / "run", workers=1)
    assert time.monotonic() - began < 10
