"""The dashboards in grafana/: well formed, and every query of every panel finds data in a real Prometheus.

A real tidegate is scraped every second while it answers hits, misses, shared downloads, stale and confirmed tags, old
names, pushes and errors, evicts, is throttled, loses a worker and finds a damaged blob. Another one gets a few pulls
whose headlines are worked out by hand.
"""

import json
import math
import os
import re
import signal
import socket
import threading
from contextlib import ExitStack

import pytest
import yaml

from tests.conformance import content as make
from tests.conformance.client import Registry
from tests.fakes import Drip, Origin, Status, origin_in_thread
from tests.real.processes import fetch
from tests.real.prometheus import prometheus
from tests.real.tidegate import ROOT, Tidegate, tidegate
from tests.support import MIB, blob_path, finished, get, kept, noise, quick, until
from tests.test_eviction import age

FOLDER = ROOT / "grafana/dashboards"
DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
UNITS = {"percentunit", "bytes", "Bps", "reqps", "s", "short", "bool"}
SECONDS = 300
NOTHING_TO_SEE = {
    "Read again": "the scrub begins when it likes",
    "Bytes read again": "the scrub begins when it likes",
}
"""Panels whose queries may all be zero after what happens here."""
ZERO = re.compile(r"tidegate_(unkept_total|pinned_bytes|gc_removed|certificate)|sum by \(result\)")
"""Queries that may be zero alone: the disk takes everything, nothing is pinned or collected, there is no TLS."""


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


