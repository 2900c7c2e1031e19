"""/metrics of a real machine: true whichever worker answers, over workers that are killed while somebody scrapes."""

import os
import re
import signal

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.fakes import Drip, Status
from tests.real.processes import fetch
from tests.support import MIB, blob_path, get, noise, quick, spread, until

UPSTREAM = "registry.k8s.io"
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def counted(server):
    """Every series that may only rise."""
    return {
        key: value
        for key, value in server.metrics().items()
        if re.search(r"_(total|bucket|sum|count)$", key[0]) and not key[0].startswith("tidegate_event_loop")
    }


def test_no_counter_ever_goes_down_when_workers_are_killed_between_scrapes(tidegate, far):
    image = far.add_image("pause", "3.9", noise(MIB))
    server = tidegate(quick(far.url), workers=2)
    path = blob_path("pause", next(reversed(image.blobs)))
    before = counted(server)
    for turn in range(4):  # the fifth death within 30 s would end the service
        for _ in range(5):
            assert get(server, path).status == 200
        after = counted(server)
        assert {key: value for key, value in before.items() if after.get(key, -1) < value} == {}
        os.kill(server.worker_pids()[turn % 2], signal.SIGKILL)
        for _ in range(8):
            before, after = after, counted(server)
            assert {key: value for key, value in before.items() if after.get(key, -1) < value} == {}
        until(lambda: len(server.worker_pids()) == 2)
        before = after
    found = server.metrics()
    assert found.total("tidegate_requests_total", method="GET", kind="blob") == 20
    assert found.total("tidegate_client_bytes_total", kind="blob") == 20 * MIB
    until(lambda: server.metrics().total("tidegate_worker_restarts_total") == 4)


def test_what_a_killed_worker_said_of_itself_goes_with_it(tidegate, far):
    digest = far.add_blob("pause", noise(4 * MIB))
    far.fault(digest, Drip(64 << 10, 0.2))
    server = tidegate(quick(far.url), workers=2)
    with spread(server, 4) as clients:
        for each in clients:
            each.start(blob_path("pause", digest))
        until(lambda: server.metrics().total("tidegate_fill_readers") == 4)
        until(lambda: server.metrics().total("tidegate_connections") >= 4)
        found = server.metrics()
        assert found.total("tidegate_downloads") == 1, "each once, however many workers serve it"
        assert found.total("tidegate_fills_in_flight") == 2
        assert 0 < found.total("tidegate_downloads_bytes") < 4 * MIB
        there, missing = found.total("tidegate_downloads_bytes"), found.total("tidegate_downloads_missing_bytes")
        assert there + missing == 4 * MIB
        assert found.total("tidegate_workers") == 2
        os.kill(clients[0].pid, signal.SIGKILL)
        until(lambda: server.metrics().total("tidegate_fill_readers") == 2)
        until(lambda: server.metrics().total("tidegate_workers") == 2)
        assert server.metrics().total("tidegate_fills_in_flight") == 1


def test_what_a_worker_says_of_itself(tidegate, far):
    server = tidegate(quick(far.url), workers=2)
    until(lambda: server.metrics().total("tidegate_event_loop_delay_seconds_count") >= 2)
    found = server.metrics()
    assert 10 < found.total("tidegate_open_descriptors") < found.total("tidegate_descriptors_limit")
    before = found.total("tidegate_open_descriptors")
    with spread(server, 40):
        until(lambda: server.metrics().total("tidegate_connections") >= 40)
        until(lambda: server.metrics().total("tidegate_open_descriptors") >= before + 10)
    until(lambda: server.metrics().total("tidegate_connections") < 10)


def test_an_upstream_that_throttles_is_seen(tidegate, far):
    digest = far.add_blob("pause", noise(1000))
    far.fault(digest, Status(429, {"Retry-After": "30"}))
    server = tidegate(quick(far.url), workers=1)
    assert server.metrics().total("tidegate_upstream_paused_seconds", upstream=UPSTREAM) == 0
    assert get(server, blob_path("pause", digest)).status == 503
    found = server.metrics()
    assert 0 < found.total("tidegate_upstream_paused_seconds", upstream=UPSTREAM) <= 30
    assert found.total("tidegate_upstream_errors_total", upstream=UPSTREAM, reason="throttled") > 0
    assert found.total("tidegate_upstream_requests_total", upstream=UPSTREAM, status="429") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_openmetrics_can_be_read_by_its_own_strict_parser(tidegate, far, workers):
    far.add_image("pause", "3.9")
    server = tidegate(quick(far.url), workers=workers)
    assert get(server, "/v2/pause/manifests/3.9").status == 200
    status, body = fetch(f"{server.url}/metrics", OPENMETRICS)
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert families["tidegate_requests"].type == "counter"
    assert families["tidegate_evicted_idle_seconds"].type == "histogram"
    assert all(family.documentation for family in families.values())
