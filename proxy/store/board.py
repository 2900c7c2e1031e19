"""Shared memory: what one worker knows and another must know within microseconds.

A word per slot of names: whoever changes what a name means commits the row first, then stores a fresh random word,
then answers; whoever keeps something in memory keeps the word it saw *before* reading the row, and drops it when the
word has changed. Two names may share a slot: that costs a second look, never a wrong answer. An aligned 8-byte store
through a memoryview is one move on the machines Linux runs on, so readers see the old word or the new one.

The folder is local and the file is rebuilt at every start: nothing in it is needed after the last worker has gone.
"""

import mmap
import os
import secrets
import struct
import zlib

from proxy.store.lock import briefly

_NAMES = 1 << 16
_UPSTREAMS, _UP_SLOTS = 16, 4096
_RESERVED = _UPSTREAMS + _UP_SLOTS
_BYTES, _OBJECTS, _STARTED = 0, 1, 2
_DOWN = 1


class Board:
    """The board of one data folder, mapped by every worker."""

    def __init__(self, path: str) -> None:
        size = (_RESERVED + _NAMES) * 8
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size)
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

    @property
    def started(self) -> int:
        """When this machine's tidegate started, wall-clock nanoseconds."""
        return self.words[_STARTED]

    def reset(self, now: int) -> None:
        """Forget everything; `now` is wall-clock nanoseconds. Only before any worker runs."""
        self._map[:] = bytes(len(self._map))
        self.words[_STARTED] = now

    def set_up(self, upstream: str, up: bool) -> None:
        """Whether the last request to an upstream got an answer."""
        self.words[_UPSTREAMS + zlib.crc32(upstream.encode()) % _UP_SLOTS] = 0 if up else _DOWN

    def is_up(self, upstream: str) -> bool:
        return self.words[_UPSTREAMS + zlib.crc32(upstream.encode()) % _UP_SLOTS] != _DOWN

    def close(self) -> None:
        self.words.release()
        self._map.close()


class Tally:
    """Bytes and objects of finished blobs on this machine, as a sum all workers add to."""

    def __init__(self, board: Board, lock: str) -> None:
        self._board = board
        self._lock = lock

    def add(self, *, bytes: int, objects: int) -> None:
        """Count blobs that came or went. Blocks for microseconds while another process adds."""
        with briefly(self._lock):
            self._set(_BYTES, self._get(_BYTES) + bytes)
            self._set(_OBJECTS, self._get(_OBJECTS) + objects)

    def read(self) -> tuple[int, int]:
        """Bytes and objects."""
        return self._get(_BYTES), self._get(_OBJECTS)

    def _get(self, slot: int) -> int:
        return int(struct.unpack("q", struct.pack("Q", self._board.words[slot]))[0])

    def _set(self, slot: int, value: int) -> None:
        self._board.words[slot] = struct.unpack("Q", struct.pack("q", value))[0]
