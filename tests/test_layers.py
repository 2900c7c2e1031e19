"""A module imports its own room and lower layers only, and rooms on one layer never import each other."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import proxy

ROOT = Path(proxy.__file__).parent

# Lowest first. Rooms on one line are strangers. `oci` stands above `errors` because a digest that cannot be parsed is
# raised as one of them; what starts the program is one room, for nothing imports it from outside.
START = frozenset({"compose", "worker", "cli", "__main__"})
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"oci"}),
    frozenset({"config", "policy", "metrics", "ports"}),
    frozenset({"store", "upstream"}),
    frozenset({"fill"}),
    frozenset({"registry", "care"}),
    frozenset({"http", "doctor", "clients"}),
    START,
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
ONLY_IN = {"fcntl": "store/lock.py", "diskcache": "store/index.py"}

MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all imports, those inside functions and for type checking included."""
    for each in ast.walk(tree):
        match each:
            case ast.Import():
                yield from (alias.name for alias in each.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield from (f"{module}.{alias.name}" for alias in each.names)
            case ast.ImportFrom():
                raise AssertionError("a relative import hides which room it means")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def allowed(room: str, other: str) -> bool:
    return room == other or RANK[other] < RANK[room] or {room, other} <= START


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_only_its_room_and_lower_layers(path: Path) -> None:
    room = room_of(path)
    assert room in RANK, f"{room} is a room the table does not know"
    for name in imported(ast.parse(path.read_text())):
        top, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if top == "proxy" and not other.startswith("__version"):
            assert other in RANK, f"{name}: no such room"
            assert allowed(room, other), f"{room} must not import {other}"


def test_the_package_itself_imports_nothing_of_its_own() -> None:
    names = imported(ast.parse((ROOT / "__init__.py").read_text()))
    assert not [name for name in names if name.startswith("proxy")]


@pytest.mark.parametrize("library", ONLY_IN)
def test_one_file_knows_the_library(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if any(name.partition(".")[0] == library for name in imported(ast.parse(path.read_text())))
    }
    assert users == {ONLY_IN[library]}
