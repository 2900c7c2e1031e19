"""What `tidegate client-config` writes, client by client: the format, and what it says of settings that do not fit.

Of clients that are not here (k3s, Docker, kind, kubeadm) this is all; kind's script is run with stand-ins for the
programs it calls, and the lines of config.toml are read by containerd itself.
"""

import base64
import functools
import json
import os
import subprocess
import tomllib

import pytest

from tests.client_config import ALIAS, CERTS, HOST, HUB, REGISTRY, URL, assert_yaml, command, note, written
from tests.real.processes import program

LOCAL = '[local]\nnames = ["localhost:5001"]\n'


@pytest.fixture
def run(tmp_path):
    """run(CLIENT, *options, config=..., **environment) -> (status, stdout, stderr)."""
    return functools.partial(command, tmp_path)


# containerd


def test_hosts_toml(run):
    files = written(run, "containerd", "--ca", "/etc/ssl/corp.pem", config=LOCAL)
    for name in (REGISTRY, ALIAS, "localhost:5001", HOST):
        assert tomllib.loads(files[f"/{CERTS}/{name}/hosts.toml"]) == {
            "server": URL,
            "host": {URL: {"capabilities": ["pull", "resolve"], "dial_timeout": "10s"}},
        }
    files = written(run, "containerd", "--ca", "/etc/ssl/corp.pem", TIDEGATE_SERVER_URL="https://cache.corp")
    found = tomllib.loads(files[f"/{CERTS}/{REGISTRY}/hosts.toml"])
    assert found["ca"] == found["host"]["https://cache.corp"]["ca"] == "/etc/ssl/corp.pem"


@pytest.mark.real("containerd")
@pytest.mark.parametrize(("client", "sandbox"), [("containerd", ""), ("kubeadm", f"{HOST}/{REGISTRY}/pause:3.10")])
def test_config_toml(run, client, sandbox, tmp_path):
    files = written(run, client)
    new = tomllib.loads(files["/etc/containerd/config.toml containerd 2"])["plugins"]["io.containerd.cri.v1.images"]
    assert new["registry"] == {"config_path": f"/{CERTS}"}
    assert new.get("pinned_images", {"sandbox": ""}) == {"sandbox": sandbox}
    config = tmp_path / "containerd.toml"
    config.write_text("version = 2\n" + files["/etc/containerd/config.toml containerd 1"])
    command = [program("containerd"), "--config", str(config), "config", "dump"]
    dumped = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    plugin = tomllib.loads(dumped)["plugins"]["io.containerd.grpc.v1.cri"]
    assert plugin["registry"]["config_path"] == f"/{CERTS}"
    assert plugin["sandbox_image"] == (sandbox or "registry.k8s.io/pause:3.6")


def test_hosts_toml_of_several_caches_an_account_and_a_fallback(run):
    words = ("containerd", "--url", "http://a:1", "--url", "http://b:2", "--user", "node")
    files = written(run, *words, config=HUB, stdin="secret\n")
    found = tomllib.loads(files[f"/{CERTS}/{REGISTRY}/hosts.toml"])
    header = {"Authorization": ["Basic " + base64.b64encode(b"node:secret").decode()]}
    assert list(found["host"]) == ["http://a:1", "http://b:2"]
    assert all(host["header"] == header for host in found["host"].values())
    assert (found["server"], found["header"]) == ("http://b:2", header)
    files = written(run, *words, "--fallback", config=HUB, stdin="secret\n")
    for name, server in ((REGISTRY, f"https://{REGISTRY}"), ("docker.io", "https://registry-1.docker.io")):
        found = tomllib.loads(files[f"/{CERTS}/{name}/hosts.toml"])
        assert found["server"] == server
        assert "header" not in found, "our password is not for others"


# podman, skopeo, CRI-O


def test_registries_conf(run):
    config = f'{HUB}[upstreams."old.corp:5000"]\n[upstreams."new.corp:5000"]\nprefix = "new"\n'
    (conf,) = written(run, "podman", config=config).values()
    found = {row["prefix"]: row["location"] for row in tomllib.loads(conf)["registry"]}
    assert found == {name: f"{HOST}/{name}" for name in (REGISTRY, ALIAS, "docker.io")} | {
        HOST: HOST,
        "new.corp:5000": f"{HOST}/new",
    }
    assert all(row["insecure"] for row in tomllib.loads(conf)["registry"])
    assert "# old.corp:5000 is left out" in conf


