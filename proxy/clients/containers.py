"""podman, skopeo, buildah and CRI-O: one file of containers-registries.conf(5).

They say nothing of the registry meant, so it stands in the path. `location` rather than a mirror entry: a mirror is
chosen once, at the manifest, and where it fails the error shown is that of the registry itself, which nobody can reach.
"""

from collections.abc import Iterator

from proxy.clients.setup import File, Registry, Setup, quoted

_PATH = "/etc/containers/registries.conf.d/50-tidegate.conf"


def podman(setup: Setup) -> Iterator[File]:
    """Also for skopeo and buildah; read at each command."""
    yield File(_PATH, _conf(setup, "podman"), ("For rootless users too; read at each command.", *_trust(setup)))


def crio(setup: Setup) -> Iterator[File]:
    """Images keep their names, the pause image included."""
    note = (
        "Then: systemctl reload crio.",
        "The pause image comes the same way under the name it has: leave pause_image alone.",
        *_trust(setup),
    )
    yield File(_PATH, _conf(setup, "crio"), note)


def _trust(setup: Setup) -> tuple[str, ...]:
    """Where the CA goes: its place is its name there, no line of the file says it."""
    known = setup.ca and not setup.plain
    return (f"Copy {setup.ca} to /etc/containers/certs.d/{setup.host}/ca.crt.",) if known else ()


def _conf(setup: Setup, client: str) -> str:
    host = setup.root(client)
    tables = [_table(setup, host, host), *(_registry(setup, host, each) for each in setup.registries)]
    # What is pushed here has no registry in its path: it is found where names without one look for it.
    tables += [_table(setup, name, host) for name in setup.local if "local" in setup.unqualified]
    return "\n".join(tables)


def _registry(setup: Setup, host: str, registry: Registry) -> str:
    if not registry.segment:
        return f"# {registry.name} is left out: a port cannot stand in a path; give its upstream a prefix\n"
    return _table(setup, registry.name, f"{host}/{registry.segment}")


def _table(setup: Setup, prefix: str, location: str) -> str:
    insecure = "insecure = true\n" if setup.plain else ""
    return f"[[registry]]\nprefix = {quoted(prefix)}\nlocation = {quoted(location)}\n{insecure}"
