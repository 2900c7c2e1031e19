"""Files and catalogue brought together again, after a start that does not know: the catalogue is new, or the last stop
was not a clean one. A walk in the background; the cache serves meanwhile, because a file needs no row to be served.

Files without a row get one, as old as their last write; rows without a file go; last uses that lie in the future are
written down to now (a clock was wrong), or what they belong to would never be evicted.
"""

import contextlib
import logging
import time
from collections.abc import Iterator

from proxy.errors import DigestInvalid
from proxy.oci.digest import Digest
from proxy.store.catalogue import Catalogue, Held
from proxy.store.files import Files
from proxy.store.parts import BLOCK

_BATCH = 500
_PAUSE = 0.02
_log = logging.getLogger("tidegate.care")


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
