"""A blob passed on without being kept: the way through when the disk cannot take it. One reader, one request.

The bytes wait in memory that looks like a file (a memfd), written at their own offset and thrown away when the reader
asks for what comes after them, so that whoever sends growing files sends this one too; at most a window of 1 MiB is
ever there, and the upstream is read no faster than the client reads. The last byte is withheld until the digest has
matched, as everywhere. A range that does not hold it is passed on as a range, unverified like any range of a running
fill; one that holds it is read from the beginning, because nothing else can be verified.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Callable, Sequence

from proxy import policy
from proxy.errors import BodyBroken, RegistryError, Unavailable
from proxy.fill.missing import missing
from proxy.oci.digest import Digest
from proxy.oci.ranges import Span
from proxy.ports import BlobSource

WINDOW = 1 << 20
AT_ONCE = 16
"""Passages a worker keeps open: each costs a window, its buffers and an upstream request of its own."""


class Passages:
    """The passages of one worker."""

    def __init__(self) -> None:
        self._open = 0
        self._closing: set[asyncio.Task[None]] = set()

    def begin(self, digest: Digest, sources: Sequence[BlobSource], size: int | None, why: RegistryError) -> "Passing":
        """A passage, to be made `ready` or to `resume`. Raises `why` when there are too many already, OSError."""
        if self._open >= AT_ONCE:
            raise why
        passing = Passing(digest, sources, size, self._ended)
        self._open += 1
        return passing

    def _ended(self, coming: AsyncGenerator[bytes, None]) -> None:
        """Give back what a reader that left had of the upstream's connection."""
        self._open -= 1
        task = asyncio.ensure_future(coming.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Wait for connections that are being given back."""
        await asyncio.gather(*self._closing, return_exceptions=True)


class Passing:
    """Satisfies ports.Filling. Must be closed."""

    def __init__(
        self,
        digest: Digest,
        sources: Sequence[BlobSource],
        size: int | None,
        ended: Callable[[AsyncGenerator[bytes, None]], None],
    ) -> None:
        """Raises OSError."""
        self._digest = digest
        self._sources = sources
        self._ended = ended
        self._hasher = digest.hasher()
        self._coming = self._verified(0)
        self._position = 0
        self._rest = b""
        self.size = size
        self.fd = os.memfd_create("passing", os.MFD_CLOEXEC)

    async def ready(self, seconds: float) -> None:
        """Wait for the first bytes: until then the answer's status is free. Raises RegistryError."""
        try:
            async with asyncio.timeout(seconds):
                self._rest = await anext(self._coming)
        except BodyBroken as error:
            raise Unavailable(str(error), label="body") from None
        except TimeoutError:
            raise Unavailable(f"{self._sources[0].upstream}: no byte within {seconds:.0f} s", label="timeout") from None

    async def resume(self, fd: int, at: int) -> None:
        """Go on at byte `at`, where a fill had to give up; the bytes before it can be read from `fd`. Raises OSError,
        BodyBroken."""
        await asyncio.to_thread(self._hash, fd, at)
        self._coming = self._verified(at)
        self._position = at

    def _hash(self, fd: int, stop: int) -> None:
        start = 0
        while start < stop:
            piece = os.pread(fd, min(WINDOW, stop - start), start)
            if not piece:
                raise BodyBroken(f"{self._digest.short}: what had arrived is gone")
            self._hasher.update(piece)
            start += len(piece)

    async def _verified(self, at: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `at` to the end, the last one after the digest has matched."""
        held = b""
        async with contextlib.aclosing(self._bytes(at, None)) as coming:
            async for chunk in coming:
                self._hasher.update(chunk)
                if held or len(chunk) > 1:
                    yield held + chunk[:-1]
                held = chunk[-1:]
        if self._hasher.hexdigest() != self._digest.hex:
            raise BodyBroken(f"{self._digest.short}: the bytes do not match")
        yield held

    async def _bytes(self, at: int, stop: int | None) -> AsyncGenerator[bytes, None]:
        """From source after source, going on where the last one broke off. Raises RegistryError."""
        failures = turn = 0
        while True:
            source, began = self._sources[turn % len(self._sources)], at
            try:
                async with source.open(self._digest, at, stop) as stream:
                    if self.size is None:
                        self.size = stream.total
                    async with contextlib.aclosing(missing(stream, at)) as chunks:
                        async for chunk in chunks:
                            at += len(chunk)
                            if chunk:
                                yield chunk
                    if at >= (stop or stream.total or 0):
                        return
                    raise Unavailable(f"{stream.host}: the body ended at byte {at}", label="body")
            except RegistryError as error:
                failures, turn = (1 if at > began else failures + 1), turn + 1
                await self._pause(error, failures)

    async def _pause(self, error: RegistryError, failures: int) -> None:
        """Wait before the next attempt, or raise the error because there is none."""
        if isinstance(error, Unavailable) and policy.worth_asking_again(error.label):
            pause = policy.next_attempt(failures, error.pause)
        else:
            pause = 0.0 if failures < len(self._sources) else None
        if pause is None:
            raise error
        await asyncio.sleep(pause)

    async def wait(self, beyond: int) -> int:
        """What was here has been sent: it makes room for what comes next. Raises BodyBroken."""
        os.ftruncate(self.fd, 0)
        try:
            while True:
                data = self._rest or await anext(self._coming, b"")
                if not data:
                    return beyond
                self._rest = b""
                skip = min(beyond - self._position, len(data))
                if skip < len(data):
                    break
                self._position += skip
        except RegistryError as error:
            raise BodyBroken(f"{self._digest.short}: {error.message}") from None
        piece, self._rest = data[skip : skip + WINDOW], data[skip + WINDOW :]
        os.pwrite(self.fd, piece, beyond)
        self._position = beyond + len(piece)
        return self._position

    async def complete(self) -> int:
        raise Unavailable("a blob of unknown size cannot be passed on over HTTP/1.0; ask over HTTP/1.1")

    async def bypass(self, span: Span) -> bytes | None:
        """No bytes at once; but from here on only this span comes, where it does not hold the last byte."""
        if self.size is not None and span.stop < self.size:
            await self._coming.aclose()
            self._coming, self._position, self._rest = self._bytes(span.start, span.stop), span.start, b""
        return None

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self._ended(self._coming)
