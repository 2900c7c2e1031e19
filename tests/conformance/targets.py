"""Which registries the suite runs against, and how each is started. What they are asked is in the tests.

A target is started once for each test worker and shared by all tests, which therefore use repositories of their own.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.conformance.client import Registry
from tests.real.servers import docker_registry
from tests.real.tidegate import tidegate

CONTROL = "docker-registry"
# A name of STARTERS added here is a target of every test and a column of the listing: (CONTROL, "tidegate")
TARGETS = (CONTROL, "tidegate")
NEEDS = {CONTROL: ("docker-registry",)}  # programs of Debian


@contextmanager
def _control(folder: Path) -> Iterator[Registry]:
    """CNCF Distribution as Debian ships it, deletes enabled."""
    with docker_registry(folder) as served:
        yield Registry(CONTROL, served.url)


@contextmanager
def _tidegate(folder: Path) -> Iterator[Registry]:
    """The local registry alone, with two workers: what one has answered the other one has to know."""
    with tidegate("[local]\n", folder=folder, workers=2) as server:
        yield Registry("tidegate", server.url)


STARTERS: dict[str, Callable[[Path], AbstractContextManager[Registry]]] = {CONTROL: _control, "tidegate": _tidegate}
