"""Metrics live in files from import on, so each test looks at them in processes of its own."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.builders import run

PREPARE = "from proxy import metrics\nmetrics.use_slot({slot})\nmetrics.prepare(['up'], ['old'], '1.2')\n"
SHOW = "print(metrics.exposition('')[0].decode())\n"


@pytest.fixture
def worker(tmp_path):
    """What this code prints in a worker of this slot; all workers of a test share their files."""
    return lambda code, slot=0: run(PREPARE.format(slot=slot) + code, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))


@pytest.fixture
def show(worker):
    """What is exposed after this code has run in a worker of this slot."""

    def show(code="", slot=0):
        text = worker(code + SHOW, slot)
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    return show


def value(samples, name, **labels):
    return samples[(name, *sorted(labels.items()))]


def test_every_bounded_series_stands_at_zero(show):
    samples = show()
    counters = {key: found for key, found in samples.items() if key[0].endswith("_total")}
    assert set(counters.values()) == {0.0}
    results = ["hit", "miss", "coalesced", "revalidated", "stale", "not_found", "denied", "bypass", "error"]
    for kind in ("blob", "manifest", "tag", "tags", "referrers"):
        for result in results:
            assert value(samples, "tidegate_client_bytes_total", upstream="up", kind=kind, result=result) == 0
            for method in ("GET", "HEAD"):
                labels = {"upstream": "up", "kind": kind, "method": method, "result": result}
                assert value(samples, "tidegate_requests_total", **labels) == 0
    for reason in ("timeout", "connect", "tls", "dns", "status", "body", "throttled", "other"):
        assert value(samples, "tidegate_upstream_errors_total", upstream="up", reason=reason) == 0
    for result in results:
        assert value(samples, "tidegate_first_byte_seconds_count", result=result) == 0
    assert value(samples, "tidegate_legacy_requests_total", alias="old") == 0
    assert value(samples, "tidegate_pushed_bytes_total") == 0
    assert value(samples, "tidegate_fills_in_flight") == 0
    assert value(samples, "tidegate_fill_duration_seconds_count") == 0
    assert value(samples, "tidegate_build_info", version="1.2") == 1
    assert value(samples, "tidegate_config_last_reload_successful") == 1
    for status in ("200", "206", "307", "403", "404", "429", "503"):
        assert value(samples, "tidegate_upstream_requests_total", upstream="up", status=status) == 0
    assert value(samples, "tidegate_evicted_idle_seconds_count") == 0
    assert value(samples, "tidegate_event_loop_delay_seconds_count") == 0
    for gauge in ("tidegate_fill_readers", "tidegate_connections", "tidegate_open_descriptors"):
        assert value(samples, gauge) == 0
    for name in ("requests", "hits", "misses", "pulled_bytes", "pushed_bytes"):
        for kind in ("blob", "manifest"):
            assert value(samples, f"registry_proxy_{name}_total", upstream="up", type=kind) == 0


PULL = """
metrics.answered('up', 'tag', 'HEAD', 'revalidated', 0)
metrics.answered('up', 'manifest', 'GET', 'miss', 500)
metrics.answered('up', 'blob', 'GET', 'miss', 1000)
metrics.answered('up', 'blob', 'GET', 'coalesced', 900)
metrics.answered('up', 'blob', 'GET', 'hit', 1000)
metrics.answered('up', 'blob', 'GET', 'bypass', 10)
metrics.answered('up', 'blob', 'GET', 'not_found', 70)
metrics.answered('up', 'tags', 'GET', 'hit', 33)
metrics.received('up', 'manifest', 'a.example', 500)
metrics.received('up', 'blob', 'a.example', 400)
metrics.received('up', 'blob', 'b.example', 600)
"""


def test_distributions_names_are_derived_from_ours(show):
    samples = show(PULL)
    by = {
        (name, kind): value(samples, f"registry_proxy_{name}_total", upstream="up", type=kind)
        for name in ("requests", "hits", "misses", "pulled_bytes", "pushed_bytes")
        for kind in ("blob", "manifest")
    }
    assert by == {
        ("requests", "blob"): 5,
        ("requests", "manifest"): 2,
        ("hits", "blob"): 2,
        ("hits", "manifest"): 1,
        ("misses", "blob"): 2,
        ("misses", "manifest"): 1,
        ("pulled_bytes", "blob"): 1000,
        ("pulled_bytes", "manifest"): 500,
        ("pushed_bytes", "blob"): 2980,
        ("pushed_bytes", "manifest"): 500,
    }


def test_ours(show):
    samples = show(PULL)
    labels = {"upstream": "up", "kind": "blob", "result": "coalesced"}
    assert value(samples, "tidegate_client_bytes_total", **labels) == 900
    assert value(samples, "tidegate_requests_total", method="GET", **labels) == 1
    assert value(samples, "tidegate_requests_total", method="HEAD", **labels) == 0
    assert value(samples, "tidegate_upstream_bytes_total", upstream="up", host="a.example") == 900
    assert value(samples, "tidegate_upstream_bytes_total", upstream="up", host="b.example") == 600


def test_workers_add_up_and_a_slot_that_is_reused_goes_on(show):
    hit = "metrics.answered('up', 'blob', 'GET', 'hit', 100)\nmetrics.first_byte('hit', 0.01)\n"
    labels = {"upstream": "up", "kind": "blob", "result": "hit"}
    for expected, slot in enumerate([0, 1, 0, 0, 1], start=1):
        samples = show(hit, slot)
        assert value(samples, "tidegate_client_bytes_total", **labels) == 100 * expected
        assert value(samples, "tidegate_requests_total", method="GET", **labels) == expected
        assert value(samples, "tidegate_first_byte_seconds_count", result="hit") == expected
        assert value(samples, "tidegate_worker_restarts_total") == 0, "who uses it again cannot say why"
    assert value(samples, "tidegate_build_info", version="1.2") == 1, "a fact is no sum"


def test_totals(worker):
    worker(PULL, 1)
    code = (
        "print(metrics.totals('tidegate_client_bytes_total', 'kind')['blob'])\n"
        "print(sorted(metrics.totals('tidegate_upstream_bytes_total', 'host').items()))\n"
        "print(metrics.totals('tidegate_no_such_total', 'kind'))\n"
    )
    assert worker(PULL + code, 2).splitlines() == ["5960.0", "[('a.example', 1800.0), ('b.example', 1200.0)]", "{}"]


def test_the_hundred_and_first_host_is_other(show):
    samples = show("for n in range(150): metrics.received('up', 'blob', f'h{n}.example', 1)\n")
    hosts = [key for key in samples if key[0] == "tidegate_upstream_bytes_total"]
    assert len(hosts) == 101
    assert value(samples, "tidegate_upstream_bytes_total", upstream="up", host="other") == 50
    assert value(samples, "tidegate_upstream_bytes_total", upstream="up", host="h99.example") == 1


def test_a_worker_that_starts_again_knows_the_hosts_it_has_counted(show):
    for first in range(0, 300, 60):
        samples = show(f"for n in range({first}, {first + 60}): metrics.received('up', 'blob', f'h{{n}}.example', 1)\n")
    hosts = [key for key in samples if key[0] == "tidegate_upstream_bytes_total"]
    assert len(hosts) == 101
    assert value(samples, "tidegate_upstream_bytes_total", upstream="up", host="other") == 200


def test_a_status_nobody_has_defined_is_other(show):
    samples = show("for status in (200, 404, 299, 999, 600): metrics.asked('up', status)\n")
    statuses = {
        dict(key[1:])["status"]: found
        for key, found in samples.items()
        if key[0] == "tidegate_upstream_requests_total" and found
    }
    assert statuses == {"200": 1, "404": 1, "other": 3}


def test_openmetrics_where_it_is_asked_for(worker):
    code = (
        "body, kind = metrics.exposition('application/openmetrics-text; version=1.0.0')\n"
        "print(kind.partition(';')[0], body.decode().splitlines()[-1])\n"
        "print(metrics.exposition('text/plain')[1])"
    )
    assert worker(code).splitlines() == [
        "application/openmetrics-text # EOF",
        "text/plain; version=0.0.4; charset=utf-8",
    ]
