"""kubeadm: a ClusterConfiguration that names the cache, and the containerd below it, which has to trust it.

The other way, keeping every image's name and giving nodes `client-config containerd`, needs nothing here.
"""

from collections.abc import Iterator

from proxy.clients import containerd
from proxy.clients.setup import File, Setup, quoted
from proxy.config import ConfigError

_REGISTRY = "registry.k8s.io"
_PAUSE = "3.10"  # kubeadm's of Kubernetes 1.31 to 1.33; the note says how to find another release's
_NOTE = (
    "kubeadm init --config kubeadm.yaml. Before Kubernetes 1.31 the version is v1beta3.",
    "With nodes set up by `tidegate client-config containerd` alone, images keep their names and this is not needed.",
)
_SANDBOX = ("kubeadm does not set the sandbox image: its tag is the one `kubeadm config images list` shows for pause.",)


def files(setup: Setup) -> Iterator[File]:
    """Raises ConfigError when registry.k8s.io is not mirrored."""
    if setup.registry(_REGISTRY) is None:
        raise ConfigError(f"upstreams: kubeadm needs {_REGISTRY}, which is not among them")
    repository = f"{setup.roots('kubeadm')[0]}/{_REGISTRY}"
    yield File("kubeadm.yaml", _cluster(repository), _NOTE)
    yield from containerd.hosts(setup, containerd.CERTS)
    yield from containerd.lines(f"{repository}/pause:{_PAUSE}", _SANDBOX)


def _cluster(repository: str) -> str:
    """CoreDNS has a repository of its own: below a custom imageRepository kubeadm looks for coredns, where
    registry.k8s.io has coredns/coredns."""
    return f"""\
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
imageRepository: {quoted(repository)}
dns:
  imageRepository: {quoted(repository + "/coredns")}
"""
