"""The numbers at /metrics against a sequence of requests worked out by hand and against what the origin sent."""

import os
import signal
import socket

import pytest

from tests.fakes import Drip
from tests.support import Client, blob_path, crowd, get, kept, noise, quick, spread, until, written

REPO = "pause"
MIB = 1 << 20
BLOB = noise(3 * MIB, "blob")
BUFFERS = 8 * MIB  # what the kernel may hold between a writer and a reader that has stopped


def counted(server, name="tidegate_requests_total", **labels):
    """Series that are not zero, by kind, method and result."""
    names = ("kind", "method", "result") if name.endswith("requests_total") else ("kind", "result")
    found = {}
    for (series, pairs), value in server.metrics().items():
        if series == name and value:
            named = dict(pairs)
            found[tuple(named[each] for each in names)] = value
    return found


@pytest.mark.parametrize("workers", [1, 4])
def test_requests_and_bytes_of_a_known_sequence(tidegate, far, workers):
    image = far.add_image(REPO, "v1", noise(1000))
    digest = far.add_blob(REPO, BLOB)
    blob, tag, size = blob_path(REPO, digest), f"/v2/{REPO}/manifests/v1", len(image.manifest)
    server = tidegate(quick(far.url), workers=workers)
    with spread(server, 4) as (a, b, c, d):
        a.get(tag)
        b.get(tag)
        c.get(tag, "HEAD")
        d.get(f"/v2/{REPO}/manifests/{image.digest}")
        d.get(f"/v2/{REPO}/manifests/{image.digest}", If_None_Match=f'"{image.digest}"')
        a.get(blob)
        kept(server, digest)
        b.get(blob)
        c.get(blob, Range="bytes=100-299")
        d.get(blob, Range="bytes=-50000")
        d.get(blob, "HEAD")
        a.get(blob, If_None_Match=f'"{digest}"')
        b.get(blob, Range=f"bytes={len(BLOB)}-")
        c.get(blob_path(REPO, "sha256:" + "0" * 64))
        d.get(f"/v2/{REPO}/tags/list")
        a.get(f"/v2/{REPO}/referrers/{image.digest}")
    requests = {
        ("tag", "GET", "miss"): 1,
        ("tag", "GET", "hit"): 1,
        ("tag", "HEAD", "hit"): 1,
        ("manifest", "GET", "hit"): 2,
        ("blob", "GET", "miss"): 1,
        ("blob", "GET", "hit"): 4,
        ("blob", "HEAD", "hit"): 1,
        ("blob", "GET", "error"): 1,
        ("blob", "GET", "not_found"): 1,
        ("tags", "GET", "miss"): 1,
        ("referrers", "GET", "miss"): 1,
    }
    until(lambda: sum(counted(server).values()) == sum(requests.values()))
    assert counted(server) == requests
    written_out = counted(server, "tidegate_client_bytes_total")
    assert written_out["tag", "miss"] == written_out["tag", "hit"] == written_out["manifest", "hit"] == size
    assert written_out["blob", "miss"] == len(BLOB)
    assert written_out["blob", "hit"] == len(BLOB) + 200 + 50000
    assert {result for _, result in written_out} == {"miss", "hit"}, "what an error says saves nothing"
    now = server.metrics()
    got = sum(request.sent for request in far.log if request.status == 200)
    assert now.total("tidegate_upstream_bytes_total") == now.total("tidegate_upstream_bytes_total", host="127.0.0.1")
    assert now.total("tidegate_upstream_bytes_total") == got
    assert now.total("tidegate_upstream_requests_total") == far.count()
    assert now.total("tidegate_upstream_requests_total", status="404") == 1
    assert now.total("registry_proxy_pushed_bytes_total", type="blob") >= written_out["blob", "hit"]
    until(lambda: server.metrics().total("tidegate_cache_objects") == 2)


def test_what_an_upstream_behind_the_local_registry_fails_is_its_own(tidegate, far):
    keys = {"local": {"own": ["dev/*"]}, "server": {"unqualified": ["local", "registry.k8s.io"]}}
    server = tidegate(quick(far.url) | keys, workers=1)
    far.refusing = True
    assert get(server, "/v2/pause/manifests/3.9").status == 503
    errors = {
        upstream: server.metrics().total("tidegate_requests_total", upstream=upstream, result="error")
        for upstream in ("local", "registry.k8s.io")
    }
    assert errors == {"local": 0, "registry.k8s.io": 1}
    until(lambda: "GET tag registry.k8s.io/pause 3.9 error 503" in server.stdout)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_crowd_is_one_miss_and_the_rest_coalesced(tidegate, far, workers):
    digest = far.add_blob(REPO, BLOB)
    far.fault(digest, Drip(256 << 10, 0.05))
    server = tidegate(quick(far.url), workers=workers)
    with spread(server, 20) as clients:
        assert all(got.is_blob(BLOB) for got in crowd(clients, blob_path(REPO, digest)))
    until(lambda: server.metrics().total("tidegate_requests_total") == 20)
    assert counted(server) == {("blob", "GET", "miss"): 1, ("blob", "GET", "coalesced"): 19}
    now = server.metrics()
    assert now.total("tidegate_client_bytes_total") == 20 * len(BLOB)
    assert now.total("tidegate_upstream_bytes_total") == len(BLOB) == far.log.sent()
    until(lambda: server.metrics().total("tidegate_fills_in_flight") == 0)  # until it is durable, not only verified


@pytest.mark.parametrize("cold", [True, False], ids=["miss", "hit"])
def test_an_aborted_response_counts_what_was_written(tidegate, far, cold):
    content = noise(32 * MIB)
    digest = far.add_blob(REPO, content)
    path = blob_path(REPO, digest)
    server = tidegate(quick(far.url), workers=1)
    if not cold:
        get(server, path, Range="bytes=0-0")
        kept(server, digest)
    before = server.metrics().total("tidegate_client_bytes_total", kind="blob")
    one = Client(server)
    one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
    response = one.start(path)
    assert len(response.read(2 * MIB)) == 2 * MIB
    response.close()
    one.leave()
    until(lambda: server.metrics().total("tidegate_requests_total", result="miss" if cold else "hit") == 1)
    counted_bytes = server.metrics().total("tidegate_client_bytes_total", kind="blob") - before
    assert 2 * MIB <= counted_bytes < 2 * MIB + BUFFERS
    assert kept(server, digest) == content


def test_counters_never_go_down_when_a_worker_is_killed(tidegate, far):
    digest = far.add_blob(REPO, BLOB)
    server = tidegate(quick(far.url), workers=4)
    with spread(server, 20) as clients:
        crowd(clients, blob_path(REPO, digest))
    other = far.add_blob(REPO, noise(8 * MIB, "other"))
    far.fault(other, Drip(256 << 10, 0.05))
    with spread(server, 4) as clients:
        for each in clients:
            each.start(blob_path(REPO, other)).read(1000)
        until(lambda: written(server, other) > MIB)
        before = server.metrics()
        for pid in server.worker_pids()[:2]:
            os.kill(pid, signal.SIGKILL)
            until(lambda: len(server.worker_pids()) == 4)
            _compare(before, server.metrics())
    for _ in range(8):
        get(server, blob_path(REPO, digest))
    after = server.metrics()
    _compare(before, after)
    until(lambda: server.metrics().total("tidegate_requests_total", result="hit") >= 8)
    until(lambda: server.metrics().total("tidegate_fills_in_flight") == 0)


def _compare(before, after):
    for key, value in before.items():
        if key[0].endswith(("_total", "_count", "_sum", "_bucket")):
            assert after[key] >= value, key
