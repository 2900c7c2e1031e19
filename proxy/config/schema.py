"""What may be set: one table a section, one row a key. Nothing is decided here that depends on another key.

A new setting is a field in settings.py and a row here; reading it from file and environment, its error messages and
its line in `tidegate config` follow from the row.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.config import people, quantities, values

_Show = Callable[[Any], str]


def _plain(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else str(value)


def _duration(value: float) -> str:
    return f'"{quantities.format_duration(value)}"'


def _url(value: str) -> str:
    return f'"{values.hide_password(value)}"'


@dataclass(frozen=True, slots=True)
class Key:
    """The default as TOML would hold it, its reader, and how the setting is shown. A list comes by comma from text."""

    default: object
    read: Callable[[object], object]
    show: _Show = _plain

    def from_text(self, text: str) -> object:
        """What TOML would hold for this text of the environment or of an option."""
        if isinstance(self.default, list):
            return [part.strip() for part in text.split(",") if part.strip()]
        return text


Section = Mapping[str, Key]

SERVER: Section = {
    "listen": Key("127.0.0.1:5000", values.listen),
    "url": Key("", values.optional_url),
    "names": Key([], values.hosts, values.format_list),
    "data": Key("", values.path),
    "workers": Key(0, values.whole(0, 64)),
    "drain": Key("30s", quantities.duration, _duration),
    "unqualified": Key([], values.hosts, values.format_list),
    "offline": Key(False, values.flag, values.format_flag),
    "max_connections": Key(8192, values.whole(1, 1_000_000)),
    "max_header_size": Key("64KiB", quantities.header_size, quantities.show_size),
    "header_timeout": Key("10s", quantities.positive, _duration),
    "body_timeout": Key("1m", quantities.positive, _duration),
    "write_timeout": Key("2m", quantities.positive, _duration),
    "idle_timeout": Key("75s", quantities.positive, _duration),
}
TLS: Section = {
    "cert_file": Key("", values.path),
    "key_file": Key("", values.path),
    "client_ca_file": Key("", values.path),
}
AUTH: Section = {
    "push": Key("loopback", values.choice("loopback", "nobody", "users")),
    "pull": Key("anyone", values.choice("anyone", "users")),
    "users_file": Key("", values.path),
    "push_names": Key([], people.grants, values.format_list),
    "pull_names": Key([], people.grants, values.format_list),
    "trusted_proxies": Key([], people.networks, values.format_list),
}
ADMIN: Section = {
    "listen": Key("", values.optional_listen),
    "token_file": Key("", values.path),
}
CACHE: Section = {
    "max_size": Key("50GiB", quantities.share, quantities.show_share),
    "min_free": Key("2GiB", quantities.share, quantities.show_share),
    "scrub_bandwidth": Key("8MiB", quantities.bandwidth, quantities.show_size),
}
EGRESS: Section = {
    "allow": Key(["*"], values.patterns, values.format_list),
    "deny": Key([], values.patterns, values.format_list),
    "allow_private": Key(False, values.flag, values.format_flag),
    "connect_timeout": Key("10s", quantities.positive, _duration),
    "stall_timeout": Key("30s", quantities.positive, _duration),
    # containerd 2.3 gives up when no header came within 30 s; 25 leaves time to tell it why.
    "first_byte_deadline": Key("25s", quantities.positive, _duration),
    "proxy": Key("", values.proxy, _url),
    "proxy_username": Key("", values.text),
    "proxy_password": Key("", values.secret),
    "no_proxy": Key([], values.strings, values.format_list),
    "ca_file": Key("", values.path),
    "cert_file": Key("", values.path),
    "key_file": Key("", values.path),
}
LOCAL: Section = {
    "names": Key([], values.hosts, values.format_list),
    "own": Key([], values.strings, values.format_list),
    "upload_ttl": Key("24h", quantities.positive, _duration),
    "max_size": Key("", quantities.limit, quantities.show_limit),
    "sparse": Key(False, values.flag, values.format_flag),
}
LOG: Section = {
    "format": Key("text", values.choice("text", "json")),
    "level": Key("info", values.choice("debug", "info", "warning", "error")),
}
UPSTREAM: Section = {
    "urls": Key([], values.urls, values.format_list),
    "aliases": Key([], values.hosts, values.format_list),
    "hosts": Key([], values.hosts, values.format_list),
    "prefix": Key("", values.segment),
    "tag_ttl": Key("1h", quantities.lasting, _duration),
    "on_gone": Key("keep", values.choice("keep", "obey")),
    "on_move": Key("follow", values.choice("follow", "hold")),
    "stale_if_error": Key("forever", quantities.lasting, _duration),
    "max_fills": Key(16, values.whole(1, 1000)),
    "max_bandwidth": Key("", quantities.bandwidth, quantities.show_size),
    "repositories": Key(["*"], people.repositories, values.format_list),
    "deny_repositories": Key([], people.repositories, values.format_list),
    "offline": Key(False, values.flag, values.format_flag),
    "username": Key("", values.text),
    "password": Key("", values.secret),
}
SECRETS = frozenset({"password", "proxy_password"})  # each also as <key>_file

SECTIONS: Mapping[str, Section] = {
    "server": SERVER,
    "tls": TLS,
    "auth": AUTH,
    "admin": ADMIN,
    "cache": CACHE,
    "egress": EGRESS,
    "local": LOCAL,
    "log": LOG,
}

DEFAULT_UPSTREAM = "registry.k8s.io"
DEFAULT_ALIASES: Mapping[str, list[str]] = {DEFAULT_UPSTREAM: ["k8s.gcr.io"]}  # the frozen old name of the same content
DEFAULT_URLS: Mapping[str, str] = {"docker.io": "https://registry-1.docker.io"}  # https://docker.io is a web site
