"""k3s (and RKE2): registries.yaml, from which it writes its containerd's hosts.toml at each start.

Format: docs.k3s.io, "Private Registry Configuration". Its containerd says by `ns=` which registry is meant, so nothing
has to be rewritten.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from proxy.clients.setup import File, Setup, quoted

_NOTE = (
    "On every node; then: systemctl restart k3s (or k3s-agent). RKE2 reads the same from /etc/rancher/rke2.",
    "When the cache fails, k3s goes on to the registry itself, which only hangs behind a firewall: start it with",
    "--disable-default-registry-endpoint to see the cache's reason instead.",
)
_HUB = ("k3s' own images (pause among them) come from docker.io/rancher: mirror docker.io too.",)


def files(setup: Setup) -> Iterator[File]:
    """One file; every registry has the same endpoint."""
    # k3s adds /v2 where there is no path, and takes a path as it stands.
    endpoint = setup.url + ("/v2" if urlsplit(setup.url).path else "")
    mirrors = "".join(f"  {quoted(name)}:\n    endpoint:\n      - {quoted(endpoint)}\n" for name in setup.names())
    trust = f"configs:\n  {quoted(setup.host)}:\n    tls:\n      ca_file: {quoted(setup.ca)}\n"
    content = f"mirrors:\n{mirrors}" + (trust if setup.ca and not setup.plain else "")
    yield File("/etc/rancher/k3s/registries.yaml", content, _NOTE + (() if setup.registry("docker.io") else _HUB))
