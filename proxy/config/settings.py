"""The settings as the rest of the program sees them: frozen, complete, valid. No reading, no defaults' reasons.

Durations are seconds as floats, `math.inf` is "forever". Names of registries are in their one spelling (lower case,
no default port), folders are absolute, URLs have no trailing slash.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


class ConfigError(Exception):
    """A wrong setting; the text is the one line a person reads: where, what is wrong, what to write instead."""


class WrongOption(ConfigError):
    """A setting that was given as an option of the command: wrong usage, not a wrong file."""


class Secret:
    """Text that prints as stars; `reveal` is the only way to it, so a leak can be searched for."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "***" if self._text else "''"


@dataclass(frozen=True, slots=True)
class Server:
    """Where we listen and keep things. `workers` is resolved (never 0), `drain` is seconds; `offline` is for every
    upstream. What clients may hold: `max_connections` of all workers, `max_header_size` in bytes, times in seconds."""

    listen: str
    url: str
    names: tuple[str, ...]
    data: str
    workers: int
    drain: float
    unqualified: tuple[str, ...]
    offline: bool
    max_connections: int
    max_header_size: int
    header_timeout: float
    body_timeout: float
    write_timeout: float
    idle_timeout: float


@dataclass(frozen=True, slots=True)
class Tls:
    """Our own certificate: absolute names of PEM files. `cert_file` empty: plain HTTP; `key_file` empty: its key is in
    the same file; `client_ca_file` empty: clients show no certificate, else every one of them must."""

    cert_file: str
    key_file: str
    client_ca_file: str

    @property
    def scheme(self) -> str:
        """How URLs of the port begin."""
        return "https" if self.cert_file else "http"


@dataclass(frozen=True, slots=True)
class Auth:
    """Who may push and pull. `users_file` is absolute, or empty where no user is asked for; `push_names` and
    `pull_names` hold "user=pattern" (empty: every user every name), `trusted_proxies` networks."""

    push: Literal["loopback", "nobody", "users"]
    pull: Literal["anyone", "users"]
    users_file: str
    push_names: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    pull_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AdminPort:
    """Where the page, /api/ and /metrics are answered, empty: beside the registry; the absolute path of the file whose
    token opens all of /api/, empty: only the socket does."""

    listen: str
    token_file: str


@dataclass(frozen=True, slots=True)
class Share:
    """So many bytes, or where `fraction` is not zero that part of the file system."""

    bytes: int
    fraction: float

    def of(self, total: int) -> int:
        """Bytes, on a file system of `total` bytes."""
        return int(total * self.fraction) if self.fraction else self.bytes


@dataclass(frozen=True, slots=True)
class Cache:
    """How much is kept: `max_size` of what may be evicted and pins together, `min_free` of the file system left.
    `scrub_bandwidth` is bytes a second read again in the background, 0 for none."""

    max_size: Share
    min_free: Share
    scrub_bandwidth: int


@dataclass(frozen=True, slots=True)
class Egress:
    """The way out: host patterns, seconds, a proxy's URL (with its account, so it is not in the repr), a CA
    file, a client certificate and its key (empty where the certificate's file holds both). `allow_private` is about
    hosts somebody else names: redirects, token services."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]
    allow_private: bool
    connect_timeout: float
    stall_timeout: float
    first_byte_deadline: float
    proxy: str = field(repr=False)
    proxy_username: str
    proxy_password: Secret
    no_proxy: tuple[str, ...]
    ca_file: str
    cert_file: str
    key_file: str

    def proxy_for(self, host: str) -> str:
        """The proxy to reach `host` (no port, no brackets) through, or "" to go there directly.

        `no_proxy` is read as curl and Go do: `*`, a name and everything below it, an address, a network.
        """
        host = host.lower().rstrip(".")
        direct = not self.proxy or any(_matches(entry.lower(), host) for entry in self.no_proxy)
        return "" if direct else self.proxy


def _matches(entry: str, host: str) -> bool:
    if entry == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = entry.lstrip("*").lstrip(".")
        return bool(name) and (host == name or host.endswith("." + name))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Upstream:
    """One registry elsewhere. `egress` is the global table with this upstream's own keys laid over it; `offline`, its
    own or the server's: never dialled; `max_bandwidth` is bytes a second of all its fills, 0 for no limit;
    `repositories` and `deny_repositories` are patterns of what is served of it."""

    name: str
    urls: tuple[str, ...]
    aliases: tuple[str, ...]
    hosts: tuple[str, ...]
    prefix: str
    tag_ttl: float
    on_gone: Literal["keep", "obey"]
    on_move: Literal["follow", "hold"]
    stale_if_error: float
    max_fills: int
    max_bandwidth: int
    repositories: tuple[str, ...]
    deny_repositories: tuple[str, ...]
    offline: bool
    username: str
    password: Secret
    egress: Egress

    @property
    def public(self) -> bool:
        """No credentials: what it gave us, everybody may see. A client certificate opens doors as a password does."""
        return not self.username and not self.egress.cert_file


@dataclass(frozen=True, slots=True)
class Local:
    """What may be pushed here. `names` are registries that mean it, `own` patterns of repositories that are ours
    without asking an upstream, `upload_ttl` seconds after which an upload nobody goes on with is forgotten, and for
    which gc keeps what a pusher was told of; `max_size` what may be pushed altogether, zero for no limit; `sparse`:
    an index may be pushed without all of its manifests."""

    names: tuple[str, ...]
    own: tuple[str, ...]
    upload_ttl: float
    max_size: Share
    sparse: bool


@dataclass(frozen=True, slots=True)
class Log:
    """How the log is written, and from which level on."""

    format: Literal["text", "json"]
    level: Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything. `pushing`: there is a [local] section. `origins` maps "server.listen" to "default",
    "/etc/x.toml:12", a variable's or an option's name."""

    server: Server
    tls: Tls
    auth: Auth
    admin: AdminPort
    cache: Cache
    egress: Egress
    upstreams: Mapping[str, Upstream]
    local: Local
    pushing: bool
    log: Log
    origins: Mapping[str, str]
    file: str | None
