"""What commands read from a data folder that no service runs on: its lock is held, so that none starts meanwhile."""

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from proxy.care import plan
from proxy.care.books import kept_hosts, kept_old_names
from proxy.care.inventory import Inventory
from proxy.care.pins import Pins
from proxy.care.pushed import PushedNames
from proxy.care.shown import shown
from proxy.config import Settings
from proxy.errors import RegistryError, StartError
from proxy.store import index
from proxy.store.catalogue import Catalogue
from proxy.store.files import Files
from proxy.store.index import Index
from proxy.store.links import Links
from proxy.store.lock import hold


def check(settings: Settings) -> str:
    """Whether the files that settings name can be used, as serve would find it; what it would warn of. Raises
    StartError, ConfigError."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = scratch
        from proxy.compose.prepare import check_files

        return check_files(settings)


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


def scrub(data: str, full: bool) -> Iterator[dict[str, Any]]:
    """A pass of the scrub, reported as a service does; what is bad is fetched again when a service runs.

    Raises StartError."""
    with _held(data), tempfile.TemporaryDirectory() as scratch:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = scratch  # read when the metrics are imported; nobody scrapes these
        from proxy.care import census, scrub
        from proxy.store import catalogue, quarantine

        try:
            blobs = Files(os.path.join(data, "blobs"))
            books = catalogue.usable(os.path.join(data, "catalogue"), plan.rank, partial(census.demand, data))
            with closing(books):
                yield from scrub.Scrubber(data, blobs, quarantine.Quarantine(data, blobs), books).alone(full)
        except (OSError, sqlite3.Error) as error:
            raise StartError(f"{data} cannot be read: {error}") from None


def collect(settings: Settings, delete: bool, untagged: bool) -> Iterator[dict[str, Any]]:
    """gc of what was pushed, reported as a service does. Raises StartError."""
    with _held(settings.server.data), tempfile.TemporaryDirectory() as scratch:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = scratch
        from proxy.care.collect import Order
        from proxy.compose import pushed
        from proxy.compose.prepare import check_format

        folder = pushed.folder(settings)
        if not os.path.isdir(folder):
            raise StartError(f"nothing was pushed to {settings.server.data}")
        try:
            check_format(folder)
            yield from pushed.collector_alone(settings).run(Order(delete, untagged))
        except OSError as error:
            raise StartError(f"{folder} cannot be collected: {error}") from None


def images(data: str, image: str) -> list[dict[str, Any]]:
    """What is here, as the service would say it; a name is taken as it is written. Raises StartError."""
    with _held(data):
        try:
            with closing(Catalogue(os.path.join(data, "catalogue"), plan.rank)) as catalogue:
                inventory = Inventory(Files(os.path.join(data, "blobs")), catalogue, Pins(os.path.join(data, "pins")))
                names = PushedNames(Links(os.path.join(data, "local", "repositories")))
                own = Inventory(Files(os.path.join(data, "local", "blobs")), names, names)
                return shown([*inventory.images(), *own.images()], [image] if image else [])
        except (OSError, sqlite3.Error, RegistryError) as error:
            raise StartError(f"{data} cannot be read: {error}") from None


@contextmanager
def _index(data: str) -> Iterator[Index]:
    with _held(data):
        try:
            opened = index.usable(os.path.join(data, "index"))
        except (OSError, sqlite3.Error) as error:
            raise StartError(
                f"{data}/index cannot be read ({error}); tidegate serve sets it aside and begins anew"
            ) from None
        with closing(opened):
            yield opened


@contextmanager
def _held(data: str) -> Iterator[None]:
    """Holds the lock of the data folder. Raises StartError."""
    lock = os.path.join(data, "run", "lock")
    if not has_run(data):
        raise StartError(f"no tidegate has run with {data} yet; start it with: tidegate serve")
    try:
        held = hold(lock)
    except OSError as error:
        raise StartError(f"cannot open {lock}: {error.strerror}; ask as root or as its owner") from None
    if held is None:
        raise StartError(f"the tidegate at {data} is starting or stopping; ask again in a moment")
    try:
        yield
    finally:
        held.release()
