"""How the settings are read that say who may do what: [auth], [tls], patterns of repositories; what contradicts what.

What must not live here: deciding about a request, and opening the users file, which commands that only read the
configuration may have no right to. Readers raise ValueError whose text continues "<key> ...", as in values.
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any

from proxy.config.values import strings

_GRANT = re.compile(r"(?P<user>[^:\s][^:]*)=(?P<pattern>[a-z0-9._/*-]+)\Z")
_REPOSITORIES = re.compile(r"[a-z0-9._/*?\[\]!-]+\Z")
_NETWORKS = 'a list of addresses and networks such as ["127.0.0.1", "10.0.0.0/8"]'
_GRANTS = 'a list of USER=PATTERN such as ["ci=team/*", "alice=*"]'


def networks(value: object) -> tuple[str, ...]:
    """A list of addresses and networks, each in its one spelling; an address is a network of one."""
    return tuple(_network(item) for item in strings(value))


def _network(item: str) -> str:
    try:
        return str(ipaddress.ip_network(item))
    except ValueError:  # also 10.0.0.1/8: either an address or a network was meant
        raise ValueError(f"must be {_NETWORKS}, not {json.dumps(item)}") from None


def grants(value: object) -> tuple[str, ...]:
    """A list of "user=pattern": `*` in a pattern is any characters, slashes too; the user `*` is every user."""
    for item in strings(value):
        if not _GRANT.match(item):
            raise ValueError(f"must be {_GRANTS}, not {json.dumps(item, ensure_ascii=False)}")
    return strings(value)


def repositories(value: object) -> tuple[str, ...]:
    """A list of patterns of repositories: `*` is any characters, slashes too."""
    for item in strings(value):
        if not _REPOSITORIES.match(item):
            shown = json.dumps(item, ensure_ascii=False)
            raise ValueError(f'must be a list of repositories without their registry such as ["kube-*"], not {shown}')
    return strings(value)


def alone(tls: Mapping[str, Any]) -> tuple[str, str] | None:
    """The key that says something of a certificate that is not there, and what to write; None when all is well."""
    for key in ("key_file", "client_ca_file"):
        if tls[key] and not tls["cert_file"]:
            return key, f"tls.{key} has no effect without a certificate; set tls.cert_file too"
    return None


def contradiction(auth: Mapping[str, Any]) -> tuple[str, str] | None:
    """The key that stands against another one, and what to write instead; None when all is well."""
    by_users = "users" in (auth["push"], auth["pull"])
    if by_users and not auth["users_file"]:
        key = "push" if auth["push"] == "users" else "pull"
        return key, f'auth.{key} = "users" needs auth.users_file; make one with: htpasswd -B -c FILE NAME'
    if auth["users_file"] and not by_users:
        return "users_file", 'auth.users_file has no effect; set auth.push or auth.pull to "users" too'
    for key in ("push", "pull"):
        if auth[f"{key}_names"] and auth[key] != "users":
            return f"{key}_names", f'auth.{key}_names has no effect; set auth.{key} = "users" too'
    return None
