"""Which sections, keys and variables there are, and what is said of others: the nearest right one, and where it stands.

What must not live here: values. Those are read by `load`.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

from proxy.config import source
from proxy.config.schema import EGRESS, SECRETS, SECTIONS, UPSTREAM
from proxy.config.settings import ConfigError, WrongOption

# Kubernetes gives every pod these for each Service; one called "tidegate" must not look like a spelling mistake.
_SERVICE_LINKS = re.compile(r"TIDEGATE_(?:.*_)?(?:SERVICE_(?:HOST|PORT.*)|PORT(?:_\d+_(?:TCP|UDP|SCTP).*)?)\Z")


def _files(keys: Iterable[str]) -> list[str]:
    """The keys under which a secret's file is named."""
    return [f"{key}_file" for key in keys if key in SECRETS]


_UPSTREAM_KEYS = {*UPSTREAM, *EGRESS, *_files((*UPSTREAM, *EGRESS))}


def fail(where: str, what: str) -> NoReturn:
    """Raises ConfigError, WrongOption where an option of the command is wrong."""
    raise (WrongOption if where.startswith("--") else ConfigError)(f"{where}: {what}")


def nearest(word: str, known: Iterable[str]) -> str:
    """What to write instead."""
    known = sorted(known)
    close = get_close_matches(word, known, 1, 0.6)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def variable(label: str) -> str:
    """The variable of a key such as "server.listen"."""
    return f"TIDEGATE_{label.replace('.', '_').upper()}"


def check_tables(found: source.Source) -> None:
    """Every section and key of the file. Raises ConfigError for one nobody knows, with the nearest that is."""
    for section, table in found.tables.items():
        where = found.where((section,))
        if section not in (*SECTIONS, "upstreams"):
            fail(where, f"unknown section [{section}]; {nearest(section, [*SECTIONS, 'upstreams'])}")
        if not isinstance(table, dict):
            fail(where, f"{section} must be a table: [{section}]")
        if section != "upstreams":
            _check_keys(found, (section,), table, {*SECTIONS[section], *_files(SECTIONS[section])})
    for name, table in found.tables.get("upstreams", {}).items():
        if not isinstance(table, dict):
            where = found.where(("upstreams", name))
            fail(where, f'a registry\'s name with a dot needs quotes: [upstreams."{name}"]')
        _check_keys(found, ("upstreams", name), table, _UPSTREAM_KEYS)


def _check_keys(found: source.Source, path: source.Path, table: Mapping[str, Any], known: Iterable[str]) -> None:
    for key, value in table.items():
        if key in known:
            continue
        where = found.where((*path, key))
        if path[0] == "upstreams" and isinstance(value, dict):
            fail(where, f'a registry\'s name with a dot needs quotes: [upstreams."{path[1]}.{key}"]')
        fail(where, f"unknown key {key} in [{_header(path)}]; {nearest(key, known)}")


def check_environ(environ: Mapping[str, str]) -> None:
    """Every variable that means us. Raises ConfigError for one nobody knows."""
    known = {variable(f"{section}.{key}") for section, keys in SECTIONS.items() for key in (*keys, *_files(keys))}
    known |= {"TIDEGATE_CONFIG", "TIDEGATE_UPSTREAMS"}
    for name in environ:
        if name.startswith("TIDEGATE_") and name not in known and not _SERVICE_LINKS.match(name):
            close = get_close_matches(name, sorted(known), 1)
            hint = f"did you mean {close[0]}?" if close else "the form is TIDEGATE_<SECTION>_<KEY>"
            fail(name, f"unknown variable; {hint}")


def _header(path: source.Path) -> str:
    return path[0] if len(path) == 1 else f'{path[0]}."{path[1]}"'
