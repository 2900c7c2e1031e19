"""The rules in deploy/prometheus: Prometheus reads them, every alert fires where it should and stays silent where not.

`promtool test rules` works through invented series, minute by minute; what a real server really exports is
test_dashboards.py's. Values are in promtool's notation: `0+6x60` starts at 0 and grows by 6 sixty times.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.real.processes import program
from tests.real.tidegate import ROOT

FOLDER = ROOT / "deploy/prometheus"
pytestmark = pytest.mark.real("promtool")
SOURCE = 'job="tidegate", instance="a:5000"'
UP = f'{SOURCE}, upstream="registry.k8s.io"'
DAY = 86400


@dataclass(frozen=True, slots=True)
class Case:
    """One situation: series by name and further labels, the minute somebody looks, whether the alert fires then."""

    alert: str
    what: str
    fires: bool
    minute: int
    series: tuple[tuple[str, str], ...]


def metric(name, values, labels=""):
    """A series of one tidegate."""
    return f"{name}{{{SOURCE}{labels and ', '}{labels}}}", values


def upstream(name, values, labels=""):
    """A series of one of its upstreams."""
    return f"{name}{{{UP}{labels and ', '}{labels}}}", values


def answered(result, values, method="GET"):
    return upstream("tidegate_requests_total", values, f'kind="blob", method="{method}", result="{result}"')


def evicted(lately, all_of_them):
    name = "tidegate_evicted_idle_seconds"
    return metric(f"{name}_bucket", lately, 'le="86400.0"'), metric(f"{name}_count", all_of_them)


def filled(size):
    return metric("tidegate_cache_size_bytes", f"{size}x400"), metric("tidegate_cache_limit_bytes", "100x400")


def failing(errors, answers):
    return (
        upstream("tidegate_upstream_circuit", "0x60"),
        upstream("tidegate_upstream_errors_total", errors, 'reason="timeout"'),
        upstream("tidegate_upstream_requests_total", answers, 'status="200"'),
    )


def late(quickly, all_of_them):
    name = "tidegate_event_loop_delay_seconds_bucket"
    return (
        metric(name, quickly, 'le="0.5"'),
        metric(name, all_of_them, 'le="1.0"'),
        metric(name, all_of_them, 'le="+Inf"'),
    )


def collapsing(hits, misses):
    """Five hours of nine hits in ten requests, then two of something else."""
    return answered("hit", f"0+9x300 {hits}"), answered("miss", f"0+1x300 {misses}")


BLOB_BYTES = "tidegate_upstream_kind_bytes_total"
ARRIVING = (metric("tidegate_downloads", "1x60"),)
CASES = (
    Case("TidegateDown", "gone", True, 5, (metric("up", "1 0x10"),)),
    Case("TidegateDown", "one scrape missed", False, 5, (metric("up", "1 1 0 1x10"),)),
    Case("TidegateUpstreamFailing", "circuit open", True, 10, (upstream("tidegate_upstream_circuit", "2x20"),)),
    Case("TidegateUpstreamFailing", "every second fails", True, 30, failing("0+5x60", "0+5x60")),
    Case("TidegateUpstreamFailing", "one in ten fails", False, 30, failing("0+1x60", "0+9x60")),
    Case("TidegateUpstreamFailing", "nothing asked", False, 30, failing("7x60", "9x60")),
    Case(
        "TidegateUpstreamThrottles", "goes on", True, 40,
        (upstream("tidegate_upstream_errors_total", "0+1x60", 'reason="throttled"'),),
    ),
    Case(
        "TidegateUpstreamThrottles", "was long ago", False, 40,
        (upstream("tidegate_upstream_errors_total", "0 5x60", 'reason="throttled"'),),
    ),
    Case("TidegateServesStale", "goes on", True, 40, (answered("stale", "0+1x60", "HEAD"),)),
    Case("TidegateServesStale", "was once", False, 40, (answered("stale", "0 3x60", "HEAD"),)),
    Case("TidegateHitRateCollapsed", "new release", True, 420, collapsing("2700+1x120", "300+9x120")),
    Case("TidegateHitRateCollapsed", "as ever", False, 420, collapsing("2700+9x120", "300+1x120")),
    Case("TidegateHitRateCollapsed", "hardly anybody asks", False, 420, collapsing("2700x120", "300 301x119")),
    Case("TidegateCacheThrashing", "full", True, 380, (*evicted("0+3x400", "0+4x400"), *filled(95))),
    Case(
        "TidegateCacheThrashing", "disk full of other things", True, 380,
        (
            *evicted("0+3x400", "0+4x400"), *filled(20),
            metric("tidegate_cache_evicted_bytes_total", "0+9x400", 'reason="min_free"'),
        ),
    ),
    Case("TidegateCacheThrashing", "full, old things go", False, 380, (*evicted("0+1x400", "0+4x400"), *filled(95))),
    Case("TidegateCacheThrashing", "full, nothing goes", False, 380, (*evicted("5x400", "5x400"), *filled(99))),
    Case(
        "TidegatePinsFillCache", "90 %", True, 40,
        (metric("tidegate_pinned_bytes", "90x60"), metric("tidegate_cache_limit_bytes", "100x60")),
    ),
    Case(
        "TidegatePinsFillCache", "half", False, 40,
        (metric("tidegate_pinned_bytes", "50x60"), metric("tidegate_cache_limit_bytes", "100x60")),
    ),
    Case("TidegateCorruptBlob", "found", True, 12, (metric("tidegate_corrupt_blobs_total", "0x10 1x60"),)),
    Case("TidegateCorruptBlob", "none", False, 12, (metric("tidegate_corrupt_blobs_total", "0x60"),)),
    Case(
        "TidegateFillsStuck", "no byte", True, 20, (*ARRIVING, upstream(BLOB_BYTES, "1000x60", 'kind="blob"')),
    ),
    Case(
        "TidegateFillsStuck", "slow", False, 20, (*ARRIVING, upstream(BLOB_BYTES, "1000+1x60", 'kind="blob"')),
    ),
    Case(
        "TidegateFillsStuck", "idle", False, 20,
        (metric("tidegate_downloads", "0x60"), upstream(BLOB_BYTES, "1000x60", 'kind="blob"')),
    ),
    Case("TidegateDiskRefuses", "goes on", True, 20, (metric("tidegate_unkept_total", "0+1x60"),)),
    Case("TidegateDiskRefuses", "never", False, 20, (metric("tidegate_unkept_total", "0x60"),)),
    Case(
        "TidegateCertificateExpires", "in ten days", True, 70,
        (metric("tidegate_certificate_not_after_seconds", f"{10 * DAY}x90"),),
    ),
    Case(
        "TidegateCertificateExpires", "in thirty days", False, 70,
        (metric("tidegate_certificate_not_after_seconds", f"{30 * DAY}x90"),),
    ),
    Case(
        "TidegateCertificateExpires", "no TLS", False, 70,
        (metric("tidegate_certificate_not_after_seconds", "0x90"),),
    ),
    Case(
        "TidegateConfigReloadFailed", "failed", True, 5,
        (metric("tidegate_config_last_reload_successful", "1 0x10"),),
    ),
    Case("TidegateConfigReloadFailed", "well", False, 5, (metric("tidegate_config_last_reload_successful", "1x10"),)),
    Case("TidegateWorkersDie", "one", True, 10, (metric("tidegate_worker_restarts_total", "0x6 1x20"),)),
    Case("TidegateWorkersDie", "none", False, 10, (metric("tidegate_worker_restarts_total", "0x20"),)),
    Case(
        "TidegateWorkersDie", "the service was started anew", False, 10,
        (metric("tidegate_worker_restarts_total", "3x6 0x20"),),
    ),
    Case("TidegateLoopHeldUp", "one in ten", True, 40, late("0+54x60", "0+60x60")),
    Case("TidegateLoopHeldUp", "one in a thousand", False, 40, late("0+999x60", "0+1000x60")),
    Case(
        "TidegateDescriptorsNearLimit", "90 %", True, 10,
        (metric("tidegate_open_descriptors", "900x20"), metric("tidegate_descriptors_limit", "1000x20")),
    ),
    Case(
        "TidegateDescriptorsNearLimit", "half", False, 10,
        (metric("tidegate_open_descriptors", "500x20"), metric("tidegate_descriptors_limit", "1000x20")),
    ),
)  # fmt: skip


def promtool(*arguments):
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def worked_through(tmp_path, tests):
    """What promtool says of them; JSON is YAML too."""
    rules = [str(FOLDER / "rules.yml"), str(FOLDER / "alerts.yml")]
    (tmp_path / "cases.yml").write_text(json.dumps({"rule_files": rules, "evaluation_interval": "1m", "tests": tests}))
    return promtool("test", "rules", tmp_path / "cases.yml")


def series(rows):
    return [{"series": name, "values": values} for name, values in rows]


def firing(case):
    """A promtool test of what `ALERTS` says; every series here is of one instance, so one alert is all there may be."""
    expression = f'count(ALERTS{{alertname="{case.alert}", alertstate="firing"}})'
    expected = [{"labels": "{}", "value": 1}] if case.fires else []
    return {
        "name": f"{case.alert}: {case.what}",
        "interval": "1m",
        "input_series": series(case.series),
        "promql_expr_test": [{"expr": expression, "eval_time": f"{case.minute}m", "exp_samples": expected}],
    }


def test_prometheus_reads_the_files(tmp_path):
    for command in (["check", "rules", FOLDER / "rules.yml", FOLDER / "alerts.yml"],
                    ["check", "config", FOLDER / "prometheus.yml"]):  # fmt: skip
        status, said = promtool(*command)
        assert status == 0, said


def test_every_alert_fires_where_it_should_and_only_there(tmp_path):
    status, said = worked_through(tmp_path, [firing(case) for case in CASES])
    assert status == 0, said


def test_promtool_does_notice_what_is_expected_wrongly(tmp_path):
    status, said = worked_through(tmp_path, [firing(CASES[0]), {**firing(CASES[1]), **firing(CASES[0])} | {
        "input_series": series(CASES[1].series)}])  # fmt: skip
    assert status != 0, said


def test_every_alert_has_both_kinds_of_cases_and_says_how_bad_and_what_to_do():
    text = (FOLDER / "alerts.yml").read_text()
    alerts = dict(re.findall(r"- alert: (\w+)\n(.*?)(?=\n\n|\Z)", text, re.DOTALL))
    assert {(case.alert, case.fires) for case in CASES} == {(name, fires) for name in alerts for fires in (True, False)}
    for name, body in alerts.items():
        assert re.search(r"severity: (critical|warning)\n", body), name
        for key in ("summary", "description"):
            assert len(re.search(rf'{key}: "(.*)"', body)[1]) > 40, f"{name}: {key}"
        assert re.search(r"\$labels\.instance", body), f"{name} does not say where"


def test_what_alerts_tell_to_run_and_to_set_exists():
    text = (FOLDER / "alerts.yml").read_text()
    readme = (ROOT / "README.md").read_text()
    for command, options in set(re.findall(r"`tidegate (\w+)([^`]*)`", text)):
        asked = [sys.executable, "-m", "proxy", command, "--help"]
        told = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert set(re.findall(r"--\w+", options)) <= set(re.findall(r"--\w+", told)), command
    for section, key in re.findall(r"\[(cache|server)\] (\w+)", text):
        assert f"`{section}.{key}`" in readme


def test_headlines_over_time(tmp_path):
    """Each minute: 6 hits, 1 revalidated, 1 stale, 1 coalesced, 2 misses, 1 bypass; 400 bytes out, 100 in."""
    counts = {
        "hit": 6,
        "revalidated": 1,
        "stale": 1,
        "coalesced": 1,
        "miss": 2,
        "bypass": 1,
        "not_found": 9,
        "error": 9,
    }
    rows = [answered(result, f"0+{count}x300") for result, count in counts.items()]
    rows.append(answered("hit", "0+1000x300", "HEAD"))
    rows.append(upstream("tidegate_client_bytes_total", "0+300x300", 'kind="blob", result="hit"'))
    rows.append(upstream("tidegate_client_bytes_total", "0+100x300", 'kind="blob", result="miss"'))
    rows += [upstream(BLOB_BYTES, "0+60x300", 'kind="blob"'), upstream(BLOB_BYTES, "0+40x300", 'kind="manifest"')]
    local = f'{SOURCE}, upstream="local"'
    rows += [(f'tidegate_client_bytes_total{{{local}, kind="blob", result="hit"}}', "0+100x300")]
    rows += [(f'{BLOB_BYTES}{{{local}, kind="blob"}}', "0x300")]
    expected = {
        "upstream:tidegate_bytes_saved:since_start": 300 * 300,
        "upstream:tidegate_byte_hit_ratio:since_start": 0.75,
        "upstream:tidegate_request_hit_ratio:since_start": 0.75,
        **{f"upstream:tidegate_byte_hit_ratio:rate{window}": 0.75 for window in ("5m", "1h", "1d")},
        **{f"upstream:tidegate_request_hit_ratio:rate{window}": 0.75 for window in ("5m", "1h", "1d")},
        **{f"upstream:tidegate_bytes_saved:rate{window}": 5 for window in ("5m", "1h")},
        "instance:tidegate_bytes_saved:since_start": 400 * 300,
        "instance:tidegate_byte_hit_ratio:since_start": 0.8,
        "instance:tidegate_byte_hit_ratio:rate5m": 0.8,
        "instance:tidegate_request_hit_ratio:rate1d": 0.75,
    }
    checks = [
        {
            "expr": f"round({name}{{upstream!=\"local\"}}, 0.0001)",
            "eval_time": "300m",
            "exp_samples": [{"labels": f"{{{UP if name.startswith('upstream') else SOURCE}}}", "value": value}],
        }
        for name, value in expected.items()
    ]  # fmt: skip
    status, said = worked_through(
        tmp_path, [{"interval": "1m", "input_series": series(rows), "promql_expr_test": checks}]
    )
    assert status == 0, said


def test_a_ratio_of_nothing_is_no_number(tmp_path):
    rows = [answered("hit", "5x60"), upstream("tidegate_client_bytes_total", "9x60", 'kind="blob", result="hit"')]
    rows.append(upstream(BLOB_BYTES, "9x60", 'kind="blob"'))
    checks = [
        {"expr": f"{level}:tidegate_{ratio}:rate5m", "eval_time": "60m", "exp_samples": []}
        for level in ("upstream", "instance")
        for ratio in ("byte_hit_ratio", "request_hit_ratio")
    ]
    status, said = worked_through(
        tmp_path, [{"interval": "1m", "input_series": series(rows), "promql_expr_test": checks}]
    )
    assert status == 0, said
