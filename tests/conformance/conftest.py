"""The registry under test, a repository of a test's own, and the rule for a control that is known to differ."""

import secrets
from collections.abc import Iterator

import pytest

from tests.conformance.client import Registry, Repository
from tests.conformance.deviations import DEVIATIONS
from tests.conformance.listing import key
from tests.conformance.targets import CONTROL, NEEDS, STARTERS, TARGETS

PARAMETERS = [pytest.param(name, marks=pytest.mark.real(*NEEDS.get(name, ())), id=name) for name in TARGETS]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test the control is known to fail has to fail there: when it passes, the table is wrong."""
    for item in items:
        target, name = key(item)
        why = DEVIATIONS.get(name) or DEVIATIONS.get(name.partition("[")[0])
        if target == CONTROL and why:
            item.add_marker(pytest.mark.xfail(reason=why, strict=True, raises=AssertionError))


@pytest.fixture(scope="session", params=PARAMETERS)
def registry(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """One running target, shared by all tests of a test worker."""
    with STARTERS[request.param](tmp_path_factory.mktemp(request.param)) as running:
        yield running


@pytest.fixture
def repo(registry: Registry, request: pytest.FixtureRequest) -> Repository:
    """A repository nobody else uses. It comes into being with what is pushed."""
    return registry.repository(f"conformance/{request.function.__name__.strip('_')}-{secrets.token_hex(4)}")


@pytest.fixture
def other(repo: Repository) -> Repository:
    """A second one."""
    return repo.registry.repository(f"{repo.name}/other")