def test_registries_conf_with_tls_says_where_the_ca_goes(run):
    rest = {"TIDEGATE_SERVER_URL": "https://cache.corp"}
    (conf,) = written(run, "podman", "--ca", "/ca.pem", **rest).values()
    assert "insecure" not in conf
    row = json.loads(run("podman", "--ca", "/ca.pem", "--json", **rest)[1])[0]
    assert "Copy /ca.pem to /etc/containers/certs.d/cache.corp/ca.crt." in row["note"]


def test_registries_conf_of_what_is_pushed_here(run):
    (conf,) = written(run, "crio", config=LOCAL).values()
    assert {"prefix": "localhost:5001", "location": HOST, "insecure": True} in tomllib.loads(conf)["registry"]


@pytest.mark.parametrize("client", ["podman", "crio", "docker", "kubeadm"])
def test_who_cannot_use_a_path_says_so(run, client):
    status, output, errors = run(client, TIDEGATE_SERVER_URL=f"{URL}/tide")
    assert (status, output) == (1, "")
    assert errors == f"server.url: {URL}/tide has a path, and {client} can only be told a host\n"


def test_registries_conf_of_several_caches_and_a_fallback(run):
    words = ("podman", "--url", "http://a:1", "--url", "http://b:2")
    rows = {row["prefix"]: row for row in tomllib.loads(*written(run, *words).values())["registry"]}
    assert rows[REGISTRY]["location"] == f"b:2/{REGISTRY}"
    assert rows[REGISTRY]["mirror"] == [{"location": f"a:1/{REGISTRY}", "insecure": True}]
    rows = {row["prefix"]: row for row in tomllib.loads(*written(run, *words, "--fallback").values())["registry"]}
    assert rows[REGISTRY]["location"] == REGISTRY
    assert "insecure" not in rows[REGISTRY]
    assert [each["location"] for each in rows[REGISTRY]["mirror"]] == [f"a:1/{REGISTRY}", f"b:2/{REGISTRY}"]
    assert rows["a:1"]["location"] == "a:1"


def test_crio_logs_in(run):
    files = written(run, "crio", "--user", "node", stdin="secret\n")
    login = json.loads(files["/etc/crio/tidegate-auth.json"])
    assert base64.b64decode(login["auths"][HOST]["auth"]) == b"node:secret"
    conf = tomllib.loads(files["/etc/crio/crio.conf.d/50-tidegate.conf"])
    assert conf == {"crio": {"image": {"global_auth_file": "/etc/crio/tidegate-auth.json"}}}


# k3s


def test_registries_yaml(run):
    (text,) = written(run, "k3s", "--ca", "/ca.pem", TIDEGATE_SERVER_URL="https://cache.corp").values()
    lines = """\
        mirrors:
          "registry.k8s.io":
            endpoint:
              - "https://cache.corp"
          "k8s.gcr.io":
            endpoint:
              - "https://cache.corp"
          "cache.corp":
            endpoint:
              - "https://cache.corp"
        configs:
          "cache.corp":
            tls:
              ca_file: "/ca.pem"
        """
    endpoint = {"endpoint": ["https://cache.corp"]}
    document = {
        "mirrors": {REGISTRY: endpoint, ALIAS: endpoint, "cache.corp": endpoint},
        "configs": {"cache.corp": {"tls": {"ca_file": "/ca.pem"}}},
    }
    assert_yaml(text, lines, document)


def test_k3s_with_plain_http_below_a_path(run):
    (text,) = written(run, "k3s", "--ca", "/ca.pem", TIDEGATE_SERVER_URL=f"{URL}/tide").values()
    assert f'- "{URL}/tide/v2"\n' in text
    assert "configs" not in text
    assert "mirror docker.io too" in note(run, "k3s")
    assert "mirror docker.io too" not in note(run, "k3s", config=HUB)


# Docker


@pytest.mark.parametrize(
    ("config", "mirrors", "hint"),
    [
        ("", None, "docker.io is not mirrored here"),
        (HUB, [URL], "add docker.io to server.unqualified"),
        (f'[server]\nunqualified = ["registry.k8s.io", "docker.io"]\n{HUB}', [URL], ""),
    ],
)
def test_daemon_json(run, config, mirrors, hint):
    (text,) = written(run, "docker", config=config).values()
    expected = {"insecure-registries": [HOST]} | ({"registry-mirrors": mirrors} if mirrors else {})
    assert json.loads(text) == expected
    said = note(run, "docker", config=config)
    assert "mirrors for docker.io only" in said
    assert f"docker pull {HOST}/registry.k8s.io/NAME:TAG" in said
    assert hint in said
    assert ("unqualified" in said) == bool(hint)


