"""podman, skopeo, buildah and CRI-O: one file of containers-registries.conf(5).

They say nothing of the registry meant, so it stands in the path. `location` rather than a mirror entry: a mirror is
chosen once, at the manifest, and where it fails the error shown is that of the last location, which has to be one that
can be reached. Only where there are several places, all but the last are mirrors.
"""

import json
from collections.abc import Iterator, Sequence

from proxy.clients.setup import File, Registry, Setup, quoted

_PATH = "/etc/containers/registries.conf.d/50-tidegate.conf"
_CRIO_AUTH = "/etc/crio/tidegate-auth.json"
_CRIO_CONF = "/etc/crio/crio.conf.d/50-tidegate.conf"


def podman(setup: Setup) -> Iterator[File]:
    """Also for skopeo and buildah; read at each command."""
    yield File(_PATH, _conf(setup, "podman"), ("For rootless users too; read at each command.", *_trust(setup)))
    yield from _login(
        setup, "/root/.config/containers/auth.json", "A rootless user's is ~/.config/containers/auth.json."
    )


def crio(setup: Setup) -> Iterator[File]:
    """Images keep their names, the pause image included."""
    note = (
        "Then: systemctl reload crio.",
        "The pause image comes the same way under the name it has: leave pause_image alone.",
        *_trust(setup),
    )
    yield File(_PATH, _conf(setup, "crio"), note)
    yield from _login(setup, _CRIO_AUTH, "Merge it with what is there.")
    if setup.account:
        yield File(_CRIO_CONF, f"[crio.image]\nglobal_auth_file = {quoted(_CRIO_AUTH)}\n")


def _login(setup: Setup, path: str, note: str) -> Iterator[File]:
    """containers-auth.json(5)."""
    if setup.account:
        known = {host: {"auth": setup.account.basic} for host in setup.hosts}
        yield File(path, json.dumps({"auths": known}, indent=2) + "\n", (note,), secret=True)


def _trust(setup: Setup) -> tuple[str, ...]:
    """Where the CA goes: its place is its name there, no line of the file says it."""
    known = setup.ca and not setup.plain
    return tuple(f"Copy {setup.ca} to /etc/containers/certs.d/{host}/ca.crt." for host in setup.hosts) if known else ()


def _conf(setup: Setup, client: str) -> str:
    hosts = setup.roots(client)
    tables = [*(_table(setup, host, [host]) for host in hosts)]
    tables += [_registry(setup, hosts, each) for each in setup.registries]
    # What is pushed here has no registry in its path: it is found where names without one look for it.
    tables += [_table(setup, name, hosts) for name in setup.local if "local" in setup.unqualified]
    return "\n".join(tables)


def _registry(setup: Setup, hosts: Sequence[str], registry: Registry) -> str:
    if not registry.segment:
        return f"# {registry.name} is left out: a port cannot stand in a path; give its upstream a prefix\n"
    places = [f"{host}/{registry.segment}" for host in hosts]
    return _table(setup, registry.name, places, registry.name if setup.fallback else "")


def _table(setup: Setup, prefix: str, places: Sequence[str], beyond: str = "") -> str:
    """`beyond` is asked last, and over TLS."""
    insecure = "insecure = true\n" if setup.plain else ""
    *mirrors, last = (*places, beyond) if beyond else places
    text = f"[[registry]]\nprefix = {quoted(prefix)}\nlocation = {quoted(last)}\n" + ("" if beyond else insecure)
    return text + "".join(f"[[registry.mirror]]\nlocation = {quoted(each)}\n{insecure}" for each in mirrors)
