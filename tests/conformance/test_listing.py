"""The suite about itself: every test says where it belongs, every end-N has tests, every deviation names a test."""

import ast
from pathlib import Path

from tests.conformance.deviations import DEVIATIONS
from tests.conformance.listing import ENDPOINTS, endpoints


def written() -> dict[str, list[str]]:
    """What each test of this folder says it belongs to."""
    return {
        f"{path.stem}::{node.name}": endpoints(ast.get_docstring(node))
        for path in Path(__file__).parent.glob("test_*.py")
        if path != Path(__file__)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_test_names_its_endpoints() -> None:
    unnamed = {name: named for name, named in written().items() if not named or not set(named) <= set(ENDPOINTS)}
    assert not unnamed


def test_every_endpoint_has_tests() -> None:
    assert set(ENDPOINTS) == {endpoint for named in written().values() for endpoint in named}


def test_every_deviation_is_of_a_test() -> None:
    assert {name.partition("[")[0] for name in DEVIATIONS} <= set(written())
