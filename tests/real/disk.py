"""A small disk of the test's own: a tmpfs that is full when somebody fills it, gone when the test is over."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Disk:
    """One mounted file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, leave: int = 0) -> None:
        """Use every byte that is free but `leave`."""
        with contextlib.suppress(OSError), open(self._filler, "ab", buffering=0) as file:
            while file.write(bytes(64 << 10)):
                pass
        if leave:
            os.truncate(self._filler, max(0, self._filler.stat().st_size - leave))

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Everything that is opened meanwhile can only be read, as after a remount because of an error."""
        subprocess.run(["mount", "--bind", self.path, self.path], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", self.path], check=True)
            yield
        finally:
            subprocess.run(["umount", "--lazy", self.path], check=True)

    def free(self) -> None:
        """Give back what `fill` has used."""
        self._filler.unlink()


@contextmanager
def disk(path: Path, mib: int) -> Iterator[Disk]:
    """A tmpfs of so many MiB at a new folder."""
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tidegate-test", path], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
