"""What every writer is told: where the cache is reached, which registries it answers for, under which names.

Pure. No format of any client stands here.
"""

import base64
import ipaddress
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from proxy.config import ConfigError, Secret, Settings, Upstream, WrongOption, parse_listen


@dataclass(frozen=True, slots=True)
class File:
    """One file to write. `note`: lines for whoever installs it; `variant` tells two of the same path apart, which
    are alternatives and both to be merged into what is there; `secret`: for its owner's eyes, mode 0600."""

    path: str
    content: str
    note: tuple[str, ...] = ()
    variant: str = ""
    secret: bool = False

    @property
    def name(self) -> str:
        """Its path below some folder, the variant as a suffix."""
        return self.path.lstrip("/") + (f".{self.variant}" if self.variant else "")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of the cache, for clients that have to log in."""

    name: str
    password: Secret

    @property
    def basic(self) -> str:
        """RFC 7617: what follows `Basic`."""
        return base64.b64encode(f"{self.name}:{self.password.reveal()}".encode()).decode()


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry as images name it; `segment` is the path segment that means it at the cache, "" where none can."""

    name: str
    segment: str

    @property
    def url(self) -> str:
        """The registry itself, for a client that shall go there when the cache fails."""
        return f"https://{'registry-1.docker.io' if self.name == 'docker.io' else self.name}"


@dataclass(frozen=True, slots=True)
class Setup:
    """The cache as clients see it. `urls` are tried in order; `own` are further names that mean the cache itself,
    `local` those of what is pushed here, `ca` is a file on the client's machine, "" where the system's CAs do;
    `fallback`: the registry itself is asked when the cache fails."""

    urls: tuple[str, ...]
    ca: str
    registries: tuple[Registry, ...]
    own: tuple[str, ...]
    local: tuple[str, ...]
    unqualified: tuple[str, ...]
    pushing: bool
    fallback: bool = False
    account: Account | None = None

    @property
    def url(self) -> str:
        """The first one."""
        return self.urls[0]

    @property
    def hosts(self) -> tuple[str, ...]:
        """host[:port] of each URL."""
        return tuple(dict.fromkeys(urlsplit(url).netloc for url in self.urls))

    @property
    def host(self) -> str:
        """host[:port], as it begins an image's name."""
        return urlsplit(self.url).netloc

    @property
    def plain(self) -> bool:
        """Whether it is spoken to without TLS."""
        return self.url.startswith("http://")

    def roots(self, client: str) -> tuple[str, ...]:
        """`hosts` for a client that knows no path before /v2/. Raises ConfigError where there is one."""
        for url in self.urls:
            if urlsplit(url).path:
                raise ConfigError(f"server.url: {url} has a path, and {client} can only be told a host")
        return self.hosts

    def names(self) -> tuple[str, ...]:
        """Everything an image's name may begin with and be meant for the cache, each once."""
        registries = (registry.name for registry in self.registries)
        return tuple(dict.fromkeys((*registries, *self.local, *self.own, *self.hosts)))

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
        url = f"{settings.tls.scheme}://{hostname}:{port}"
        return url, f"{url} is a guess from server.listen {server.listen}; set server.url to how clients reach it"
    url = f"{settings.tls.scheme}://{server.listen}"
    if host == "localhost" or _is(host, "is_loopback"):
        return url, f"{url} is reached from this machine only; set server.url, and server.listen to match"
    return url, ""


def _is(host: str, what: str) -> bool:
    try:
        return bool(getattr(ipaddress.ip_address(host), what))
    except ValueError:
        return False


def setup(
    settings: Settings,
    urls: tuple[str, ...],
    ca: str = "",
    upstreams: Collection[str] = (),
    fallback: bool = False,
    account: Account | None = None,
) -> Setup:
    """What the writers need of the settings, for clients that reach the cache at `urls`; `upstreams`: these alone, by
    name or alias, all of them where there is none. Raises WrongOption for one that is not there, and for URLs of both
    kinds: what clients are told of TLS holds for all of them."""
    if len({url.partition(":")[0] for url in urls}) > 1:
        raise WrongOption("--url: either all http or all https")
    named = [upstream for upstream in settings.upstreams.values() if not upstreams or _is_one(upstream, upstreams)]
    known = {name for upstream in settings.upstreams.values() for name in (upstream.name, *upstream.aliases)}
    for name in upstreams:
        if name not in known:
            raise WrongOption(f"--upstream: {name[:80]!r} is not there; known are {', '.join(sorted(known))}")
    registries = tuple(each for upstream in named for each in _registries(upstream))
    local = settings.local.names if settings.pushing else ()
    server = settings.server
    own = (server.names, local, server.unqualified, settings.pushing)
    return Setup(urls, ca, registries, *own, fallback, account)


def _is_one(upstream: Upstream, names: Collection[str]) -> bool:
    return any(name in names for name in (upstream.name, *upstream.aliases))


def _registries(upstream: Upstream) -> Iterator[Registry]:
    """An upstream and its old names. A port cannot stand in a repository's path, so those need the prefix."""
    for name in (upstream.name, *upstream.aliases):
        yield Registry(name, upstream.prefix if ":" in name else name)


def quoted(text: str) -> str:
    """A string as TOML, YAML and JSON all write it."""
    return json.dumps(text, ensure_ascii=False)
