"""upstream/ledger.py and what `tidegate egress` makes of it."""

import itertools
import math
import tomllib
from dataclasses import asdict

import pytest

from proxy.care import legacy
from proxy.cli import egress
from proxy.config import values
from proxy.upstream.ledger import Ledger, merged, read


@pytest.fixture
def ledger() -> Ledger:
    times = itertools.count(1000)
    return Ledger(lambda: float(next(times)))


def test_a_host_is_counted_by_kind_of_hop(ledger: Ledger) -> None:
    ledger.hop("up", "registry.example", "registry", 307)
    ledger.hop("up", "cdn.example", "redirect", 200)
    ledger.received("up", "cdn.example", "redirect", 500)
    ledger.failure("up", "evil.example", "redirect", "not allowed by [egress] allow")
    ledger.hop("up", "registry.example", "registry", 200)
    rows = {(row["host"], row["hop"]): row for row in ledger.rows()}
    assert rows["registry.example", "registry"]["count"] == 2
    assert rows["registry.example", "registry"]["status"] == 200
    assert rows["cdn.example", "redirect"]["bytes"] == 500
    assert rows["evil.example", "redirect"]["failed"] == 1
    assert rows["evil.example", "redirect"]["error"] == "not allowed by [egress] allow"
    assert rows["registry.example", "registry"]["first"] < rows["registry.example", "registry"]["last"]


def test_a_restart_goes_on_where_it_stopped(ledger: Ledger) -> None:
    ledger.hop("up", "a.example", "registry", 200)
    again = Ledger(lambda: 5000.0)
    again.restore([*ledger.rows(), {"of": "another version"}])
    again.hop("up", "a.example", "registry", 404)
    (row,) = again.rows()
    assert (row["count"], row["status"], row["last"]) == (2, 404, 5000.0)
    assert row["first"] < 5000.0


def test_workers_tables_add_up() -> None:
    one, other = Ledger(lambda: 10.0), Ledger(lambda: 20.0)
    one.hop("up", "a.example", "registry", 200)
    other.failure("up", "a.example", "registry", "no answer in time")
    other.received("up", "a.example", "registry", 7)
    (entry,) = merged([read(one.rows()), read(other.rows())])
    assert (entry.count, entry.failed, entry.bytes, entry.first, entry.last) == (1, 1, 7, 10.0, 20.0)
    assert entry.error == "no answer in time"


def test_rows_are_bounded(ledger: Ledger) -> None:
    for number in range(600):
        ledger.hop("up", f"host{number}.example", "redirect", 200)
    rows = ledger.rows()
    assert len(rows) <= 501
    assert sum(row["count"] for row in rows) == 600


def test_hosts_that_never_answered_make_room(ledger: Ledger) -> None:
    ledger.hop("up", "registry.example", "registry", 200)
    ledger.failure("up", "first.example", "redirect", "no answer in time")
    for number in range(2000):
        ledger.failure("up", f"evil{number}.example", "redirect", "not allowed by [egress] allow")
    ledger.hop("up", "cdn.example", "redirect", 200)
    hosts = [row["host"] for row in ledger.rows()]
    assert len(hosts) == 500
    assert {"registry.example", "cdn.example", "evil1999.example"} < set(hosts)
    assert not {"first.example", "evil0.example", "(others)"} & set(hosts)


def test_the_row_of_what_there_was_no_room_for_is_no_host(ledger: Ledger) -> None:
    for number in range(600):
        ledger.hop("up", f"host{number}.example", "redirect", 200)
    rows = ledger.rows()
    assert "(others)" in egress.table(rows)
    assert "(others)" not in egress.hosts(rows)
    assert len(egress.hosts(rows)) == 500
    assert "(others)" not in egress.toml(rows)
    allow = tomllib.loads(egress.toml(rows))["egress"]["allow"]
    assert values.patterns(allow) == tuple(egress.hosts(rows))


PLANTED = {
    "count": ["1", None, -1, True, 1.5, [1]],
    "last": ["1", None, 1e300, math.inf, math.nan, -1.0],
    "host": [1, None],
}
PLANTED |= {"hop": ["sideways", 1, None], "error": [0], "upstream": [{}]}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in PLANTED.items() for value in values])
def test_a_planted_row_is_passed_over(ledger: Ledger, key: str, value: object) -> None:
    ledger.hop("up", "a.example", "registry", 200)
    (row,) = ledger.rows()
    assert read([row]) == read([{**row, "last": int(row["last"])}])
    assert read([{**row, key: value}, {**row, "more": 1}, {"host": "a"}]) == []


@pytest.mark.parametrize(("key", "value"), [("count", "1"), ("first", None), ("last", math.nan), ("image", 7)])
def test_a_planted_sighting_is_passed_over(key: str, value: object) -> None:
    seen = legacy.Legacy(lambda: 100.0)
    seen.note("k8s.gcr.io", "10.0.0.7", "k8s.gcr.io/pause:3.9")
    (row,) = seen.rows()
    assert len(legacy.read([row])) == 1
    assert legacy.read([{**row, key: value}]) == []


def test_the_list_leaves_out_what_was_refused(ledger: Ledger) -> None:
    ledger.hop("up", "registry.example", "registry", 200)
    ledger.failure("up", "evil.example", "redirect", "not allowed by [egress] allow")
    ledger.failure("up", "blocked.example", "redirect", "no answer in time")
    rows = ledger.rows()
    assert egress.hosts(rows) == ["blocked.example", "registry.example"]
    assert "evil.example" in egress.table(rows)
    assert egress.toml(rows).startswith('[egress]\nallow = [\n    "blocked.example",')


def test_expected_hosts_come_with_date_and_source_until_they_are_seen(ledger: Ledger) -> None:
    rows = egress.expected([])
    assert {row["host"] for row in rows} >= {"registry.k8s.io", "*-docker.pkg.dev", "cdn.registry.k8s.io"}
    assert all("not promised by the project" in row["note"] and "2026" in row["note"] for row in rows)
    ledger.hop("registry.k8s.io", "us-west1-docker.pkg.dev", "redirect", 200)
    assert "*-docker.pkg.dev" not in {row["host"] for row in egress.expected(ledger.rows())}


def test_since_and_an_empty_table() -> None:
    ledger = Ledger(lambda: 100.0)
    ledger.hop("up", "old.example", "registry", 200)
    assert egress.since(ledger.rows(), 50, 200.0) == []
    assert egress.since(ledger.rows(), 100, 200.0) == ledger.rows()
    assert "--expected" in egress.table([])
    assert [asdict(entry) for entry in read(ledger.rows())] == ledger.rows()


def test_a_host_seen_long_ago_is_not_expected_any_more() -> None:
    """The command decides by the whole ledger, whatever --since leaves of it to be shown."""
    ledger = Ledger(lambda: 100.0)
    ledger.hop("registry.k8s.io", "cdn.registry.k8s.io", "redirect", 200)
    assert "cdn.registry.k8s.io" not in {row["host"] for row in egress.expected(ledger.rows())}
    assert egress.since(ledger.rows(), 50, 200.0) == []
