"""The servers of a bench in one place, each started cold in a folder of its own that is removed with it."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.origin import NAME, Origin, origin
from tests.real.images import digest_of
from tests.real.processes import fetch
from tests.real.servers import docker_registry
from tests.real.tidegate import Tidegate, tidegate, upstream_config


class World:
    """An origin, and fresh caches in front of it. At most one gigabyte lies in each server's folder."""

    def __init__(self, folder: Path, content: Origin) -> None:
        self.folder = folder
        self.origin = content

    @contextmanager
    def room(self) -> Iterator[Path]:
        """A folder that is gone when the block ends, whatever was put into it."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    @contextmanager
    def tidegate(self, upstream: str | None = None) -> Iterator[Tidegate]:
        """Two workers, metrics and access log on as always; warm but for the content."""
        config = upstream_config(upstream or self.origin.url)
        with self.room() as folder, tidegate(config, workers=2, folder=folder) as server:
            _warm(server.url)
            yield server

    @contextmanager
    def docker_registry(self) -> Iterator[str]:
        """Debian's, in proxy mode."""
        with self.room() as folder, docker_registry(folder, self.origin.url) as served:
            _warm(served.url)
            yield served.url


def _warm(url: str) -> None:
    """Before the clock starts: what a process does once in its life, and the writing back of what others left."""
    for number in range(8):
        fetch(f"{url}/v2/{NAME}/blobs/{digest_of(b'none %d' % number)}")
    os.sync()


@contextmanager
def world() -> Iterator[World]:
    """Everything lies below one temporary folder and is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        folder = Path(name)
        (folder / "origin").mkdir()
        with origin(folder / "origin") as content:
            yield World(folder, content)
