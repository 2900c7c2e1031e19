"""The only door out, with a real proxy as the only route: a network of our own, which reaches nothing but tinyproxy.

What went out is told by the proxy's own log. The second half is about names: a resolver whose answers lead inside.
"""

import re
import socket
import sys
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from tests.fakes import in_thread, origin_in_thread
from tests.fakes.faults import Status
from tests.real import images
from tests.real.certificates import authority
from tests.real.netns import GATE, Names, answer_at, routes, within
from tests.real.processes import free_port, running
from tests.real.servers import containerd, tinyproxy
from tests.real.tidegate import upstream_config
from tests.real.tools import skopeo_copy
from tests.real.twohosts import CDN, REGISTRY, digests_in, two_hosts
from tests.support import CLIENTS, blob_path, crowd, get, noise, quick, spread

NAME = "registry.k8s.io"
TINYPROXY = pytest.mark.real("ip", "openssl", "skopeo", "tinyproxy")
PUBLIC = "1.2.3.4"  # an address that is global and, in a network of our own, ours


# One door


class Behind:
    """A machine that reaches only tinyproxy, and a registry that only tinyproxy reaches."""

    def __init__(self, hosts, proxy, corp, log):
        self.hosts = hosts
        self.proxy = proxy
        self.config = upstream_config(hosts.url, allow_private=False, proxy=proxy.url, ca_file=str(corp.ca))
        self._log = log

    def asked(self):
        """Every host that tinyproxy was asked for, by its own log: method and host:port."""
        return set(re.findall(r"Request \(file descriptor \d+\): (\S+ \S+) HTTP", self._log.read_text()))


@contextmanager
def _behind(fenced, tmp_path, allow=None):
    corp = authority(tmp_path / "ca", hosts=(REGISTRY, CDN))
    image = images.small("pause", "3.9", *(noise(size << 20, size) for size in (1, 2, 3)))
    with ExitStack() as stack:
        with within(fenced.outside):
            stack.enter_context(in_thread(Names({REGISTRY: ["127.0.0.1"], CDN: ["127.0.0.1"]})))
            hosts = stack.enter_context(two_hosts(corp.context(), image))
            proxy = stack.enter_context(tinyproxy(tmp_path / "proxy", GATE, allow))
        yield Behind(hosts, proxy, corp, tmp_path / "proxy" / "proxy.log")


def _no_way(host, port):
    """A direct connection fails here, at once."""
    with pytest.raises(OSError), socket.create_connection((host, port), 3):
        pass


@TINYPROXY
@pytest.mark.real("containerd")
def test_a_proxy_is_the_only_way_out_and_its_log_has_every_host(fenced, tidegate, tmp_path):
    with _behind(fenced, tmp_path) as world, within(fenced.inside):
        assert all(route.startswith("198.18.0.0/30 dev way ") for route in routes())
        for at in (world.hosts.registry_at, world.hosts.cdn_at):
            host, port = at.split(":")
            for place in (host, GATE, "127.0.0.1", PUBLIC):
                _no_way(place, int(port))
        server = tidegate(world.config, workers=4)
        ref = f"{server.host}/{NAME}/{world.hosts.image.name}:{world.hosts.image.tag}"
        done = skopeo_copy(ref, tmp_path / "copied")
        assert done.returncode == 0, done.stderr
        assert digests_in(tmp_path / "copied") == world.hosts.content
        with containerd(tmp_path / "node") as node:
            node.mirror(NAME, server.url, server="http://127.0.0.1:1")
            done = node.fetch(world.hosts.image.ref(NAME), "one", "--all-platforms")
            assert done.returncode == 0, done.stderr
            assert node.digests("one") == world.hosts.content
    assert world.asked() == {f"CONNECT {world.hosts.registry_at}", f"CONNECT {world.hosts.cdn_at}"}
    assert world.hosts.registry.count(contains="/manifests/") == 1
    for digest in world.hosts.image.blobs:
        assert world.hosts.registry.count(contains=digest) == world.hosts.cdn.count(contains=digest) == 1


@TINYPROXY
def test_without_the_proxy_there_is_no_way(fenced, tidegate, tmp_path):
    with _behind(fenced, tmp_path) as world, within(fenced.inside):
        server = tidegate(quick(world.hosts.url), workers=1)
        got = get(server, "/v2/pause/manifests/3.9")
        assert (got.status, got.reason) == (
            503,
            f"tidegate: {REGISTRY}: the name cannot be resolved; run tidegate doctor",
        )
    assert world.asked() == set()


@TINYPROXY
@pytest.mark.real("containerd")
@pytest.mark.parametrize("refused", [REGISTRY, CDN])
def test_a_host_the_proxy_does_not_allow_is_named_to_the_node(fenced, tidegate, tmp_path, refused):
    allowed = {REGISTRY, CDN} - {refused}
    sentence = f"503 tidegate: {refused}: through proxy {GATE}: CONNECT was answered 403; run tidegate doctor"
    with _behind(fenced, tmp_path, allow=allowed) as world, within(fenced.inside):
        server = tidegate(world.config, workers=4)
        done = skopeo_copy(f"{server.host}/{NAME}/pause:3.9", tmp_path / "copied")
        assert done.returncode != 0
        # Of a blob's answer skopeo shows the number alone.
        assert ("503 (Service Unavailable)" if refused == CDN else sentence) in done.stderr
        assert not digests_in(tmp_path / "copied") & set(world.hosts.image.blobs)
        with containerd(tmp_path / "node") as node:
            node.mirror(NAME, server.url, server="http://127.0.0.1:1")
            done = node.fetch(world.hosts.image.ref(NAME), "one", "--all-platforms")
            assert done.returncode != 0
            assert sentence in done.stderr
    assert world.hosts.cdn.count() == 0