QUERIES = [
    pytest.param(panel, target["expr"], target["legendFormat"], id=f"{name}-{panel['id']}{target['refId']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in panels(dashboard)
    for target in panel["targets"]
]
VARIABLES = [
    pytest.param(variable["definition"], id=f"{name}-{variable['name']}")
    for name, dashboard in DASHBOARDS.items()
    for variable in dashboard["templating"]["list"]
    if variable["type"] == "query"
]


# What can be told without running anything


def test_there_are_three_and_each_has_a_name_of_its_own():
    assert set(DASHBOARDS) == {"overview", "fills", "capacity"}
    assert {each["uid"] for each in DASHBOARDS.values()} == {f"tidegate-{name}" for name in DASHBOARDS}
    assert len({each["title"] for each in DASHBOARDS.values()}) == 3
    first = [panel["title"] for panel in panels(DASHBOARDS["overview"])[:3]]
    assert first == ["Request hit ratio", "Byte hit ratio", "Bytes saved"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_says_what_it_shows_in_what_unit_from_the_chosen_source(name):
    dashboard = DASHBOARDS[name]
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(set(titles)) == len(titles)
    for panel in panels(dashboard):
        assert len(panel["description"]) > 20, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert all(legends), panel["title"]
        assert len(set(legends)) == len(legends), panel["title"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
    used = set(re.findall(r"\$(\w+)", json.dumps(dashboard)))
    assert used <= {*variables, "datasource", "__rate_interval", "__range", "__all"}
    assert used >= set(variables) - {"datasource"}, "a variable nobody uses"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_no_panel_covers_another(name):
    taken = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def test_provisioning_fits_what_compose_starts_and_what_the_readme_says():
    """Paths and names of one file are those of the others."""
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    mounted = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    (provider,) = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/tidegate.yml").read_text())["providers"]
    assert provider["options"]["path"] == mounted["../grafana/dashboards"]
    assert f"`{provider['options']['path']}`" in (ROOT / "README.md").read_text()
    (source,) = yaml.safe_load((ROOT / "grafana/provisioning/datasources/tidegate.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    (scraped,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    ((target,),) = [each["targets"] for each in scraped["static_configs"]]
    assert target.partition(":")[0] in services
    assert f"{target.partition(':')[2]}:{target.partition(':')[2]}" in services["tidegate"]["ports"]


# What happened while somebody scraped


def busy_config(url: str) -> dict:
    config = quick(url, tag_ttl="1ms", first_byte_deadline="2s")
    config["upstreams"]["sick.example"] = {**config["upstreams"]["registry.k8s.io"]}
    config["upstreams"]["tired.example"] = {**config["upstreams"]["registry.k8s.io"]}
    return config | {
        "server": {"unqualified": ["local", "registry.k8s.io"]},
        "local": {"own": ["dev/*"], "max_size": "50MiB"},
        "cache": {"max_size": "20MiB", "min_free": "0B"},
    }


def evict(far: Origin, server: Tidegate) -> None:
    """More than there is room for, the first half of it as if it had not been used for an hour."""
    blobs = [noise(2 * MIB, seed) for seed in range(16)]
    for number, content in enumerate(blobs):
        digest = far.add_blob("pause", content)
        assert get(server, blob_path("pause", digest)).is_blob(content)
        kept(server, digest)
        if number == 7:
            age(server)
    until(lambda: server.metrics().total("tidegate_evicted_idle_seconds_count") > 0)


def pull(far: Origin, server: Tidegate) -> None:
    """Misses, hits, confirmed tags and old names."""
    image = far.add_image("pause", "v3.9", noise(1000))
    for _ in range(3):
        assert get(server, "/v2/pause/manifests/v3.9").status == 200
        assert get(server, "/v2/k8s.gcr.io/pause/manifests/v3.9").status == 200
        for digest, content in image.blobs.items():
            assert get(server, blob_path("pause", digest)).is_blob(content)
    assert get(server, blob_path("pause", f"sha256:{'0' * 64}")).status == 404


def fail(far: Origin, server: Tidegate) -> None:
    """An upstream that is down, one that throttles, tags that are stale or moved, a worker that dies, a bad file."""
    far.add_image("pause", "v3.9", b"another layer")
    assert get(server, "/v2/pause/manifests/v3.9").status == 200
    far.fault("pause/manifests", Status(500))
    assert "stale" in get(server, "/v2/pause/manifests/v3.9").headers["Warning"]
    far.fault("sick", Status(500))
    for seed in range(10):
        digest = far.add_blob("sick/app", noise(100, f"sick {seed}"))
        assert get(server, blob_path("sick.example/sick/app", digest)).status == 503
    far.fault("tired", Status(429, {"Retry-After": "30"}))
    digest = far.add_blob("tired/app", noise(100, "tired"))
    assert get(server, blob_path("tired.example/tired/app", digest)).status == 503
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    content = noise(MIB, "damaged")
    digest = far.add_blob("pause", content)
    assert get(server, blob_path("pause", digest)).is_blob(content)
    kept(server, digest)
    path = finished(server, digest)
    path.chmod(0o600)
    with path.open("ab") as file:
        file.write(b"more than there was")
    assert get(server, blob_path("pause", digest)).is_blob(content)


def shout(server: Tidegate) -> None:
    """Headers over the limit: a connection that we end."""
    host, port = server.host.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + (b"X-Long: " + b"x" * 4096 + b"\r\n") * 17)
        assert b" 431 " in client.recv(4096)


def push_one(server: Tidegate) -> None:
    Registry("tidegate", server.url).repository("dev/app").push_all(make.image(), "1")


def share(far: Origin, server: Tidegate) -> None:
    """One slow download, four clients, long enough to be scraped."""
    content = noise(2 * MIB, "slow")
    digest = far.add_blob("pause", content)
    far.fault(digest, Drip(64 << 10, 0.15))
    clients = [threading.Thread(target=get, args=(server, blob_path("pause", digest))) for _ in range(4)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()


def scraped_again(source, server_name):
    """Waits for two more scrapes: rates need a value before and one after."""
    for _ in range(2):
        last = source.scraped(server_name)
        until(lambda last=last: source.scraped(server_name) > last)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """A Prometheus after all of that, and what the server itself exports at the end."""
    folder = tmp_path_factory.mktemp("scraped")
    with ExitStack() as stack:
        far = stack.enter_context(origin_in_thread())
        server = stack.enter_context(tidegate(busy_config(far.url), folder=folder / "busy", workers=2))
        source = stack.enter_context(prometheus(folder / "prometheus", {"busy": server.host}))
        until(lambda: source.scraped("busy"))
        pull(far, server)
        evict(far, server)
        push_one(server)
        share(far, server)
        fail(far, server)
        shout(server)
        scraped_again(source, "busy")
        yield source, fetch(f"{server.url}/metrics")[1].decode()


def filled_in(expression):
    """What Grafana makes of it with everything chosen."""
    for name, value in (("__rate_interval", "4s"), ("__range", f"{SECONDS}s"), ("instance", ".*"), ("upstream", ".*")):
        expression = expression.replace(f"${name}", value)
    return expression


@pytest.mark.real("prometheus")
@pytest.mark.parametrize(("panel", "expression", "legend"), QUERIES)
def test_every_query_finds_what_happened(scraped, panel, expression, legend):
    source, _ = scraped
    asked = filled_in(expression)
    series = source.over(asked, SECONDS)  # what an instant panel shows was true at some moment
    wanted = set(re.findall(r"{{(\w+)}}", legend))
    assert all(set(labels) == wanted or wanted == {"instance"} <= set(labels) for labels, _ in series if wanted)
    found = [value for _, values in series for value in values]
    assert found, f"{panel['title']}: no data: {asked}"
    assert any(found) or panel["title"] in NOTHING_TO_SEE or ZERO.search(expression), f"{panel['title']}: all zero"
    low, high = (panel["fieldConfig"]["defaults"].get(key, end) for key, end in (("min", -math.inf), ("max", math.inf)))
    assert low <= min(found), panel["title"]
    assert max(found) <= high + 1e-9 or panel["title"] == "Cache used", panel["title"]


@pytest.mark.real("prometheus")
@pytest.mark.parametrize("definition", VARIABLES)
def test_every_variable_offers_something(scraped, definition):
    source, _ = scraped
    matching, label = re.fullmatch(r"label_values\((.*), (\w+)\)", definition).groups()
    offered = source.values(label, filled_in(matching))
    assert offered == ["busy"] if label == "instance" else {"registry.k8s.io", "sick.example"} < set(offered)


@pytest.mark.real("prometheus")
def test_every_metric_named_is_one_we_export_and_alerts_name_recorded_ones(scraped):
    source, text = scraped
    exported = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    rules = (ROOT / "deploy/prometheus/rules.yml").read_text()
    recorded = set(re.findall(r"record: (\S+)", rules))
    texts = [rules, (ROOT / "deploy/prometheus/alerts.yml").read_text(), *map(json.dumps, DASHBOARDS.values())]
    named = {name for each in texts for name in re.findall(r"(?<![:\w])tidegate_[a-z0-9_]+", each)}
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in named} <= exported
    assert {name for each in texts for name in re.findall(r"\w+:tidegate_\w+:\w+", each)} <= recorded
    assert all(source.now(f"count({name})") for name in recorded if name.endswith("since_start"))


@pytest.mark.real("prometheus")
def test_every_metric_we_export_is_on_a_dashboard(scraped):
    """Distribution's names are for dashboards that people have already."""
    _, text = scraped
    exported = set(re.findall(r"^# TYPE (tidegate_\w+)", text, re.MULTILINE))
    targets = [target for each in DASHBOARDS.values() for panel in panels(each) for target in panel["targets"]]
    shown = " ".join(target["expr"] for target in targets)
    assert not {name for name in exported if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", shown)}


@pytest.mark.real("prometheus")
def test_an_alert_that_fires_says_what_to_do_in_whole_sentences(scraped):
    source, _ = scraped
    alerts = {each["labels"]["alertname"]: each for each in source.ask("alerts")["alerts"]}
    assert {"TidegateCorruptBlob", "TidegateWorkersDie", "TidegateUpstreamFailing"} <= set(alerts)
    assert all("error" not in each["annotations"]["summary"] for each in alerts.values())
    assert "busy" in alerts["TidegateCorruptBlob"]["annotations"]["summary"]


# The headlines, by hand


@pytest.mark.real("prometheus")
def test_headlines_of_a_few_pulls_worked_out_by_hand(far, tmp_path):
    """11 GETs of content, 7 without a download of their own; a 404 and HEADs count for no ratio."""
    layer, slow = noise(MIB), noise(MIB, "slow")
    image = far.add_image("pause", "3.9", layer)
    config, _ = image.blobs
    layers = [blob_path("pause", digest) for digest in image.blobs]
    shared = blob_path("pause", far.add_blob("pause", slow))
    far.fault(shared, Drip(64 << 10, 0.05))
    with ExitStack() as stack:
        server = stack.enter_context(tidegate(quick(far.url, tag_ttl="1ms"), folder=tmp_path / "plain", workers=2))
        source = stack.enter_context(prometheus(tmp_path / "prometheus", {"plain": server.host}))
        get(server, "/v2/pause/manifests/3.9")  # miss
        get(server, "/v2/pause/manifests/3.9")  # revalidated
        get(server, f"/v2/pause/manifests/{image.digest}")  # hit
        for _ in range(4):
            assert get(server, layers[1]).is_blob(layer)  # miss, hit, hit, hit
        get(server, layers[0])  # miss
        get(server, layers[1], "HEAD")
        get(server, "/v2/pause/manifests/3.9", "HEAD")
        missing = get(server, blob_path("pause", f"sha256:{'0' * 64}"))
        assert missing.status == 404
        threads = [threading.Thread(target=get, args=(server, shared)) for _ in range(2)]  # miss, coalesced
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        far.fault("manifests", Status(500))
        get(server, "/v2/pause/manifests/3.9")  # stale
        out = 4 * len(image.manifest) + 4 * MIB + len(image.blobs[config]) + 2 * MIB  # not what the 404 said
        into = len(image.manifest) + MIB + len(image.blobs[config]) + MIB
        expected = {"bytes_saved": out - into, "byte_hit_ratio": 1 - into / out, "request_hit_ratio": 7 / 11}
        for level, labels in (("instance", ""), ("upstream", '{upstream="registry.k8s.io"}')):
            for name, value in expected.items():
                rule = f"{level}:tidegate_{name}:since_start{labels}"
                until(lambda rule=rule, value=value: source.now(rule) == [pytest.approx(value)], 15)
