"""What became of fills that failed, written down before the leader unlocks, so that one failure is one chain of
requests on this machine. Without it a prototype made 6 requests for each of 150 refused digests, worker after worker.

A refusal counts for whoever asks the same source for the same thing and arrived before it, or hardly after
(policy.REFUSAL_MEMORY). Another repository's refusal never counts.
"""

import json
import time
from collections.abc import Callable
from typing import Any

from proxy import errors, policy
from proxy.errors import LoopDetected, RegistryError, Unavailable
from proxy.store.index import Index

_KINDS: dict[str, type[RegistryError]] = {
    kind.__name__: kind for kind in (errors.BlobUnknown, errors.ManifestUnknown, errors.NameUnknown, errors.Denied)
}


_LIFETIME = 300.0
"""Seconds an outcome is kept: longer than any request waits, short enough that random digests do not fill the index."""


_UNWRITTEN = 1000


class Outcomes:
    """Refusals of one data folder, by what was asked of whom. Where they cannot be written, this process remembers
    its own: an upstream is not asked without end because a disk is full."""

    def __init__(self, index: Index, clock: Callable[[], float] = time.time) -> None:
        self._index = index
        self._clock = clock
        self._unwritten: dict[str, str] = {}

    def refusal(self, key: str, arrived: float) -> RegistryError | None:
        """The error that answers a request for `key` which arrived at `arrived`, None when it must be asked."""
        match self._row(f"r:{key}"):
            case [int() | float() as at, str(kind), str(message), int() | None as again, *rest]:
                if policy.refusal_counts(at, arrived):
                    known = _KINDS.get(kind)
                    if known is not None:
                        return known(message, retry_after=again)
                    return Unavailable(message, retry_after=again, label=str(rest[0]) if rest else "other")
        return None

    async def refuse(self, key: str, error: RegistryError) -> None:
        """Remember that `key` was refused now. A loop is the fault of whoever asked, and of nobody else: it is not
        remembered."""
        if not isinstance(error, LoopDetected):
            label = error.label if isinstance(error, Unavailable) else ""
            row = [self._clock(), type(error).__name__, error.message, error.retry_after, label]
            await self._write(f"r:{key}", json.dumps(row))

    def mismatches(self, key: str, arrived: float) -> int:
        """How often lately the bytes of `key` did not match their digest, on this machine."""
        match self._row(f"x:{key}"):
            case [int() | float() as at, int(count)] if policy.refusal_counts(at, arrived):
                return max(0, count)
        return 0

    async def mismatch(self, key: str, count: int) -> None:
        """Remember it."""
        await self._write(f"x:{key}", json.dumps([self._clock(), count]))

    def _row(self, name: str) -> Any:
        """What stands there; a row that this program did not write is a row that is not there."""
        try:
            return json.loads(self._unwritten.get(name) or self._index.get(name) or "null")
        except (ValueError, RecursionError):
            return None

    async def _write(self, name: str, row: str) -> None:
        if await self._index.note({name: row}, _LIFETIME):
            self._unwritten.pop(name, None)
            return
        self._unwritten[name] = row
        if len(self._unwritten) > _UNWRITTEN:
            del self._unwritten[next(iter(self._unwritten))]
