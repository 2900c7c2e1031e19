"""What a running service tells of itself: the status command, the pages for probes, the admin socket, the settings.

Numbers are compared with what the clients of this test read and what the upstream's log says it sent.
"""

import json
import stat
import subprocess
import sys

import pytest

from tests.fakes import Stall
from tests.real.processes import fetch
from tests.real.tidegate import ROOT, upstream_config
from tests.support import MIB, blob_path, client, crowd, get, kept, noise, spread, until

REGISTRY = "registry.k8s.io"
SLOW_UPSTREAM = f"degraded: no answer from {REGISTRY}\n"


def command(*words):
    return subprocess.run(
        [sys.executable, "-m", "proxy", *words], capture_output=True, text=True, timeout=30, cwd=ROOT
    )  # fmt: skip


def status(server):
    """The status document and the command's exit status."""
    done = command("status", "--json", "--data", str(server.data))
    assert done.stderr == ""
    return json.loads(done.stdout), done.returncode


def readyz(server):
    code, text = fetch(f"{server.url}/readyz")
    assert code == 200
    return text.decode()


@pytest.mark.parametrize("workers", [1, 3])
def test_the_numbers_of_a_few_pulls(tidegate, far, workers):
    image = far.add_image("pause", "3.9", noise(2 * MIB))
    layer = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    server = tidegate(upstream_config(far.url), workers=workers)
    with spread(server, 6) as clients:
        assert all(got.is_blob(image.manifest) for got in crowd(clients, "/v2/pause/manifests/3.9"))
        assert all(got.is_blob(image.blobs[layer]) for got in crowd(clients, blob_path("pause", layer)))
        kept(server, layer)
        ranged = clients[0].get(blob_path("pause", layer), Range="bytes=10-1009")
        assert len(ranged.body) == 1000
        assert clients[1].get(blob_path("pause", layer), "HEAD").status == 200
        assert clients[2].get("/v2/pause/manifests/nope").status == 404
    to_clients = 6 * (len(image.manifest) + len(image.blobs[layer])) + 1000
    from_upstream = len(image.manifest) + len(image.blobs[layer])

    found, code = until(lambda: (said := status(server))[0]["fills"] == [] and said)
    assert (found["health"], code, found["workers"]) == ("ok", 0, workers)
    assert (found["listen"], found["data"]) == (server.host, str(server.data))
    assert found["instance"] == (server.data / "run" / "instance").read_text().strip()
    expected = {"name": REGISTRY, "urls": [far.url], "up": True, "circuit": "closed", "paused": 0}
    expected |= {"offline": False, "last_error": None}
    assert found["upstreams"] == [expected]
    assert found["disk"]["cache_objects"] == 2
    assert found["disk"]["cache_bytes"] % 512 == 0
    assert from_upstream <= found["disk"]["cache_bytes"] < from_upstream + 2 * 4096
    assert found["since_start"]["upstream_bytes"] == from_upstream
    errors = far.log.sent() - from_upstream  # the 404's body is no content
    assert 0 < errors < 200
    requests = found["since_start"]["requests"]
    assert sum(requests.values()) == 15
    assert requests["not_found"] == 1
    assert requests["miss"] == 2
    assert requests["hit"] + requests["coalesced"] == 12
    metrics = server.metrics()
    assert metrics.total("tidegate_requests_total") == 15
    assert metrics.total("tidegate_upstream_bytes_total", host="127.0.0.1") == from_upstream
    bodies = sum(metrics.total("tidegate_client_bytes_total", result=result) for result in ("hit", "miss", "coalesced"))
    assert bodies == to_clients
    assert found["since_start"]["saved_bytes"] == found["since_start"]["client_bytes"] - from_upstream
    assert found["since_start"]["client_bytes"] >= to_clients
    assert found["today"] | {"date": ""} == found["since_start"] | {"date": ""}


def test_the_screen(tidegate, far):
    image = far.add_image("pause", "3.9", noise(MIB))
    server = tidegate(upstream_config(far.url), workers=2)
    for digest in image.blobs:
        assert get(server, blob_path("pause", digest)).status == 200
        kept(server, digest)
    done = command("status", "--data", str(server.data))
    assert (done.returncode, done.stderr) == (0, "")
    first, serving, *rest = done.stdout.splitlines()
    assert first.startswith("tidegate ") and "   ok   " in first
    assert server.host in serving and str(server.data) in serving
    assert any(line.startswith("upstream  registry.k8s.io   up   ") and far.url in line for line in rest)
    assert any("in 2 objects" in line for line in rest), done.stdout


