"""Manifests in memory, so that a hit is no system call: least recently used, limited by bytes.

An entry is good while the board's word for its name is what it was *before* the index was read, and until its time:
so whoever changes a name need only change the word, and every worker looks again.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from proxy.oci.media import Manifest
from proxy.ports import Answer
from proxy.store.board import Board

_LIMIT = 32 << 20
_OVERHEAD = 1024


class Memory:
    """Answers by name, for all upstreams of this worker."""

    def __init__(self, board: Board, clock: Callable[[], float] = time.time, limit: int = _LIMIT) -> None:
        self._board = board
        self._clock = clock
        self._limit = limit
        self._bytes = 0
        self._entries: OrderedDict[str, tuple[Answer[Manifest], int, int, float]] = OrderedDict()

    def get(self, key: str) -> Answer[Manifest] | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        answer, slot, word, until = entry
        if self._board.word(slot) != word or self._clock() >= until:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return answer

    def word(self, key: str) -> int:
        """The word to give to `put`, read before the index is."""
        return self._board.word(self._board.slot(key))

    def put(self, key: str, manifest: Manifest, word: int, until: float) -> None:
        """Remember a manifest as a hit under `key`, until wall-clock `until`."""
        self._drop(key)
        self._entries[key] = (Answer(manifest, "hit"), self._board.slot(key), word, until)
        self._bytes += len(manifest.content) + _OVERHEAD
        while self._bytes > self._limit:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry[0].value.content) + _OVERHEAD
