"""Settings as rows for people and programs: every setting, its value as TOML would hold it, where it came from.

Secrets are stars here, passwords inside URLs too; an upstream's own [egress] keys appear only where it has them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.config.schema import EGRESS, SECTIONS, UPSTREAM
from proxy.config.settings import Secret, Settings


@dataclass(frozen=True, slots=True)
class Row:
    """One setting: "server.listen", its value as TOML text, its origin."""

    key: str
    value: str
    origin: str


def rows(settings: Settings) -> Iterator[Row]:
    """Every setting, section after section."""
    for section, keys in SECTIONS.items():
        for key, row in keys.items():
            label = f"{section}.{key}"
            value = getattr(getattr(settings, section), key)
            yield Row(label, _stars(value) or row.show(value), settings.origins[label])
    for name, upstream in settings.upstreams.items():
        for key, row in {**UPSTREAM, **EGRESS}.items():
            origin = settings.origins.get(f"upstreams.{name}.{key}")
            if origin is not None:
                value = getattr(upstream if key in UPSTREAM else upstream.egress, key)
                yield Row(f'upstreams."{name}".{key}', _stars(value) or row.show(value), origin)


def _stars(value: object) -> str:
    return f'"{"***" if value else ""}"' if isinstance(value, Secret) else ""


def changed(old: Settings, new: Settings) -> list[str]:
    """The keys whose values differ, secrets too; `upstreams."name"` for one that came or went."""
    keys = [
        f"{section}.{key}"
        for section, keys in SECTIONS.items()
        for key in keys
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    ]
    for name in dict.fromkeys((*old.upstreams, *new.upstreams)):
        before, after = old.upstreams.get(name), new.upstreams.get(name)
        if before is None or after is None:
            keys.append(f'upstreams."{name}"')
            continue
        keys += [f'upstreams."{name}".{key}' for key in UPSTREAM if getattr(before, key) != getattr(after, key)]
        own = [key for key in EGRESS if getattr(before.egress, key) != getattr(after.egress, key)]
        keys += [f'upstreams."{name}".{key}' for key in own if f"egress.{key}" not in keys]
    return [*keys, *(["local"] if old.pushing != new.pushing else [])]


def render(settings: Settings) -> str:
    """One line a setting, in three columns, after the name of the file."""
    found = list(rows(settings))
    key, value = max(len(row.key) for row in found), max(len(row.value) for row in found)
    lines = [f"{row.key:{key}}  {row.value:{min(value, 40)}}  {row.origin}" for row in found]
    return "\n".join([f"file  {settings.file or 'none'}", *lines])


def as_json(settings: Settings) -> str:
    """The same as one JSON document."""
    found: Mapping[str, Any] = {row.key: {"value": _loads(row.value), "origin": row.origin} for row in rows(settings)}
    return json.dumps({"file": settings.file, "settings": found}, indent=2, ensure_ascii=False)


def _loads(value: str) -> Any:
    return json.loads(value)
