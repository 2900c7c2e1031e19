"""containerd: one hosts.toml a registry, read at each pull, and the line of config.toml that says where they are.

Format: github.com/containerd/containerd, docs/hosts.md. `override_path` is never needed: containerd says by `ns=` which
registry is meant, so all of them share one URL, and to a path in it containerd adds /v2 itself.
"""

from collections.abc import Iterator

from proxy.clients.setup import File, Setup, quoted

CERTS = "/etc/containerd/certs.d"
DIAL = "10s"  # a machine that is down shall not cost 30 s for each of its entries; before 2.x the line is not known

_CONFIG = "/etc/containerd/config.toml"
_RESTART = "into the file that is there; then: systemctl restart containerd"
_KEPT = (
    "The sandbox (pause) image comes the same way under the name it has: keep registry.k8s.io/pause:TAG, with the tag",
    "that `kubeadm config images list` shows, and pin it for the day without a way out.",
)


def files(setup: Setup) -> Iterator[File]:
    """All of it, the registries first."""
    yield from hosts(setup, CERTS)
    yield from lines("", _KEPT)


def hosts(setup: Setup, folder: str) -> Iterator[File]:
    """A hosts.toml below `folder` for each name, the cache's own included: without it containerd tries TLS there."""
    for name in setup.names():
        yield File(f"{folder}/{name}/hosts.toml", _hosts_toml(setup, name), secret=setup.account is not None)


def _hosts_toml(setup: Setup, name: str) -> str:
    """`server` is the cache too, unless a fallback is wanted: the registry itself only hangs behind a firewall.
    containerd sends no credentials to mirrors, so an account goes in as a header."""
    registry = setup.registry(name) if setup.fallback else None
    last = setup.urls[-1] if registry is None else registry.url
    ca = f"ca = {quoted(setup.ca)}\n" if setup.ca and not setup.plain else ""
    header = f'Authorization = ["Basic {setup.account.basic}"]\n' if setup.account else ""
    text = f"server = {quoted(last)}\n"
    if registry is None:
        text += ca + (f"[header]\n  {header}" if header else "")
    for url in setup.urls:
        text += f'[host.{quoted(url)}]\n  capabilities = ["pull", "resolve"]\n  dial_timeout = "{DIAL}"\n'
        text += f"  {ca}" if ca else ""
        text += f"[host.{quoted(url)}.header]\n  {header}" if header else ""
    return text


def lines(sandbox: str, note: tuple[str, ...] = ()) -> Iterator[File]:
    """The lines of config.toml for both majors; `sandbox` is the pause image to name, "" to leave it alone."""
    new, old = '[plugins."io.containerd.cri.v1.images"', '[plugins."io.containerd.grpc.v1.cri"'
    where = f".registry]\n  config_path = {quoted(CERTS)}\n"
    pinned = f"\n{new}.pinned_images]\n  sandbox = {quoted(sandbox)}\n" if sandbox else ""
    image = f"{old}]\n  sandbox_image = {quoted(sandbox)}\n\n" if sandbox else ""
    yield File(_CONFIG, f"{new}{where}{pinned}", (f"containerd 2.x (version = 3): {_RESTART}", *note), "2.x")
    yield File(_CONFIG, f"{image}{old}{where}", (f"containerd 1.x (version = 2): {_RESTART}", *note), "1.x")
