"""k3s (and RKE2): registries.yaml, from which it writes its containerd's hosts.toml at each start.

Format: docs.k3s.io, "Private Registry Configuration". Its containerd says by `ns=` which registry is meant, so nothing
has to be rewritten.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

from proxy.clients.setup import File, Setup, quoted

_NOTE = ("On every node; then: systemctl restart k3s (or k3s-agent). RKE2 reads the same from /etc/rancher/rke2.",)
_ALONE = (
    "When the cache fails, k3s goes on to the registry itself, which only hangs behind a firewall: start it with",
    "--disable-default-registry-endpoint to see the cache's reason instead.",
)
_HUB = ("k3s' own images (pause among them) come from docker.io/rancher: mirror docker.io too.",)


def files(setup: Setup) -> Iterator[File]:
    """One file; every registry has the same endpoints."""
    # k3s adds /v2 where there is no path, and takes a path as it stands.
    endpoints = [url + ("/v2" if urlsplit(url).path else "") for url in setup.urls]
    listed = "".join(f"      - {quoted(endpoint)}\n" for endpoint in endpoints)
    mirrors = "".join(f"  {quoted(name)}:\n    endpoint:\n{listed}" for name in setup.names())
    note = _NOTE + (() if setup.fallback else _ALONE) + (() if setup.registry("docker.io") else _HUB)
    secret = setup.account is not None
    yield File("/etc/rancher/k3s/registries.yaml", f"mirrors:\n{mirrors}{_configs(setup)}", note, secret=secret)


def _configs(setup: Setup) -> str:
    """What holds for the hosts of the cache: whom to trust, who we are."""
    trust = f"    tls:\n      ca_file: {quoted(setup.ca)}\n" if setup.ca and not setup.plain else ""
    account = ""
    if setup.account:
        name, password = quoted(setup.account.name), quoted(setup.account.password.reveal())
        account = f"    auth:\n      username: {name}\n      password: {password}\n"
    tables = "".join(f"  {quoted(host)}:\n{account}{trust}" for host in setup.hosts)
    return f"configs:\n{tables}" if account or trust else ""
