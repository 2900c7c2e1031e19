"""Files and catalogue brought together again, after a start that does not know: the catalogue is new, or the last stop
was not a clean one. A walk in the background; the cache serves meanwhile, because a file needs no row to be served.

Files without a row get one, as old as their last write; rows without a file go; last uses that lie in the future are
written down to now (a clock was wrong), or what they belong to would never be evicted.

Two files in run/ say that a walk is due: `running` stands from a start to a clean stop, `uncounted` until the walk is
done. Both are there after a power cut too.

Both sides come sorted and are compared as two lists, so what agrees costs a name and a row, no system call and no
write: a million that agree are 7 s of work, where an INSERT and two stats for each were 30.
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator

from proxy.care.plan import just_used
from proxy.errors import DigestInvalid
from proxy.oci.digest import Digest
from proxy.store import catalogue
from proxy.store.catalogue import Catalogue, Held
from proxy.store.files import Files
from proxy.store.parts import BLOCK

_BATCH = 500
_RUNNING, _UNCOUNTED = "running", "uncounted"
_NAMES = 200
_REST = 19
"""Rests are so many times as long as the work between them: a twentieth of one processor, less on a busy machine."""
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
    """Walk once. Blocks for as long as that takes, resting between batches. Raises OSError.

    A row of the last minute may stand before its file, which another worker is putting in its place right now; taken
    for lost it left a file that nobody counts, in 2 of 40 runs of a test that fills at the start."""
    began, found, lost = time.time(), 0, 0
    catalogue.set_back(began)
    new: list[Held] = []
    gone: list[Held] = []
    for each in _differences(_resting(files.names()), catalogue.all()):
        match each:
            case Held() if not just_used(each.used, began) and not files.has(Digest.parse(each.digest)):
                gone.append(each)
                lost += 1
            case str():
                new += _held(files, each)
                found += 1
        if len(new) + len(gone) >= _BATCH:
            _write(catalogue, new, gone)
    _write(catalogue, new, gone)
    seconds = time.time() - began
    _log.info("counted files in %.1f s: %d had no row, %d rows had no file", seconds, found, lost)


def _write(catalogue: Catalogue, new: list[Held], gone: list[Held]) -> None:
    if new:
        catalogue.take_in(new)
        new.clear()
    if gone:
        catalogue.remove(gone)
        gone.clear()


def _held(files: Files, name: str) -> Iterator[Held]:
    """The row of a file; none where it has gone, or where somebody else has put it there: not ours to evict."""
    with contextlib.suppress(DigestInvalid, FileNotFoundError):
        digest = Digest.parse(name)
        state = os.stat(files.path(digest))
        yield Held(name, state.st_blocks * BLOCK, min(state.st_mtime, time.time()))


def _differences(names: Iterator[str], rows: Iterator[Held]) -> Iterator[str | Held]:
    """What is on one side only; both are sorted by digest."""
    row = next(rows, None)
    for name in names:
        while row is not None and row.digest < name:
            yield row
            row = next(rows, None)
        if row is not None and row.digest == name:
            row = next(rows, None)
        else:
            yield name
    while row is not None:
        yield row
        row = next(rows, None)


def _resting(names: Iterator[str]) -> Iterator[str]:
    began = time.monotonic()
    for number, name in enumerate(names):
        yield name
        if number % _NAMES == _NAMES - 1:
            time.sleep(_REST * (time.monotonic() - began))
            began = time.monotonic()