@TINYPROXY
def test_50_clients_of_a_host_the_proxy_does_not_allow_cost_one_chain(fenced, tidegate, tmp_path):
    with _behind(fenced, tmp_path, allow=[REGISTRY]) as world, within(fenced.inside):
        server = tidegate(world.config, workers=4)
        digest = world.hosts.image.layers[0]
        with spread(server, CLIENTS) as clients:
            answers = crowd(clients, blob_path("pause", digest))
        assert {(got.status, got.whole) for got in answers} == {(503, True)}
        assert {got.reason for got in answers} == {
            f"tidegate: {CDN}: through proxy {GATE}: CONNECT was answered 403; run tidegate doctor"
        }
        assert world.hosts.registry.count(contains=digest) <= 4
    assert world.hosts.cdn.count() == 0


# Names that lead inside


@contextmanager
def _listening(port=0):
    """A service inside that must never see a connection: its queue tells."""
    with socket.create_server(("127.0.0.1", port)) as inside:
        inside.setblocking(False)
        yield inside
        with pytest.raises(BlockingIOError):
            inside.accept()


def _sent_to(origin, name, port, content):
    """A blob that the origin redirects to that name."""
    digest = origin.add_blob("pause", content)
    origin.fault(digest, Status(307, {"Location": f"http://{name}:{port}/v2/pause/blobs/{digest}"}))
    return digest


def _refused(got, name, address):
    assert got.status == 503
    assert got.whole
    assert got.seconds < 3
    assert got.reason == (
        f"tidegate: {name}: not allowed by [egress] allow_private = false: {address} is a private address"
    )
    assert got.headers["Retry-After"]
    assert f'"code": "UNAVAILABLE", "message": "{name}: not allowed by' in got.body.decode()


@pytest.mark.real("ip")
@pytest.mark.parametrize(
    "answers",
    [["127.0.0.1"], ["169.254.169.254"], ["10.1.2.3"], [GATE]],
    ids=["loopback", "metadata", "private", "not global"],
)
def test_a_redirect_to_a_name_that_leads_inside(fenced, tidegate, answers):
    with ExitStack() as stack:
        stack.enter_context(within(fenced.inside))
        names = stack.enter_context(in_thread(Names({"files.example.com": answers})))
        far = stack.enter_context(origin_in_thread())
        inside = stack.enter_context(_listening())
        answer_at("10.1.2.3")  # connections there would arrive, too
        digest = _sent_to(far, "files.example.com", inside.getsockname()[1], b"secret")
        server = tidegate(quick(far.url, allow_private=False), workers=2)
        with spread(server, 10) as clients:
            for got in crowd(clients, blob_path("pause", digest)):
                _refused(got, "files.example.com", answers[0])
        assert names.asked == ["files.example.com"]
        assert far.count(contains=digest) == 1
        assert server.metrics().total("tidegate_upstream_errors_total", reason="refused") == 1
        assert server.metrics().total("tidegate_upstream_errors_total") == 1


@pytest.mark.real("ip")
def test_a_name_that_changes_its_mind_is_connected_to_where_it_was_checked(fenced, tidegate, tmp_path):
    """The rebinding itself: the first answer is public, every later one is inside, at the same port."""
    content, later = noise(5000), noise(5001)
    with ExitStack() as stack:
        stack.enter_context(within(fenced.inside))
        names = stack.enter_context(in_thread(Names({"cdn.example.com": [PUBLIC, "127.0.0.1"]})))
        far = stack.enter_context(origin_in_thread())
        inside = stack.enter_context(_listening(free_port()))
        answer_at(PUBLIC)
        port = inside.getsockname()[1]
        public = stack.enter_context(_serving(tmp_path / "public", PUBLIC, port, content, later))
        digests = [_sent_to(far, "cdn.example.com", port, blob) for blob in (content, later)]
        config = quick(far.url, allow_private=False)
        first = tidegate(config, workers=1)
        assert get(first, blob_path("pause", digests[0])).is_blob(content)
        assert names.asked == ["cdn.example.com"]  # the check and the connection share one answer
        second = tidegate(config, workers=1, folder=tmp_path / "second")
        _refused(get(second, blob_path("pause", digests[1])), "cdn.example.com", "127.0.0.1")
        assert digests[1] not in public.stderr
        assert digests[0] in public.stderr


@contextmanager
def _serving(folder, address, port, *blobs):
    """Python's own file server with blobs of pause, at an address the fakes do not have."""
    below = folder / "v2/pause/blobs"
    below.mkdir(parents=True)
    for blob in blobs:
        (below / images.digest_of(blob)).write_bytes(blob)
    command = [sys.executable, "-u", "-m", "http.server", str(port), "--bind", address, "--directory", str(folder)]
    with running(command, folder, "http") as process:
        process.wait_listening(address, port)
        yield process


@pytest.mark.real("ip")
def test_a_token_realm_whose_name_leads_inside(fenced, tidegate):
    with ExitStack() as stack:
        stack.enter_context(within(fenced.inside))
        stack.enter_context(in_thread(Names({"auth.example.com": ["127.0.0.1"]})))
        far = stack.enter_context(origin_in_thread())
        inside = stack.enter_context(_listening())
        far.add_image("pause", "3.9", b"layer")
        realm = f"http://auth.example.com:{inside.getsockname()[1]}/token"
        far.fault("/manifests/", Status(401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}))
        server = tidegate(quick(far.url, allow_private=False), workers=2)
        _refused(get(server, "/v2/pause/manifests/3.9"), urlsplit(realm).hostname, "127.0.0.1")
        assert server.metrics().total("tidegate_upstream_errors_total", reason="refused") == 1
