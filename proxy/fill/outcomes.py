"""What became of fills that failed, written down before the leader unlocks, so that one failure is one chain of
requests on this machine. Without it a prototype made 6 requests for each of 150 refused digests, worker after worker.

A refusal counts for whoever asks the same source for the same thing and arrived before it, or hardly after
(policy.REFUSAL_MEMORY). Another repository's refusal never counts.
"""

import json
import time
from collections.abc import Callable

from proxy import errors, policy
from proxy.errors import RegistryError, Unavailable
from proxy.store.index import Index

_KINDS: dict[str, type[RegistryError]] = {
    kind.__name__: kind
    for kind in (errors.BlobUnknown, errors.ManifestUnknown, errors.NameUnknown, errors.Denied, errors.LoopDetected)
}


_LIFETIME = 300.0
"""Seconds an outcome is kept: longer than any request waits, short enough that random digests do not fill the index."""


class Outcomes:
    """Refusals of one data folder, by what was asked of whom."""

    def __init__(self, index: Index, clock: Callable[[], float] = time.time) -> None:
        self._index = index
        self._clock = clock

    def refusal(self, key: str, arrived: float) -> RegistryError | None:
        """The error that answers a request for `key` which arrived at `arrived`, None when it must be asked."""
        row = self._index.get(f"r:{key}")
        if row is None:
            return None
        refused_at, kind, message, retry_after = json.loads(row)
        if not policy.refusal_counts(refused_at, arrived):
            return None
        return _KINDS.get(kind, Unavailable)(message, retry_after=retry_after)

    async def refuse(self, key: str, error: RegistryError) -> None:
        """Remember that `key` was refused now. Raises OSError."""
        row = [self._clock(), type(error).__name__, error.message, error.retry_after]
        await self._index.put({f"r:{key}": json.dumps(row)}, _LIFETIME)

    def mismatches(self, key: str, arrived: float) -> int:
        """How often lately the bytes of `key` did not match their digest, on this machine."""
        row = self._index.get(f"x:{key}")
        if row is None:
            return 0
        at, count = json.loads(row)
        return int(count) if policy.refusal_counts(at, arrived) else 0

    async def mismatch(self, key: str, count: int) -> None:
        """Remember it. Raises OSError."""
        await self._index.put({f"x:{key}": json.dumps([self._clock(), count])}, _LIFETIME)
