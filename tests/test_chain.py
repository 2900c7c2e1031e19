"""A tidegate behind a tidegate, as processes: content, cost, what is said on the way, and loops.

Instances are told apart by the name each keeps in its data folder, which is what `Via` carries.
"""

import time

import pytest

from tests.real.processes import free_port
from tests.real.tidegate import upstream_config
from tests.support import MIB, blob_path, crowd, get, noise, spread

REGISTRY = "registry.k8s.io"


def instance(server):
    return (server.data / "run" / "instance").read_text().strip()


@pytest.fixture
def chain(tidegate, far, tmp_path):
    """(site, central). Names without registry mean another one at central, so only `ns` leads to the origin."""
    other = f'server.unqualified = ["quay.io"]\n[upstreams."quay.io"]\nurls = ["http://127.0.0.1:{free_port()}"]\n'
    central = tidegate(f'{other}[upstreams."{REGISTRY}"]\nurls = ["{far.url}"]\n', workers=2)
    site = tidegate(upstream_config(central.url), workers=2, folder=tmp_path / "site")
    return site, central


def test_a_site_pulls_through_a_central_one(chain, far):
    site, central = chain
    image = far.add_image("pause", "3.9", noise(3 * MIB))
    layer = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    with spread(site, 10) as clients:
        assert all(got.is_blob(image.manifest) for got in crowd(clients, "/v2/pause/manifests/3.9"))
        assert all(got.is_blob(image.blobs[layer]) for got in crowd(clients, blob_path("pause", layer)))
    assert [(each.method, each.path) for each in far.log] == [
        ("GET", "/v2/pause/manifests/3.9"), ("GET", blob_path("pause", layer))
    ]  # fmt: skip
    for request in far.log:
        passed = [part.split()[-1] for part in request.headers["via"].split(",")]
        assert passed == [instance(site), instance(central)]
    metrics = central.metrics()
    assert metrics.total("tidegate_requests_total", upstream=REGISTRY) == 2
    assert metrics.total("tidegate_requests_total", upstream="quay.io") == 0
    assert site.metrics().total("tidegate_client_bytes_total", kind="blob") == 10 * 3 * MIB
    assert metrics.total("tidegate_client_bytes_total", kind="blob") == 3 * MIB


def test_the_next_one_is_told_which_registry_is_meant(tidegate, far):
    image = far.add_image("pause", "3.9", b"layer")
    site = tidegate(upstream_config(far.url))
    for path in ("manifests/3.9", f"blobs/{next(iter(image.blobs))}", "tags/list"):
        assert get(site, f"/v2/pause/{path}").status == 200
    assert [request.query for request in far.log] == [f"ns={REGISTRY}"] * 3


def test_no_such_image_stays_a_404_along_the_chain(chain, far):
    site, _ = chain
    far.add_image("pause", "3.9")
    assert get(site, "/v2/pause/manifests/4.0").status == 404
    assert get(site, blob_path("pause", f"sha256:{'0' * 64}")).status == 404
    far.refusing = True
    got = get(site, "/v2/pause/manifests/5.0")
    assert got.status == 503
    assert "127.0.0.1" in got.reason


@pytest.fixture
def loop(tidegate, tmp_path):
    """Two that ask each other."""
    ports = free_port(), free_port()
    return [
        tidegate(upstream_config(f"http://127.0.0.1:{ports[1 - number]}"), port=ports[number], workers=2,
                 folder=tmp_path / f"loop{number}")
        for number in (0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path"),
    [("HEAD", "manifests/3.9"), ("GET", "manifests/3.9"), ("GET", f"manifests/sha256:{'1' * 64}"),
     ("HEAD", f"blobs/sha256:{'2' * 64}"), ("GET", f"blobs/sha256:{'2' * 64}"), ("GET", "tags/list")],
)  # fmt: skip
def test_a_loop_is_named_at_once(loop, method, path):
    began = time.monotonic()
    got = get(loop[0], f"/v2/pause/{path}", method)
    assert time.monotonic() - began < 3
    assert got.status == 508, got
    assert all(instance(server) in got.reason for server in loop)
    asked = sum(server.metrics().total("tidegate_upstream_requests_total") for server in loop)
    assert asked == 2  # there and back


def test_one_that_asks_itself(tidegate, tmp_path):
    port = free_port()
    server = tidegate(upstream_config(f"http://127.0.0.1:{port}"), port=port)
    got = get(server, "/v2/pause/manifests/3.9")
    assert got.status == 508
    assert instance(server) in got.reason
    assert server.metrics().total("tidegate_upstream_requests_total") == 1
