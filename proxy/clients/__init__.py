"""Configuration for the clients that pull through this cache: settings in, files out, one writer per client.

What lives here: what each client reads, in its own format. What must not: I/O, the terminal, knowledge of a running
service. A client sends what it likes; its writer knows how it names a registry to a mirror (containerd's `ns=`, a path
segment, nothing at all) and says in the file's note what that client cannot do.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from proxy.clients import containerd, containers, docker, k3s, kind, kubeadm
from proxy.clients.docker import NOTHING
from proxy.clients.setup import Account, File, Setup, address, setup
from proxy.config import ConfigError, Settings, parse_url

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


def served(settings: Settings, client: str, url: str, upstreams: Sequence[str], ca: str = "") -> Mapping[str, str]:
    """The files of a client that reaches the cache at `url`, content by path. Raises ConfigError, also where there is
    nothing to write: the note, which says why, is not among the files."""
    try:
        told = setup(settings, (parse_url(url),), ca, upstreams)
    except ValueError as error:
        raise ConfigError(f"the address asked {error}") from None
    files = list(WRITERS[client](told))
    for file in files:
        if file.content == NOTHING:
            raise ConfigError(f"{client} would be told nothing. {' '.join(file.note[1:4])}")
    return {file.name: file.content for file in files}


__all__ = ["WRITERS", "Account", "File", "Setup", "address", "served", "setup"]
