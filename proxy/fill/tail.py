"""One reader of one Fill: how far it may read, when to give up waiting, when what it sent was wrong.

The reader's patience is its own: its deadline ends its answer and never the fill.
"""

import asyncio
import contextlib
import os

from proxy import policy
from proxy.errors import BodyBroken, CannotKeep, RegistryError, Unavailable
from proxy.fill.passing import Passages, Passing
from proxy.fill.state import Fill
from proxy.oci.ranges import Span
from proxy.ports import BlobSource


class Tail:
    """Satisfies ports.Filling. Must be closed."""

    def __init__(self, fill: Fill, source: BlobSource, deadline: float, passages: Passages) -> None:
        self._fill = fill
        self._source = source
        self._deadline = deadline
        self._passages = passages
        self._passing: Passing | None = None
        self._generation = 0
        self._open = True
        self.size: int | None = None
        self.fd = -1

    async def ready(self) -> None:
        """Wait until an upstream has delivered a byte: only then may headers go out.

        Raises RegistryError: the fill's, or Unavailable when the deadline is over first.
        """
        fill = self._fill
        try:
            async with asyncio.timeout(self._deadline):
                while not fill.live:
                    self._raise()
                    await fill.changed()
        except TimeoutError:
            known = fill.errors.get(self._source.key)
            last = f"; last: {known.message}" if known else ""
            message = f"{self._source.upstream}: no byte within {self._deadline:.0f} s, the download goes on{last}"
            raise Unavailable(message, retry_after=10, label="timeout") from None
        self._generation = fill.generation
        # A description of its own: sendfile leaves its position where it stopped, which tells what an aborted
        # response really sent.
        self.fd = os.open(f"/proc/self/fd/{fill.fd}", os.O_RDONLY | os.O_CLOEXEC)
        self.size = fill.size

    def _raise(self) -> None:
        if self._fill.error is not None:
            raise self._fill.errors.get(self._source.key, self._fill.error)

    async def wait(self, beyond: int) -> int:
        if self._passing is not None:
            return await self._passing.wait(beyond)
        fill = self._fill
        while True:
            if fill.generation != self._generation:
                raise BodyBroken(f"{fill.digest.short}: the bytes sent so far did not match")
            if fill.available > beyond or fill.done:
                return fill.available
            if isinstance(fill.error, CannotKeep):
                return await self._pass_on(beyond, fill.error)
            if fill.error is not None:
                raise BodyBroken(f"{fill.digest.short}: {fill.error.message}")
            await fill.changed()

    async def _pass_on(self, at: int, error: CannotKeep) -> int:
        """The disk takes no more: the rest comes without being kept. Raises BodyBroken."""
        try:
            passing = self._passages.begin(self._fill.digest, [self._source], self.size, error)
            await passing.resume(self.fd, at)
        except (OSError, RegistryError) as problem:
            raise BodyBroken(f"{self._fill.digest.short}: {problem}") from None
        os.close(self.fd)
        self._passing, self.fd = passing, passing.fd
        return await passing.wait(at)

    async def complete(self) -> int:
        try:
            async with asyncio.timeout(self._deadline):
                while not self._fill.done:
                    self._raise()
                    await self._fill.changed()
        except TimeoutError:
            raise Unavailable(f"{self._source.upstream}: not complete within {self._deadline:.0f} s") from None
        if self._fill.generation != self._generation:
            raise Unavailable("what had arrived was wrong and has been replaced; ask again", retry_after=1)
        return self._fill.available

    async def bypass(self, span: Span) -> bytes | None:
        far = self._fill.available + policy.BYPASS_DISTANCE
        if span.length > policy.BYPASS_LIMIT or span.start < far or span.stop == self.size:
            return None
        try:
            async with asyncio.timeout(self._deadline), self._fill.bypasses:
                return await self._fetch(span)
        except (RegistryError, TimeoutError):
            return None

    async def _fetch(self, span: Span) -> bytes | None:
        """The bytes of a span from a request of its own; one that brings more is not believed."""
        async with self._source.open(self._fill.digest, span.start, span.stop) as stream:
            if stream.start != span.start:
                return None
            body = b""
            async with contextlib.aclosing(stream.chunks()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > span.length:
                        return None
        return body if len(body) == span.length else None

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._passing is not None:
            self._passing.close()
        elif self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
        self._fill.leave()
