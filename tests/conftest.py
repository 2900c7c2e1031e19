"""House rules every test lives under, and the fixtures that start something.

A test fails when it leaves a task or a descriptor behind, or when code of `proxy` blocks the loop it runs in. A test
whose programs are missing is skipped by name; with CI=true every skip is a failure, so that nothing is left out
silently there. What a fixture starts is described where it is written: tests/real/, tests/fakes/.
"""

import asyncio
import gc
import inspect
import os
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx

from tests.descriptors import left_since, opened
from tests.fakes import Origin, origin_in_thread
from tests.real.netns import Fence, fence
from tests.real.processes import program
from tests.real.servers import Containerd, containerd
from tests.real.tidegate import Config, Tidegate
from tests.real.tidegate import tidegate as running_tidegate
from tests.real.world import Upstream, upstream_world
from tests.support import quick

Report = pytest.TestReport | pytest.CollectReport
NEEDS_ROOT = frozenset({"containerd", "ip", "mount"})
SETTLE = 2.0  # seconds a closing connection or task gets before it counts as left behind

# The store reads small rows and opens files inline on purpose: a thread hop costs more than the call it would spare.
# The catalogue and the folder of parts are asked from threads by the program, and inline by tests that look at them.
_STORE = ("files", "ingest", "growing", "index", "lock", "board", "circuit", "catalogue", "parts")
INLINE = tuple(f"proxy/store/{name}.py" for name in _STORE)


# Programs that may be missing


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: a program that is missing is a skip that names it, not an error in a fixture."""
    needed = {name for marker in item.iter_markers("real") for name in marker.args}
    if "upstream" in getattr(item, "fixturenames", ()):
        needed |= {"docker-registry", "nginx"}
    if missing := sorted(name for name in needed if program(name) is None):
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0 and (rootly := sorted(needed & NEEDS_ROOT)):
        pytest.skip(f"needs root: {', '.join(rootly)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Report, Report]:
    return _failed_if_skipped((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Report, Report]:
    return _failed_if_skipped((yield))


def _failed_if_skipped(report: Report) -> Report:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        assert isinstance(report.longrepr, tuple)
        report.outcome = "failed"
        report.longrepr = f"skipped although CI=true: {report.longrepr[2]}"
    return report


# Nothing is left behind


@pytest.fixture(autouse=True)
def _no_leaked_descriptors() -> Iterator[None]:
    """Compares what is open before and after. Closing may take a moment, and garbage is collected first."""
    before = opened()
    yield
    deadline = time.monotonic() + SETTLE
    while (left := left_since(before)) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not left, f"left open: {left}"


@pytest.fixture(autouse=True)
def _async_rules(request: pytest.FixtureRequest) -> None:
    """A synchronous test gets no loop just to be watched."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("_no_blocking_calls")
        request.getfixturevalue("_no_leaked_tasks")


@pytest_asyncio.fixture
async def _no_leaked_tasks() -> AsyncIterator[None]:
    """Set up first, so torn down last: whatever still runs then has no owner."""
    yield
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, others = await asyncio.wait(others, timeout=SETTLE)
    assert not others, f"still running: {sorted(map(repr, others))}"


class _Every(frozenset[str]):
    """The set of all function names."""

    def __contains__(self, name: object) -> bool:
        return True


@pytest.fixture
def _no_blocking_calls() -> Iterator[None]:
    """Code of `proxy` that blocks a running loop raises BlockingError where it does."""
    with blockbuster_ctx("proxy") as blocking:
        for call in blocking.functions.values():
            for path in INLINE:
                call.can_block_in(path, _Every())
        yield


# Servers


@pytest_asyncio.fixture
async def origin() -> AsyncIterator[Origin]:
    """A misbehaving registry in the test's own loop."""
    async with Origin() as running:
        yield running


@pytest.fixture
def far() -> Iterator[Origin]:
    """The same in a thread, for synchronous tests that drive processes."""
    with origin_in_thread() as running:
        yield running


@pytest.fixture(scope="session")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Origin, Tidegate]]:
    folder = tmp_path_factory.mktemp("shared")
    with origin_in_thread() as far, running_tidegate(quick(far.url), folder=folder, workers=2) as server:
        yield far, server


@pytest.fixture
def shared(_pair: tuple[Origin, Tidegate]) -> tuple[Origin, Tidegate]:
    """An origin in a thread and a server in front of it, one pair for each test worker.

    For tests that stop nothing, ask for content of their own, and count by its digest: what an earlier test began may
    still be running.
    """
    _pair[0].rules.clear()
    _pair[0].log.clear()
    return _pair


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """The registry.k8s.io-shaped world, one for each test worker; call upstream.clear() before counting."""
    with upstream_world(tmp_path_factory.mktemp("upstream")) as world:
        yield world


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """One containerd for each test worker; tests using it carry `real("containerd")`."""
    with containerd(tmp_path_factory.mktemp("containerd")) as running:
        yield running


@pytest.fixture
def fenced() -> Iterator[Fence]:
    """Two networks of the test's own; tests using it carry `real("ip")`."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(fence())
        except PermissionError as error:
            pytest.skip(f"root may not make a network here: {error}")
        yield made


@pytest.fixture
def tidegate(tmp_path: Path) -> Iterator[Callable[..., Tidegate]]:
    """tidegate(config, data=..., workers=..., folder=..., port=..., env=...) starts one; all end with the test.

    Without `data` and `folder` the first one lives in `tmp_path/tidegate`, and so does one started after it.
    """
    with ExitStack() as stack:

        def started(config: Config = "", data: Path | None = None, workers: int | None = None, **rest: Any) -> Tidegate:
            if data is None:
                rest.setdefault("folder", tmp_path / "tidegate")
            return stack.enter_context(running_tidegate(config, data, workers, **rest))

        yield started
