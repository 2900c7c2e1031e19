"""Who answers for a name: the contract's paragraph, sentence by sentence."""

import pytest

from proxy.errors import Denied, NameInvalid, NameUnknown
from proxy.registry.route import Router, own_names
from tests.unit.builders import upstream


class Named:
    """A registry that is only looked at."""

    def __init__(self, name):
        self.name = name


REGISTRIES = {name: Named(name) for name in ("registry.k8s.io", "docker.io", "quay.io", "registry.corp:8443")}
UPSTREAMS = [
    upstream("registry.k8s.io", aliases=("k8s.gcr.io",), prefix="k8s"),
    upstream("docker.io", hosts=("hub.corp",)),
    upstream("quay.io", aliases=("quay.corp",), hosts=("quay.corp", "images.corp:8080")),
    upstream("registry.corp:8443"),
]
OWN = own_names("127.0.0.1:5000", ("Mirror.Corp", "cache:443"), "cache.corp:5000")


def router(unqualified="registry.k8s.io", own=OWN):
    pairs = [(settings, REGISTRIES[settings.name]) for settings in UPSTREAMS]
    return Router(pairs, REGISTRIES.get(unqualified), own)


ROUTES = {
    # (1) ns chooses: in lower case, the default port dropped
    "ns": ("", "registry.k8s.io", "pause", "registry.k8s.io", "pause", ""),
    "ns in upper case": ("", "Registry.K8S.io", "pause", "registry.k8s.io", "pause", ""),
    "ns with default port": ("", "registry.k8s.io:443", "pause", "registry.k8s.io", "pause", ""),
    "ns with port of its own": ("", "REGISTRY.corp:8443", "a/b", "registry.corp:8443", "a/b", ""),
    "ns is an alias": ("", "k8s.gcr.io", "pause", "registry.k8s.io", "pause", "k8s.gcr.io"),
    "ns before unqualified": ("", "quay.io", "coreos/etcd", "quay.io", "coreos/etcd", ""),
    "ns before Host": ("hub.corp", "quay.io", "coreos/etcd", "quay.io", "coreos/etcd", ""),
    # a first segment naming the same one is dropped
    "ns and same prefix": ("", "quay.io", "quay.io/coreos/etcd", "quay.io", "coreos/etcd", ""),
    "ns and short prefix": ("", "registry.k8s.io", "k8s/pause", "registry.k8s.io", "pause", ""),
    "ns and alias prefix": ("", "registry.k8s.io", "k8s.gcr.io/pause", "registry.k8s.io", "pause", ""),
    "alias ns and prefix": ("", "k8s.gcr.io", "registry.k8s.io/pause", "registry.k8s.io", "pause", "k8s.gcr.io"),
    # our own names count as none
    "own ns": ("", "127.0.0.1:5000", "pause", "registry.k8s.io", "pause", ""),
    "own ns in upper case": ("", "MIRROR.corp", "quay.io/a", "quay.io", "a", ""),
    "own ns with default port": ("", "cache", "pause", "registry.k8s.io", "pause", ""),
    "own url as ns": ("", "cache.corp:5000", "pause", "registry.k8s.io", "pause", ""),
    # (2) Host: the whole path is the repository
    "host": ("images.corp:8080", None, "coreos/etcd", "quay.io", "coreos/etcd", ""),
    "host in upper case": ("QUAY.corp", None, "coreos/etcd", "quay.io", "coreos/etcd", "quay.corp"),
    "host with default port": ("quay.corp:443", None, "a", "quay.io", "a", "quay.corp"),
    "host with other port": ("images.corp:9090", None, "a/b", "registry.k8s.io", "a/b", ""),
    "host before prefix": ("images.corp:8080", None, "docker.io/a", "quay.io", "docker.io/a", ""),
    "own ns, then host": ("images.corp:8080", "mirror.corp", "a", "quay.io", "a", ""),
    "host that is none": ("bad host\r\n", None, "pause", "registry.k8s.io", "pause", ""),
    "upstream's name as host": ("quay.io", None, "a", "quay.io", "a", ""),
    "old name as host": ("K8S.gcr.io:443", None, "pause", "registry.k8s.io", "pause", "k8s.gcr.io"),
    "another host": ("gcr.io", None, "pause", "registry.k8s.io", "pause", ""),
    # (3) the first segment is an upstream, alias or prefix
    "prefix": ("", None, "quay.io/coreos/etcd", "quay.io", "coreos/etcd", ""),
    "short prefix": ("", None, "k8s/sig/a", "registry.k8s.io", "sig/a", ""),
    "alias as prefix": ("", None, "k8s.gcr.io/pause", "registry.k8s.io", "pause", "k8s.gcr.io"),
    "prefix with port": ("", None, "registry.corp:8443/a", "registry.corp:8443", "a", ""),
    "only the first segment": ("", None, "a/quay.io/b", "registry.k8s.io", "a/quay.io/b", ""),
    # docker.io's one-word names
    "library by ns": ("", "docker.io", "alpine", "docker.io", "library/alpine", ""),
    "library by prefix": ("", None, "docker.io/alpine", "docker.io", "library/alpine", ""),
    "library by host": ("hub.corp", None, "alpine", "docker.io", "library/alpine", ""),
    "library said": ("", "docker.io", "library/alpine", "docker.io", "library/alpine", ""),
    "two words at docker.io": ("", "docker.io", "grafana/grafana", "docker.io", "grafana/grafana", ""),
    "one word elsewhere": ("", "quay.io", "alpine", "quay.io", "alpine", ""),
    # (5) unqualified
    "unqualified": ("127.0.0.1:5000", None, "sig-storage/csi", "registry.k8s.io", "sig-storage/csi", ""),
}


