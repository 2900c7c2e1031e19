"""Files and catalogue brought together again, after a start that does not know: the catalogue is new, or the last stop
was not a clean one. A walk in the background; the cache serves meanwhile, because a file needs no row to be served.

Files without a row get one, as old as their last write; rows without a file go; last uses that lie in the future are
written down to now (a clock was wrong), or what they belong to would never be evicted.

Two files in run/ say that a walk is due: `running` stands from a start to a clean stop, `uncounted` until the walk is
done. Both are there after a power cut too.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator

from proxy.errors import DigestInvalid
from proxy.oci.digest import Digest
from proxy.store import catalogue
from proxy.store.catalogue import Catalogue, Held
from proxy.store.files import Files
from proxy.store.parts import BLOCK

_BATCH = 500
_PAUSE = 0.02
_RUNNING, _UNCOUNTED = "running", "uncounted"
_log = logging.getLogger("tidegate.care")


def prepare(data: str) -> str:
    """Once, before any worker: a usable catalogue, and the marks of this start. A sentence for the log, empty when all
    is well. Raises OSError."""
    new, complaint = catalogue.prepare(os.path.join(data, "catalogue"))
    if new or os.path.exists(os.path.join(data, "run", _RUNNING)):
        demand(data)
    _mark(os.path.join(data, "run", _RUNNING))
    return complaint


def demand(data: str) -> None:
    """The catalogue cannot be trusted: let the files be counted. Raises OSError."""
    _mark(os.path.join(data, "run", _UNCOUNTED))


def settle(data: str, files: Files, books: Catalogue) -> None:
    """Count if that is due. Blocks. Raises nothing: what fails is tried again when this is called again."""
    mark = os.path.join(data, "run", _UNCOUNTED)
    if not os.path.exists(mark):
        return
    try:
        os.unlink(mark)  # first: whoever demands another count meanwhile gets it
        count(files, books)
    except OSError as error:
        _log.warning("the files cannot be counted: %s", error)
        demand(data)


def stopped(data: str) -> None:
    """A clean stop: the next start may trust the catalogue. Raises OSError."""
    os.unlink(os.path.join(data, "run", _RUNNING))


def _mark(path: str) -> None:
    """Make a file that is there after a power cut too."""
    for name, flags in ((path, os.O_WRONLY | os.O_CREAT), (os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)):
        fd = os.open(name, flags | os.O_CLOEXEC, 0o600)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def count(files: Files, catalogue: Catalogue) -> None:
    """Walk once. Blocks for as long as that takes, resting between batches. Raises OSError."""
    began, found, lost = time.time(), 0, 0
    catalogue.set_back(began)
    for batch in _batches(_files(files)):
        catalogue.take_in(batch)
        found += len(batch)
    for batch in _batches(catalogue.all()):
        gone = [row for row in batch if row.used < began and not files.has(Digest.parse(row.digest))]
        catalogue.remove(gone)
        lost += len(gone)
    _log.info("counted %d files in %.1f s, %d rows had none", found, time.time() - began, lost)


def _files(files: Files) -> Iterator[Held]:
    now = time.time()
    for name, state in files.walk():
        with contextlib.suppress(DigestInvalid):  # a file that somebody else has put there is not ours to evict
            yield Held(str(Digest.parse(name)), state.st_blocks * BLOCK, min(state.st_mtime, now))


def _batches(rows: Iterator[Held]) -> Iterator[list[Held]]:
    batch: list[Held] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
            time.sleep(_PAUSE)
    yield batch
