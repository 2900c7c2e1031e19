"""A proxy that looks into TLS with a certificate authority of its own, in front of two hosts of one registry.

The usual trouble behind a firewall: the manifest comes, the blobs are inspected, and a node says "x509". Here the real
clients pull through tidegate: what they print must name the host and who signed, and `ca_file` must be all it takes.
"""

from contextlib import ExitStack

import pytest

from tests.fakes import in_thread
from tests.fakes.connect import Connect
from tests.real import images
from tests.real.certificates import authority
from tests.real.tidegate import upstream_config
from tests.real.tools import skopeo_copy
from tests.real.twohosts import CDN, REGISTRY, digests_in, two_hosts
from tests.support import CLIENTS, blob_path, crowd, get, noise, spread

pytestmark = pytest.mark.real("openssl")
NAME = "registry.k8s.io"
FIREWALL = "Corp Inspection CA"


@pytest.fixture(scope="module")
def world_ca(tmp_path_factory):
    """Stands for what every system trusts."""
    return authority(tmp_path_factory.mktemp("world"), "Some Root", (REGISTRY, CDN))


@pytest.fixture(scope="module")
def corp(tmp_path_factory):
    return authority(tmp_path_factory.mktemp("corp"), FIREWALL, (REGISTRY, CDN))


class Inspected:
    """start(**keys) is a tidegate whose only proxy inspects."""

    def __init__(self, hosts, proxy, start):
        self.hosts = hosts
        self.proxy = proxy
        self.start = start


@pytest.fixture
def inspected(world_ca, corp, tidegate, tmp_path):
    image = images.small("pause", "3.9", noise(1 << 20, 1), noise(2 << 20, 2), noise(100, 3))
    with ExitStack() as stack:
        hosts = stack.enter_context(two_hosts(world_ca.context(), image))
        proxy = stack.enter_context(in_thread(Connect(corp.context(), hosts.names)))

        def start(**keys):
            config = upstream_config(hosts.url, proxy=proxy.url, allow_private=False, **keys)
            env = {"SSL_CERT_FILE": str(world_ca.ca), "SSL_CERT_DIR": str(tmp_path)}
            return tidegate(config, workers=2, env=env)

        yield Inspected(hosts, proxy, start)


def sentence(host):
    return f"503 tidegate: {host}: certificate signed by unknown authority (issuer {FIREWALL}); run tidegate doctor"


@pytest.fixture(params=["second host", "every host"])
def first_seen(request, inspected):
    """The first host a pull meets that is inspected."""
    if request.param == "every host":
        return REGISTRY
    inspected.proxy.spares.add(inspected.hosts.registry_at)
    return CDN


def fetched(node, server, hosts):
    """What a cold containerd makes of a pull, and what it then has."""
    name = node.node()
    node.mirror(NAME, server.url, server="http://127.0.0.1:1")  # where it would go on to, were it not told 503
    return node.fetch(hosts.image.ref(NAME), name, "--all-platforms"), node.digests(name)


def nothing_secret_went_out(inspected, first_seen):
    """Not one request was sent to a host whose certificate nobody vouches for."""
    assert inspected.hosts.cdn.count() == 0
    assert first_seen == CDN or inspected.hosts.registry.count() == 0


@pytest.mark.real("containerd", "skopeo")
def test_the_clients_show_whose_certificate_is_not_trusted(inspected, first_seen, node, tmp_path):
    server, hosts = inspected.start(), inspected.hosts
    done, held = fetched(node, server, hosts)
    assert done.returncode != 0
    assert sentence(first_seen) in done.stderr
    assert not held & set(hosts.image.blobs)
    done = skopeo_copy(f"{server.host}/{NAME}/pause:3.9", tmp_path / "copied")
    assert done.returncode != 0
    # Of a blob's answer skopeo shows the number alone.
    assert ("503 (Service Unavailable)" if first_seen == CDN else sentence(first_seen)) in done.stderr
    assert not digests_in(tmp_path / "copied") & set(hosts.image.blobs)
    nothing_secret_went_out(inspected, first_seen)


@pytest.mark.real("containerd", "skopeo")
def test_with_its_ca_the_same_pulls_pass(inspected, first_seen, corp, node, tmp_path):
    server, hosts = inspected.start(ca_file=str(corp.ca)), inspected.hosts
    done, held = fetched(node, server, hosts)
    assert done.returncode == 0, done.stderr
    assert held == hosts.content
    done = skopeo_copy(f"{server.host}/{NAME}/pause:3.9", tmp_path / "copied")
    assert done.returncode == 0, done.stderr
    assert digests_in(tmp_path / "copied") == hosts.content
    for digest in hosts.image.blobs:
        assert (hosts.registry.count(contains=digest), hosts.cdn.count(contains=digest)) == (1, 1)
    assert {entry.path for entry in inspected.proxy.log} == {hosts.registry_at, hosts.cdn_at}


def test_50_clients_are_told_alike_and_never_404(inspected, first_seen):
    server, hosts = inspected.start(), inspected.hosts
    with spread(server, CLIENTS) as clients:
        answers = crowd(clients, blob_path("pause", hosts.image.layers[0]))
    assert {got.status for got in answers} == {503}
    assert {f"{got.status} {got.reason}" for got in answers} == {sentence(first_seen)}
    assert all(got.headers["Retry-After"] and got.whole for got in answers)
    if first_seen == REGISTRY:
        assert f"503 {get(server, '/v2/pause/manifests/3.9').reason}" == sentence(REGISTRY)
    nothing_secret_went_out(inspected, first_seen)
