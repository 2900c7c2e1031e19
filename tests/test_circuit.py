"""What the machine has learned of an upstream holds for all its workers: the circuit, a pause, a bandwidth, a scan.

Four real workers, each asked on connections of its own, and an origin that counts.
"""

import time

import pytest

from proxy import policy
from tests.fakes import Delay, Silence, Status
from tests.real.tidegate import Tidegate
from tests.support import MIB, blob_path, get, noise, quick, spread, until


def missing(far, count):
    """Paths of blobs that differ, each to be asked for once: no outcome of one answers for another."""
    return [blob_path("pause", far.add_blob("pause", noise(1000, seed))) for seed in range(count)]


def circuit(server: Tidegate) -> float:
    return server.metrics().total("tidegate_upstream_circuit", upstream="registry.k8s.io")


@pytest.mark.parametrize("trouble", [Status(500), Silence()], ids=["500", "silence"])
def test_an_upstream_that_is_away_is_left_alone_by_all_workers_and_asked_again_when_it_may_be_back(
    tidegate, far, trouble
):
    far.fault("blobs", trouble)
    server = tidegate(quick(far.url, first_byte_deadline="1s"), workers=4)
    paths = missing(far, 60)
    with spread(server, 12) as clients:
        for one, path in zip(clients, paths, strict=False):
            assert one.get(path).status == 503
        until(lambda: circuit(server) > 0)
        asked = far.count()
        assert asked <= policy.FAILURES_TO_OPEN + 4, "each worker goes by what the others have learned"
        answers = [one.get(path) for one, path in zip(clients, paths[12:24], strict=True)]
        assert {got.status for got in answers} == {503}
        assert far.count() - asked <= 1, "at most a probe"
        sentences = {got.reason for got in answers if "asked again in" in got.reason}
        assert all(reason.startswith("tidegate: 127.0.0.1") for reason in sentences)
        assert sentences
        assert all(0 < int(got.headers["Retry-After"]) <= 40 for got in answers)
        far.rules.clear()
        until(lambda: get(server, paths[30]).status == 200, 20)
        assert circuit(server) == 0
        assert {one.get(path).status for one, path in zip(clients, paths[40:52], strict=True)} == {200}


def test_known_tags_are_stale_at_once_while_the_circuit_is_open(tidegate, far):
    image = far.add_image("pause", "3.9")
    far.add_image("pause", "3.8")
    server = tidegate(quick(far.url, tag_ttl="1ms"), workers=2)
    assert get(server, "/v2/pause/manifests/3.9").body == image.manifest
    far.fault("pause", Status(500))
    for path in missing(far, 12):
        get(server, path)
    until(lambda: circuit(server) > 0)
    asked = far.count()
    got = get(server, "/v2/pause/manifests/3.9")
    assert (got.status, got.body) == (200, image.manifest)
    assert "stale" in got.headers["Warning"]
    assert far.count() - asked <= 1


def test_a_pause_that_an_upstream_asks_for_is_kept_by_all_workers(tidegate, far):
    far.fault("blobs", Status(429, {"Retry-After": "3"}), times=1)
    server = tidegate(quick(far.url), workers=4)
    first, *others = missing(far, 9)
    with spread(server, 8) as clients:
        began = time.monotonic()
        assert clients[0].get(first).headers["Retry-After"] == "3"
        for one, path in zip(clients, others, strict=True):
            got = one.get(path)
            assert (got.status, far.count()) == (503, 1)
            assert "throttling (429)" in got.reason
            assert 1 <= int(got.headers["Retry-After"]) <= 3
        until(lambda: get(server, others[0]).status == 200, 10)
        assert time.monotonic() - began >= 2.9


def test_a_retry_after_of_a_503_is_waited_for_within_the_same_answer(tidegate, far):
    content = noise(MIB)
    digest = far.add_blob("pause", content)
    far.fault(digest, Status(503, {"Retry-After": "1"}), times=1)
    server = tidegate(quick(far.url), workers=1)
    got = get(server, blob_path("pause", digest))
    assert got.is_blob(content)
    assert got.seconds >= 1
    assert far.count() == 2


def test_the_bandwidth_of_an_upstream_is_one_for_all_workers(tidegate, far):
    contents = [noise(2 * MIB, seed) for seed in range(4)]
    paths = [blob_path("pause", far.add_blob("pause", content)) for content in contents]
    server = tidegate(quick(far.url, max_bandwidth="4MiB"), workers=4)
    with spread(server, 4) as clients:
        began = time.monotonic()
        for one, path in zip(clients, paths, strict=True):
            one.send(path)
        for one, path, content in zip(clients, paths, contents, strict=True):
            assert get(server, path).is_blob(content)
            one.leave()
        # 8 MiB at 4 MiB a second; alone each of the four workers would need half a second.
        assert time.monotonic() - began > 1.5


def test_a_first_byte_later_than_a_stall_is_waited_for_and_found_by_the_next_pull(tidegate, far):
    """A proxy that scans first: the answer ends in time, the download does not."""
    content = noise(MIB)
    digest = far.add_blob("pause", content)
    far.fault(digest, Delay(3))
    server = tidegate(quick(far.url, first_byte_deadline="1s", stall_timeout="500ms"), workers=2)
    assert get(server, blob_path("pause", digest)).status == 503
    until(lambda: get(server, blob_path("pause", digest)).is_blob(content), 10)
    assert far.count() == 1
