"""Configuration for the clients that pull through this cache: settings in, files out, one writer per client.

What lives here: what each client reads, in its own format. What must not: I/O, the terminal, knowledge of a running
service. A client sends what it likes; its writer knows how it names a registry to a mirror (containerd's `ns=`, a path
segment, nothing at all) and says in the file's note what that client cannot do.
"""

from collections.abc import Callable, Iterable, Mapping

from proxy.clients import containerd, containers, docker, k3s, kind, kubeadm
from proxy.clients.setup import File, Setup, address, setup

WRITERS: Mapping[str, Callable[[Setup], Iterable[File]]] = {
    "containerd": containerd.files,
    "k3s": k3s.files,
    "crio": containers.crio,
    "podman": containers.podman,
    "docker": docker.files,
    "kind": kind.files,
    "kubeadm": kubeadm.files,
}
"""Client -> the files it needs. Raises ConfigError where the settings cannot be told to that client."""

__all__ = ["WRITERS", "File", "Setup", "address", "setup"]
