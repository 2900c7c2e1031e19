"""The writing end of a growing file: hashed as it is written, the newest byte kept back.

One hop to a thread hashes and writes up to 1 MiB; the hops of one file run one after another, the next one taking
whatever has arrived meanwhile. Measured here: 750-940 MB/s with 1 MiB pieces, 52 with 16 KiB, because a hop costs
about 190 us. A hop is never cancelled, and `stop` waits for the outstanding one: a cancelled write that finishes
after its descriptor number was reused wrote into another blob in an experiment.
"""

import asyncio
import io
import os
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from aiofiles.threadpool import wrap

from proxy.store.hashing import Hasher

PIECE = 1 << 20
_AT_ONCE = 8 * PIECE
"""Bytes of an earlier life that are hashed in one hop beside new ones: nobody who sends waits for all of them at once,
and a worker that lies 5 GiB behind has caught up 640 MiB later."""
_VECTOR = 1000
"""Buffers one pwritev takes (IOV_MAX is 1024); a dripping upstream's are joined, which costs a copy under the GIL."""


class _Hashing(io.FileIO):
    """A raw file that hashes what it writes and keeps the newest byte back. Runs in threads, one call at a time.

    `hashed` is how far `hasher` has come already in what the file holds.
    """

    def __init__(self, fd: int, hasher: Hasher, hashed: int = 0) -> None:
        super().__init__(fd, "r+b", closefd=False)
        self.hasher = hasher
        self.held = b""
        self.position = os.fstat(fd).st_size
        self._hashed, self._found = hashed, self.position

    @property
    def upto(self) -> int:
        """How many bytes of the file the hasher knows, once the byte kept back is given."""
        return self._hashed if self._hashed < self._found else self.position

    def write(self, data: Any) -> int:
        """Append the chunks of `data`, all but the very last byte of the stream so far."""
        behind = not self._catch_up(_AT_ONCE)
        chunks = data if len(data) < _VECTOR else [b"".join(data)]
        for chunk in chunks if not behind else ():
            self.hasher.update(chunk)
        *whole, last = chunks
        self._append([self.held, *whole, memoryview(last)[:-1]])
        self.held = last[-1:]
        self._found = self.position if behind else self._found
        return sum(map(len, chunks))

    def release(self, digest: str) -> bool:
        """Write the byte kept back, if the whole has the hex digest it should have."""
        self._catch_up(self._found)
        if self.hasher.hexdigest() != digest:
            return False
        self.give()
        return True

    def give(self) -> None:
        """Write the byte kept back: of an upload that is interrupted here every byte is to be found."""
        behind = self._hashed < self._found
        self._append([self.held])
        self.held = b""
        self._found = self.position if behind else self._found

    def _catch_up(self, most: int) -> bool:
        """Hash what an earlier life left in the file, and what was written since without being hashed, at most so many
        bytes; whether all of it is hashed now, the byte kept back included."""
        behind, stop = self._hashed < self._found, min(self._found, self._hashed + most)
        while self._hashed < stop:
            piece = os.pread(self.fileno(), min(PIECE, stop - self._hashed), self._hashed)
            if not piece:
                raise OSError(f"a part of {self._found} bytes ends at {self._hashed}")
            self.hasher.update(piece)
            self._hashed += len(piece)
        if behind and self._hashed == self._found:
            self.hasher.update(self.held)
        return self._hashed >= self._found

    def _append(self, buffers: list[Any]) -> None:
        left = [memoryview(buffer) for buffer in buffers if len(buffer)]
        while left:
            written = os.pwritev(self.fileno(), left, self.position)
            self.position += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if left:
                left[0] = left[0][written:]


class Growing:
    """Takes chunks, tells how far the file has grown. One hop is outstanding at most, so hops keep their order."""

    def __init__(self, fd: int, hasher: Hasher, pool: Executor, hashed: int = 0) -> None:
        """`hasher` knows the first `hashed` bytes of the file already."""
        self._raw = _Hashing(fd, hasher, hashed)
        self._file = wrap(self._raw, executor=pool)
        self._pool = pool
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._room = asyncio.Event()
        self._hop: asyncio.Task[Any] | None = None
        self._error: OSError | None = None
        self.on_progress: Callable[[], None] | None = None
        self.received = self._raw.position

    @property
    def offset(self) -> int:
        """Bytes in the file."""
        return self._raw.position

    @property
    def hashed(self) -> int:
        """How many bytes of the file are hashed."""
        return self._raw.upto

    async def write(self, chunk: bytes) -> None:
        """Take a chunk; returns at once while less than a piece is waiting. Raises the OSError of an earlier hop."""
        self._raise()
        if not chunk:
            return
        self._pending.append(chunk)
        self._pending_bytes += len(chunk)
        self.received += len(chunk)
        if self._hop is None:
            self._hop = asyncio.create_task(self._drain())
        if self._pending_bytes >= PIECE:
            self._room.clear()
            await self._room.wait()
            self._raise()

    async def settle(self) -> None:
        """Wait until all that was taken is in the file. Raises OSError."""
        await self._idle()
        self._raise()

    async def seal(self, digest: str) -> bool:
        """Wait for the rest, compare; True when the last byte is in the file too. Raises OSError."""
        return bool(await self.run(lambda: self._raw.release(digest), self._pool))

    async def give(self) -> None:
        """Wait for the rest, then every byte that was taken is in the file. Raises OSError."""
        await self.run(self._raw.give, self._pool)

    async def run(self, call: Callable[[], Any], pool: Executor) -> Any:
        """A hop of another kind, in its turn; it ends even when the caller is cancelled. Raises OSError."""
        await self.settle()
        self._hop = hop = asyncio.create_task(self._hop_of(call, pool))
        return await asyncio.shield(hop)

    async def stop(self) -> None:
        """Wait for the outstanding hop; what is still waiting to be written is dropped. Raises nothing."""
        self._pending.clear()
        await self._idle()
        self._raw.close()

    async def _hop_of(self, call: Callable[[], Any], pool: Executor) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, call)
        finally:
            self._hop = None

    async def _drain(self) -> None:
        try:
            while self._pending:
                batch, self._pending, self._pending_bytes = self._pending, [], 0
                self._room.set()
                await self._file.write(batch)  # a list: our raw file joins it in the thread
                if self.on_progress is not None:
                    self.on_progress()
        except OSError as error:
            self._error = error
        finally:
            self._hop = None
            self._room.set()

    async def _idle(self) -> None:
        while self._hop is not None:
            await asyncio.wait([self._hop])

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