@pytest.mark.parametrize(("host", "ns", "name", "registry", "repo", "alias"), ROUTES.values(), ids=ROUTES)
def test_routes(host, ns, name, registry, repo, alias):
    route = router().route(host, ns, name)
    assert (route.registry.name, route.repo, route.alias) == (registry, repo, alias)


def test_unqualified_one_word_names_of_docker_io():
    assert router("docker.io").route("", None, "alpine").repo == "library/alpine"


DENIED = {
    "unknown ns": ("", "gcr.io", "a"),
    "unknown ns with a known prefix": ("", "gcr.io", "quay.io/a"),
    "unknown ns at a known host": ("hub.corp", "gcr.io", "a"),
    "ns of a subdomain": ("", "a.registry.k8s.io", "a"),
    "ns with another port": ("", "registry.k8s.io:5000", "a"),
    "ns is a prefix, not a name": ("", "k8s", "a"),
    "ns that is no name": ("", "http://registry.k8s.io", "a"),
    "ns with a path": ("", "registry.k8s.io/x", "a"),
    "ns of metadata": ("", "169.254.169.254", "latest"),
    "ns of several": ("", "registry.k8s.io,quay.io", "a"),
    "ns with user": ("", "user@registry.k8s.io", "a"),
    "ns with control": ("", "registry.k8s.io\r\n", "a"),
    "ns and another prefix": ("", "registry.k8s.io", "quay.io/a"),
    "ns and another alias": ("", "quay.io", "k8s.gcr.io/a"),
    "ns and another short prefix": ("", "quay.io", "k8s/a"),
    # (4) looks like a host and is none
    "unknown host": ("", None, "gcr.io/a"),
    "unknown port": ("", None, "cache:5000/a"),
    "localhost": ("", None, "localhost/a"),
    "own name as prefix": ("", None, "127.0.0.1:5000/a"),
    "unknown host by own ns": ("", "mirror.corp", "gcr.io/a"),
}


@pytest.mark.parametrize(("host", "ns", "name"), DENIED.values(), ids=DENIED)
def test_denied_with_the_reason(host, ns, name):
    with pytest.raises(Denied) as refused:
        router().route(host, ns, name)
    assert (refused.value.status, refused.value.code) == (403, "DENIED")
    assert len(refused.value.reason()) <= 200


def test_what_is_unknown_is_named_and_so_is_what_is_known():
    for ns, name in (("gcr.io", "a"), (None, "gcr.io/a")):
        with pytest.raises(Denied) as refused:
            router().route("", ns, name)
        assert "gcr.io is none" in refused.value.message
        for known in (
            "registry.k8s.io",
            "k8s.gcr.io",
            "k8s",
            "docker.io",
            "quay.io",
            "quay.corp",
            "registry.corp:8443",
        ):
            assert known in refused.value.message


def test_nobody_answers_for_unqualified_names():
    with pytest.raises(NameUnknown):
        router(None).route("", None, "pause")
    assert router(None).route("", None, "quay.io/a").registry.name == "quay.io"


@pytest.mark.parametrize(
    ("ns", "name"),
    [(None, "quay.io"), ("quay.io", "quay.io"), (None, "Pause"), (None, "a/.b"), ("quay.io", "a..b"), (None, "k8s/..")]
    + [(None, "a" * 256), ("docker.io", "x" * 250)],
)
def test_what_is_left_must_be_a_repository(ns, name):
    with pytest.raises(NameInvalid) as refused:
        router().route("", ns, name)
    assert refused.value.status == 400


def test_own_names_have_one_spelling():
    assert set(OWN) == {"127.0.0.1:5000", "mirror.corp", "cache", "cache.corp:5000"}
    assert set(own_names("[::]:5000", (), "")) == {"[::]:5000"}


@pytest.mark.parametrize("name", ["my_cache:5000", "bücher.example:5000", "/run/tidegate.sock", "\0tidegate"])
def test_what_no_client_can_send_is_no_name_of_ours(name):
    assert set(own_names("127.0.0.1:5000", (), name)) == {"127.0.0.1:5000"}
    assert set(own_names(name, (), "cache.corp")) == {"cache.corp"}
