"""One TOML file as nested tables, and the line each key stands on.

tomllib tells no lines, so they are found by a second look at the text: each header and the left side of each `=` is
given to tomllib alone, which knows the quoting. A key inside an inline table or a list over several lines has no
line of its own and gets that of what holds it.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from proxy.config.settings import ConfigError

_LINE = re.compile(r"\s*\(at line (\d+), column \d+\)")
Path = tuple[str, ...]


class Source:
    """A parsed file; `name` None is no file at all."""

    __slots__ = ("_lines", "name", "tables")

    def __init__(self, name: str | None, text: str) -> None:
        self.name = name
        try:
            self.tables: Mapping[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(_toml_mistake(str(name), str(error))) from None
        except RecursionError:
            raise ConfigError(f"{name}: is nested too deep") from None
        self._lines = dict(reversed(list(_lines(text))))

    def where(self, path: Path) -> str:
        """ "file:line" of a key, or of the nearest table that holds it."""
        while path and path not in self._lines:
            path = path[:-1]
        return f"{self.name}:{self._lines[path]}" if path else str(self.name)


def read(name: str) -> Source:
    """The file at `name`; raises ConfigError."""
    try:
        with open(name, encoding="utf-8") as file:
            return Source(name, file.read())
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: is not UTF-8 text") from None


def _toml_mistake(name: str, message: str) -> str:
    line = _LINE.search(message)
    what = _LINE.sub("", message).removesuffix("(at end of document)").strip()
    return f"{name}:{line[1]}: not TOML: {what}" if line else f"{name}: not TOML: {what} at the end of the file"


def _lines(text: str) -> Iterator[tuple[Path, int]]:
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = _path(stripped) or table
            yield table, number
        elif "=" in stripped:
            key = _path(stripped.partition("=")[0] + "= 0")
            if key:
                yield table + key, number


def _path(statement: str) -> Path:
    try:
        node: Any = tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return ()
    path: list[str] = []
    while isinstance(node, dict) and node:
        key, node = next(iter(node.items()))
        path.append(key)
    return tuple(path)
