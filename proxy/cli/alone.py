"""What commands read from a data folder that no service runs on: its lock is held, so that none starts meanwhile."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from proxy.care.books import kept_hosts, kept_old_names
from proxy.errors import StartError
from proxy.store.index import Index
from proxy.store.lock import hold


def has_run(data: str) -> bool:
    """Whether a service has ever kept anything there."""
    return os.path.isdir(os.path.join(data, "index"))


def hosts(data: str) -> list[dict[str, Any]]:
    """The ledger as it was kept. Raises StartError."""
    with _index(data) as index:
        return [asdict(entry) for entry in kept_hosts(index)]


def old_names(data: str) -> list[dict[str, Any]]:
    """Who asked by an old name, as it was kept. Raises StartError."""
    with _index(data) as index:
        return [asdict(sighting) for sighting in kept_old_names(index)]


@contextmanager
def _index(data: str) -> Iterator[Index]:
    lock, folder = os.path.join(data, "run", "lock"), os.path.join(data, "index")
    if not has_run(data):
        raise StartError(f"no tidegate has run with {data} yet; start it with: tidegate serve")
    try:
        held = hold(lock)
    except OSError as error:
        raise StartError(f"cannot open {lock}: {error.strerror}; ask as root or as its owner") from None
    if held is None:
        raise StartError(f"the tidegate at {data} is starting or stopping; ask again in a moment")
    try:
        index = Index(folder)
        try:
            yield index
        finally:
            index.close()
    finally:
        held.release()
