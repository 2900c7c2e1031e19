"""Which registry answers for a name: the table of contract, nothing is ever dialled because a client named it.

In this order: (1) containerd's `ns`, unless it is one of our own names; (2) the Host a client asked, where that is an
upstream's name, an alias or one of its `hosts` (so a network whose DNS points an old name here changes no manifest);
(3) the first segment of the path; (4) a first segment that looks like a host and is none of ours is refused by name;
(5) whoever answers for unqualified names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from proxy.config import Upstream
from proxy.errors import Denied, NameInvalid, NameUnknown
from proxy.oci.names import Repo, looks_like_host, registry_name
from proxy.ports import Registry
from proxy.registry.chain import DOCKER_HUB, Unqualified, in_library
from proxy.registry.local import Local


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers, under which repository name, and by which old name it was asked for (empty: by none)."""

    registry: Registry
    repo: Repo
    alias: str = ""
    pushable: bool = False
    """Whether pushes go to the local registry under this name."""
    asks: bool = False
    """Whether somebody else may answer for this name too, and has to be asked before a push."""


@dataclass(frozen=True, slots=True)
class _Entry:
    registry: Registry
    alias: str
    library: bool
    pushable: bool = False
    asks: bool = False


class Router:
    """The names of this tidegate. `own` are the names it goes by itself: as `ns` they say nothing."""

    def __init__(
        self,
        upstreams: Iterable[tuple[Upstream, Registry]],
        unqualified: Registry | None,
        own: Iterable[str],
        local: Local | None = None,
        local_names: Iterable[str] = (),
    ) -> None:
        self._names: dict[str, _Entry] = {}
        self._prefixes: dict[str, _Entry] = {}
        self._hosts: dict[str, _Entry] = {}
        self._own = frozenset(own)
        for upstream, registry in upstreams:
            self._add(upstream, registry)
        self._hosts = self._names | self._hosts
        # Several registries behind unqualified names know a repository by different names: the chain sees to it.
        alone = unqualified is not None and not isinstance(unqualified, Unqualified)
        library = alone and unqualified is not None and unqualified.name == DOCKER_HUB
        pushable = isinstance(unqualified, Local) or (isinstance(unqualified, Unqualified) and unqualified.local)
        asks = isinstance(unqualified, Unqualified)
        self._unqualified = None if unqualified is None else _Entry(unqualified, "", library, pushable, asks)
        if local is not None:  # what is pushed by such a name answers without it too, so it asks as well
            self._names |= {name: _Entry(local, "", False, True, pushable and asks) for name in local_names}

    def _add(self, upstream: Upstream, registry: Registry) -> None:
        library = upstream.name == DOCKER_HUB
        entry = _Entry(registry, "", library)
        self._names[upstream.name] = entry
        self._names |= {alias: _Entry(registry, alias, library) for alias in upstream.aliases}
        if upstream.prefix:
            self._prefixes[upstream.prefix] = entry
        self._hosts |= {
            host: _Entry(registry, host if host in upstream.aliases else "", library) for host in upstream.hosts
        }

    def route(self, host: str, namespace: str | None, name: str) -> Route:
        """Raises NameInvalid, NameUnknown, and Denied with the reason."""
        first, _, rest = name.partition("/")
        if namespace is not None and (entry := self._by_namespace(namespace, first)) is not None:
            return _route(entry, rest if self._leads(first) is not None else name)
        if (entry := self._hosts.get(_host(host))) is not None:
            return _route(entry, name)
        if (entry := self._leads(first)) is not None:
            return _route(entry, rest)
        if looks_like_host(first):
            raise Denied(f"{first} is none of the registries here: {self._known()}")
        if self._unqualified is None:
            raise NameUnknown(f"a name without registry; prefix it with one of {self._known()}")
        return _route(self._unqualified, name)

    def leads(self, segment: str) -> bool:
        """Whether a name that begins with this segment says with it which registry is meant."""
        return self._leads(segment) is not None

    def _by_namespace(self, namespace: str, first: str) -> _Entry | None:
        """The upstream that `ns` names; None when it names us."""
        try:
            asked = registry_name(namespace)
        except NameInvalid:
            raise Denied(f"ns={namespace[:80]!r} is not a registry's name; known here: {self._known()}") from None
        if asked in self._own:
            return None
        entry = self._names.get(asked)
        if entry is None:
            raise Denied(f"ns={asked} is none of the registries here: {self._known()}")
        named = self._leads(first)
        if named is not None and named.registry is not entry.registry:
            raise Denied(f"ns={asked} and the path's {first} name different registries")
        return entry

    def _leads(self, segment: str) -> _Entry | None:
        """The upstream that a first path segment names, by name, alias or prefix."""
        return self._prefixes.get(segment) or self._names.get(segment)

    def _known(self) -> str:
        return ", ".join(sorted({*self._names, *self._prefixes}))


def _host(header: str) -> str:
    try:
        return registry_name(header)
    except NameInvalid:
        return ""


def _route(entry: _Entry, name: str) -> Route:
    if not name:
        raise NameInvalid("the path names a registry but no repository in it")
    repo = in_library(name) if entry.library else Repo.parse(name)
    return Route(entry.registry, repo, entry.alias, entry.pushable, entry.asks)


def own_names(listen: str, names: Iterable[str], url_host: str) -> Mapping[str, None]:
    """Names that mean this tidegate: configured ones, the listen address, the host of its URL. What is no registry's
    name (a Unix socket, a host with an underscore) is passed over: no client can send it as `ns`."""
    found = (_host(name) for name in (*names, listen, url_host))
    return {name: None for name in found if name}
