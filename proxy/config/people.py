"""How the settings of [auth] are read: addresses of proxies, who may push which names, what contradicts what.

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


def contradiction(auth: Mapping[str, Any]) -> tuple[str, str] | None:
    """The key that stands against another one, and what to write instead; None when all is well."""
    by_users = "users" in (auth["push"], auth["pull"])
    if by_users and not auth["users_file"]:
        key = "push" if auth["push"] == "users" else "pull"
        return key, f'auth.{key} = "users" needs auth.users_file; make one with: htpasswd -B -c FILE NAME'
    if auth["users_file"] and not by_users:
        return "users_file", 'auth.users_file has no effect; set auth.push or auth.pull to "users" too'
    if auth["push_names"] and auth["push"] != "users":
        return "push_names", 'auth.push_names has no effect; set auth.push = "users" too'
    return None
