"""What every writer is told: where the cache is reached, which registries it answers for, under which names.

Pure. No format of any client stands here.
"""

import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxy.config import ConfigError, Settings, Upstream, parse_listen


@dataclass(frozen=True, slots=True)
class File:
    """One file to write. `note`: lines for whoever installs it; `variant` tells two of the same path apart, which
    are alternatives and both to be merged into what is there."""

    path: str
    content: str
    note: tuple[str, ...] = ()
    variant: str = ""


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry as images name it; `segment` is the path segment that means it at the cache, "" where none can."""

    name: str
    segment: str


@dataclass(frozen=True, slots=True)
class Setup:
    """The cache as clients see it. `own` are further names that mean the cache itself, `local` those of what is pushed
    here, `ca` a file on the client's machine, "" where the system's CAs do."""

    url: str
    ca: str
    registries: tuple[Registry, ...]
    own: tuple[str, ...]
    local: tuple[str, ...]
    unqualified: tuple[str, ...]
    pushing: bool

    @property
    def host(self) -> str:
        """host[:port], as it begins an image's name."""
        return urlsplit(self.url).netloc

    @property
    def plain(self) -> bool:
        """Whether it is spoken to without TLS."""
        return self.url.startswith("http://")

    def root(self, client: str) -> str:
        """`host` for a client that knows no path before /v2/. Raises ConfigError where there is one."""
        if urlsplit(self.url).path:
            raise ConfigError(f"server.url: {self.url} has a path, and {client} can only be told a host")
        return self.host

    def names(self) -> tuple[str, ...]:
        """Everything an image's name may begin with and be meant for the cache, each once."""
        registries = (registry.name for registry in self.registries)
        return tuple(dict.fromkeys((*registries, *self.local, *self.own, self.host)))

    def registry(self, name: str) -> Registry | None:
        """The registry of that name, if the cache answers for it."""
        return next((each for each in self.registries if each.name == name), None)


def address(settings: Settings, hostname: str) -> tuple[str, str]:
    """(URL, doubt): how clients reach us, and the sentence that says what to set where that is a guess, else "".

    `hostname` is this machine's, for a listen address that is every address. Raises ConfigError.
    """
    server = settings.server
    if server.url:
        return server.url, ""
    host, port = parse_listen(server.listen)
    if not port:
        raise ConfigError(f"server.url: must be set, because server.listen {server.listen} has no fixed port")
    if _is(host, "is_unspecified"):
        url = f"http://{hostname}:{port}"
        return url, f"{url} is a guess from server.listen {server.listen}; set server.url to how clients reach it"
    url = f"http://{server.listen}"
    if host == "localhost" or _is(host, "is_loopback"):
        return url, f"{url} is reached from this machine only; set server.url, and server.listen to match"
    return url, ""


def _is(host: str, what: str) -> bool:
    try:
        return bool(getattr(ipaddress.ip_address(host), what))
    except ValueError:
        return False


def setup(settings: Settings, url: str, ca: str = "") -> Setup:
    """What the writers need of the settings, for clients that reach the cache at `url`."""
    registries = (each for upstream in settings.upstreams.values() for each in _registries(upstream))
    local = settings.local.names if settings.pushing else ()
    server = settings.server
    return Setup(url, ca, tuple(registries), server.names, local, server.unqualified, settings.pushing)


def _registries(upstream: Upstream) -> Iterator[Registry]:
    """An upstream and its old names. A port cannot stand in a repository's path, so those need the prefix."""
    for name in (upstream.name, *upstream.aliases):
        yield Registry(name, upstream.prefix if ":" in name else name)


def quoted(text: str) -> str:
    """A string as TOML, YAML and JSON all write it."""
    return json.dumps(text, ensure_ascii=False)
