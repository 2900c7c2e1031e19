"""Shared memory: what one worker knows and another must know within microseconds.

A word per slot of names: whoever changes what a name means commits the row first, then stores a fresh random word,
then answers; whoever keeps something in memory keeps the word it saw *before* reading the row, and drops it when the
word has changed. Two names may share a slot: that costs a second look, never a wrong answer. An aligned 8-byte store
through a memoryview is one move on the machines Linux runs on, so readers see the old word or the new one.

The folder is local and the file is rebuilt at every start: nothing in it is needed after the last worker has gone.
"""

import hashlib
import itertools
import mmap
import os
import secrets
import time
import zlib
from collections.abc import Callable

from proxy.store.lock import briefly

_NAMES = 1 << 16
_WAYS, _WAY_COUNT, _WAY_WORDS = 16, 512, 8
_WHOSE = 6
_RESERVED = _WAYS + _WAY_COUNT * _WAY_WORDS
_STARTED, _UNKEPT, _TOLD = 0, 1, 2
PUSHED = 3
"""The word that counts the bytes pushed here (yard.py)."""
_MINUTE = 60 * 10**9
_PACE_WORD = _WAY_WORDS - 1


class Board:
    """The board of one data folder, mapped by every worker."""

    def __init__(self, path: str) -> None:
        size = (_RESERVED + _NAMES) * 8
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)  # a mapped page without a block on a full disk ends the process
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        self.words = memoryview(self._map).cast("Q")

    @staticmethod
    def slot(name: str) -> int:
        """Where the word of a name stands."""
        return _RESERVED + zlib.crc32(name.encode()) % _NAMES

    def word(self, slot: int) -> int:
        return self.words[slot]

    def change(self, name: str) -> None:
        """Everything anybody remembers of this name is void from now on."""
        self.words[self.slot(name)] = secrets.randbits(64)

    def void(self) -> None:
        """Everything anybody remembers of any name is void: a worker that was killed may have changed a name and not
        have come to say so."""
        self._map[_RESERVED * 8 :] = secrets.token_bytes(_NAMES * 8)

    @property
    def started(self) -> int:
        """When this machine's tidegate started, wall-clock nanoseconds."""
        return self.words[_STARTED]

    def reset(self, now: int) -> None:
        """Forget everything; `now` is wall-clock nanoseconds. Only before any worker runs."""
        self._map[:] = bytes(len(self._map))
        self.words[_STARTED] = now

    def way(self, number: int) -> int:
        """The slot of the first of the eight words about one way out; beyond 512 ways two share their words."""
        return _WAYS + number % _WAY_COUNT * _WAY_WORDS

    def number(self, name: str, lock: str) -> int:
        """The number of the way out called `name`, the same for every worker of this run: also of workers that began
        with other settings, for whom it may be the third way and not the second. One of its words says whose it is."""
        mark = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") | 1
        start = (mark >> 1) % _WAY_COUNT
        with briefly(lock):
            for number in itertools.chain(range(start, _WAY_COUNT), range(start)):
                whose = self.way(number) + _WHOSE
                if self.words[whose] in (0, mark):
                    self.words[whose] = mark
                    return number
        return start

    def unkept(self, now: int) -> bool:
        """Something could not be kept, `now` by the monotonic clock; whether a minute ago was the last time that
        somebody was told so."""
        self.words[_UNKEPT] = now
        told = now - self.words[_TOLD] > _MINUTE or not self.words[_TOLD]
        if told:
            self.words[_TOLD] = now
        return told

    @property
    def unkept_at(self) -> int:
        """When something could not be kept, by the monotonic clock in nanoseconds; 0: never."""
        return self.words[_UNKEPT]

    def close(self) -> None:
        self.words.release()
        self._map.close()


class Pace:
    """At most so many bytes a second on this machine: a word says when the next byte is due, all workers move it on.

    Debts are small: each taker waits for its own piece before it takes the next one.
    """

    def __init__(self, board: Board, way: int, lock: str, rate: int, clock: Callable[[], int] = time.monotonic_ns):
        self._board = board
        self._slot = board.way(way) + _PACE_WORD
        self._lock = lock
        self._rate = rate
        self._clock = clock

    def take(self, size: int) -> float:
        """Seconds to wait after `size` bytes. Blocks for microseconds. CLOCK_MONOTONIC is one for all processes."""
        with briefly(self._lock):
            now = self._clock()
            due = max(now, self._board.words[self._slot]) + size * 1_000_000_000 // self._rate
            self._board.words[self._slot] = due
        return (due - now) / 1e9