def test_a_live_fill_is_seen(tidegate, far):
    digest = far.add_blob("pause", noise(2 * MIB))
    far.fault(digest, Stall(MIB))
    server = tidegate(upstream_config(far.url, stall_timeout="20s"))
    with client(server) as connected:
        connected.start(blob_path("pause", digest))
        [fill] = until(lambda: status(server)[0]["fills"])
        assert fill["digest"] == digest
        assert fill["size"] == 2 * MIB
        until(lambda: status(server)[0]["fills"][0]["bytes"] == MIB - 1)  # the last byte waits for what follows it
        assert digest[:19] in command("status", "--data", str(server.data)).stdout
        connected.leave()


def test_what_is_pushed_is_counted_from_zero_also_where_nothing_can_be(tidegate, far):
    metrics = tidegate(upstream_config(far.url), workers=1).metrics()
    for name in ("tidegate_local_bytes", "tidegate_local_limit_bytes"):
        assert {value for (series, _), value in metrics.items() if series == name} == {0.0}, name


def test_degraded_while_the_upstream_is_down_and_ok_again(tidegate, far):
    image = far.add_image("pause", "3.9")
    server = tidegate(upstream_config(far.url, tag_ttl="0s"), workers=2)
    assert readyz(server) == "ok\n"
    far.refusing = True
    assert get(server, "/v2/pause/manifests/3.9").status == 503
    assert readyz(server) == SLOW_UPSTREAM
    assert fetch(f"{server.url}/healthz") == (200, b"ok\n")
    found, code = status(server)
    assert (found["health"], code) == (SLOW_UPSTREAM.strip(), 1)
    assert server.metrics().total("tidegate_upstream_up", upstream=REGISTRY) == 0
    far.refusing = False
    assert get(server, f"/v2/pause/manifests/{image.digest}").status == 200
    assert readyz(server) == "ok\n"
    assert status(server)[1] == 0


def test_it_starts_while_the_upstream_is_down(tidegate, far):
    image = far.add_image("pause", "3.9")
    first = tidegate(upstream_config(far.url))
    assert get(first, "/v2/pause/manifests/3.9").status == 200
    assert first.stop() == 0
    far.refusing = True
    again = tidegate(upstream_config(far.url, tag_ttl="0s"))
    got = get(again, "/v2/pause/manifests/3.9")
    assert got.is_blob(image.manifest)
    assert got.headers["Warning"]


def test_the_admin_socket_is_for_owner_and_group(tidegate):
    server = tidegate()
    found = (server.data / "admin.sock").stat()
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o660
    seen = json.loads(get(server, "/api/status").body)  # what the socket tells, the port does not
    assert seen["view"] == "public" and not {"data", "config", "admin_listen"} & seen.keys()
    assert str(server.data) not in json.dumps(seen)
    assert server.stop() == 0
    assert not (server.data / "admin.sock").exists()
    done = command("status", "--data", str(server.data))
    assert done.returncode == 1
    assert done.stderr == f"no tidegate is running for {server.data}; start it with: tidegate serve\n"


def test_the_settings_and_their_origins(tidegate, far, monkeypatch):
    server = tidegate({"server": {"drain": "7s"}} | upstream_config(far.url, username="me", password="hidden"))
    file = server.data.parent / "config.toml"
    monkeypatch.setenv("TIDEGATE_LOG_LEVEL", "debug")
    done = command("config", "--config", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.stdout.splitlines()}
    assert rows["server.drain"].split() == ['"7s"', f"{file}:3"]
    assert rows["log.level"].split() == ['"debug"', "TIDEGATE_LOG_LEVEL"]
    assert rows["egress.stall_timeout"].split() == ['"30s"', "default"]
    assert rows[f'upstreams."{REGISTRY}".password'].split()[0] == '"***"'
    assert "hidden" not in done.stdout
    document = json.loads(command("config", "--json", "--config", str(file)).stdout)
    assert document["file"] == str(file)
    assert document["settings"]["server.drain"] == {"value": "7s", "origin": f"{file}:3"}
    assert "hidden" not in json.dumps(document)


def test_the_first_lines_say_where_it_stands(tidegate, far):
    server = tidegate(upstream_config(far.url), workers=2)
    version, serving, upstream, following = server.stdout.splitlines()[:4]
    assert version.startswith("tidegate ") and str(server.data) in version
    assert serving.startswith(f"serving  {server.url}, 2 workers")
    assert upstream.startswith(f"upstream {REGISTRY}")
    assert following.startswith("next     tidegate ")
    page = following.split(" | ")[-1]
    assert page == f"{server.url}/"
    assert get(server, "/").status == 200