# kind


def test_kind_without_pushes(run):
    files = written(run, "kind")
    assert set(files) == {f"kind/certs.d/{name}/hosts.toml" for name in (REGISTRY, ALIAS, HOST)} | {
        "kind/cluster.yaml",
        "kind/connect.sh",
    }
    lines = """\
        kind: Cluster
        apiVersion: kind.x-k8s.io/v1alpha4
        containerdConfigPatches:
          - |-
            [plugins."io.containerd.grpc.v1.cri".registry]
              config_path = "/etc/containerd/certs.d"
        """
    patch = '[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"'
    document = {"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "containerdConfigPatches": [patch]}
    assert_yaml(files["kind/cluster.yaml"], lines, document)
    assert tomllib.loads(patch)
    assert "[local]" in note(run, "kind")


def test_kind_says_where_to_push(run):
    files = written(run, "kind", config=LOCAL)
    assert "kind/certs.d/localhost:5001/hosts.toml" in files
    lines = """\
        apiVersion: v1
        kind: ConfigMap
        metadata:
          name: local-registry-hosting
          namespace: kube-public
        data:
          localRegistryHosting.v1: |
            host: "localhost:5001"
            hostFromClusterNetwork: "cache.corp:5000"
            help: "https://kind.sigs.k8s.io/docs/user/local-registry/"
        """
    hosting = (
        f'host: "localhost:5001"\nhostFromClusterNetwork: "{HOST}"\n'
        'help: "https://kind.sigs.k8s.io/docs/user/local-registry/"\n'
    )
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "local-registry-hosting", "namespace": "kube-public"},
        "data": {"localRegistryHosting.v1": hosting},
    }
    assert_yaml(files["kind/local-registry-hosting.yaml"], lines, document)
    assert "not from loopback" in note(run, "kind", config=LOCAL)


@pytest.mark.parametrize("contained", [True, False])
def test_kinds_script_runs(run, tmp_path, contained):
    """With stand-ins that write down how they were called, for a cluster of two nodes."""
    programs, log, out = tmp_path / "bin", tmp_path / "log", tmp_path / "out dir"
    programs.mkdir()
    inspected = "" if contained else '[ "$2" != inspect ] || exit 1\n'
    for name, more in {"docker": inspected, "kubectl": 'cat "$3" >/dev/null\n', "kind": "echo n1 n2\n"}.items():
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{log}\n{more}')
        (programs / name).chmod(0o755)
    assert run("kind", "--write", str(out), config=LOCAL, TIDEGATE_SERVER_URL="http://tidegate:5000")[0] == 0
    path = f"{programs}:{os.environ['PATH']}"
    subprocess.run(["sh", str(out / "kind/connect.sh"), "dev"], env={"PATH": path}, check=True, cwd="/")
    assert log.read_text().splitlines() == [
        "docker container inspect tidegate",
        *(["docker network connect kind tidegate"] if contained else []),
        "kind get nodes --name dev",
        "docker exec n1 mkdir -p /etc/containerd/certs.d",
        "docker cp certs.d/. n1:/etc/containerd/certs.d/",
        "docker exec n2 mkdir -p /etc/containerd/certs.d",
        "docker cp certs.d/. n2:/etc/containerd/certs.d/",
        "kubectl apply -f local-registry-hosting.yaml",
    ]


# kubeadm


def test_cluster_configuration(run):
    files = written(run, "kubeadm")
    lines = """\
        apiVersion: kubeadm.k8s.io/v1beta4
        kind: ClusterConfiguration
        imageRepository: "cache.corp:5000/registry.k8s.io"
        dns:
          imageRepository: "cache.corp:5000/registry.k8s.io/coredns"
        """
    document = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "ClusterConfiguration",
        "imageRepository": f"{HOST}/{REGISTRY}",
        "dns": {"imageRepository": f"{HOST}/{REGISTRY}/coredns"},
    }
    assert_yaml(files["kubeadm.yaml"], lines, document)
    assert f"/{CERTS}/{HOST}/hosts.toml" in files  # else containerd would try TLS there


def test_kubeadm_needs_its_registry(run):
    status, _, errors = run("kubeadm", config='[upstreams."quay.io"]\n')
    assert status == 1
    assert errors == "upstreams: kubeadm needs registry.k8s.io, which is not among them\n"
