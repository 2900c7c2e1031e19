"""kind: the cluster's configuration, hosts.toml for its nodes, the ConfigMap that tells tools where to push.

After the guide at kind.sigs.k8s.io, "Local Registry", and KEP-1755. Paths are relative: everything is applied from the
folder it was written to, by the script that is part of it.
"""

import shlex
from collections.abc import Iterator
from urllib.parse import urlsplit

from proxy.clients import containerd
from proxy.clients.setup import File, Setup, quoted

_CLUSTER = f"""\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
containerdConfigPatches:
  - |-
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "{containerd.CERTS}"
"""
_PUSHES = (
    "Pushes: where tidegate is a container, what comes through a published port (docker run -p 127.0.0.1:5001:5000)",
    'arrives from the bridge, not from loopback, so [auth] push = "loopback" refuses it: set push = "users" there.',
)
_NO_PUSHES = ('Nothing can be pushed yet: [local] with names = ["localhost:5001"] turns it on; then run this again.',)


def files(setup: Setup) -> Iterator[File]:
    """In the order in which they are needed."""
    yield File("kind/cluster.yaml", _CLUSTER, ("kind create cluster --config kind/cluster.yaml",))
    yield from containerd.hosts(setup, "kind/certs.d")
    if setup.pushing:
        yield File("kind/local-registry-hosting.yaml", _config_map(setup))
    note = ("Once the cluster is up: sh kind/connect.sh [CLUSTER]",)
    yield File("kind/connect.sh", _script(setup), note + (_PUSHES if setup.pushing else _NO_PUSHES))


def _config_map(setup: Setup) -> str:
    """KEP-1755. Nodes know the name people push to by its hosts.toml, so it needs no other one for the runtime."""
    host = next(iter(setup.local), setup.host)
    return f"""\
apiVersion: v1
kind: ConfigMap
metadata:
  name: local-registry-hosting
  namespace: kube-public
data:
  localRegistryHosting.v1: |
    host: {quoted(host)}
    hostFromClusterNetwork: {quoted(setup.host)}
    help: "https://kind.sigs.k8s.io/docs/user/local-registry/"
"""


def _script(setup: Setup) -> str:
    """A container of the cache's name joins the nodes' network; where it is no container that step is passed over."""
    name = shlex.quote(urlsplit(setup.url).hostname or "")
    connect = f"""\
#!/bin/sh
set -eu
cd "$(dirname "$0")"
if docker container inspect {name} >/dev/null 2>&1; then
  docker network connect kind {name} 2>/dev/null || true  # it may be there already
fi
for node in $(kind get nodes --name "${{1:-kind}}"); do
  docker exec "$node" mkdir -p {containerd.CERTS}
  docker cp certs.d/. "$node:{containerd.CERTS}/"
done
"""
    return connect + ("kubectl apply -f local-registry-hosting.yaml\n" if setup.pushing else "")
