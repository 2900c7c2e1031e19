"""Leading a fill: one download from the sources in order, resumed at byte N until the blob is here.

Each attempt asks one source for the bytes that are missing. What ends an attempt (a cut, a stall, a wrong range, an
error) costs that source its turn, never the bytes that came: content is addressed by digest, so any source will do for
the rest. What a source will say again (404, 403, another size) retires it for everybody; one that wants to be left
alone is spent for this fill. Only the digest decides in the end.
"""

import asyncio
import contextlib
import time

from proxy import metrics, policy
from proxy.config import Upstream
from proxy.errors import CannotKeep, RegistryError, Unavailable
from proxy.fill.missing import missing
from proxy.fill.outcomes import Outcomes
from proxy.fill.permits import Permits
from proxy.fill.state import Fill
from proxy.ports import BlobSource, BlobStream, Lead
from proxy.store.lock import Hold

_MISMATCHES = 2


class SourceRetired(Unavailable):
    """This source's answer will not change: it says another size than the manifest."""


class Leader:
    """Carries one claim through to a published blob, or to an outcome that everybody on this machine can read."""

    def __init__(self, fill: Fill, lead: Lead, upstream: Upstream, outcomes: Outcomes, permits: Permits) -> None:
        self._fill = fill
        self._lead = lead
        self._upstream = upstream
        self._outcomes = outcomes
        self._permits = permits
        self._mismatches = outcomes.mismatches(str(fill.digest), fill.arrived)
        self._started = time.monotonic()
        self._spent: set[str] = set()
        self._delivering: BlobSource | None = None
        self._limit: asyncio.Timeout | None = None
        self._abandoned: Hold | None = None

    async def run(self) -> None:
        """Returns with the fill done, or with everything discarded and to be claimed again.

        Raises RegistryError when every source has failed, Abandoned, OSError.
        """
        discard, wrong = True, False
        self._fill.on_join = self._joined
        try:
            if self._lead.total != self._lead.offset or not self._lead.offset:
                await self._download()
            wrong = not await self._lead.seal()
            discard = wrong
            await (self._mismatch() if wrong else self._finish())
        except asyncio.CancelledError:
            discard = False
            raise
        except (OSError, CannotKeep):
            discard = not self._fill.done
            raise  # what there is fills a disk that has no room
        except Exception:
            discard = wrong or self._lead.received == 0
            raise
        finally:
            self._fill.on_join = None
            if self._abandoned is not None:
                self._abandoned.release()
            await self._lead.close(discard=discard)

    async def _finish(self) -> None:
        """Readers may have the last byte at once; the row stands before the rename, so no file is unaccounted."""
        fill, lead = self._fill, self._lead
        for source in fill.used:
            await source.opened(fill.digest, lead.offset)
        metrics.FILL_SECONDS.observe(time.monotonic() - self._started)
        fill.finish(lead.fd, lead.offset)
        await lead.publish()

    async def _mismatch(self) -> None:
        """Wrong bytes: once more from zero, from a single source; twice is an outcome."""
        fill, count = self._fill, self._mismatches + 1
        await self._outcomes.mismatch(str(fill.digest), count)
        fill.discard()
        if count >= _MISMATCHES:
            names = ", ".join(sorted({source.upstream for source in fill.used})) or "an earlier download"
            error = Unavailable(f"{names}: the bytes do not match {fill.digest.short}", label="body")
            for source in fill.sources:
                await self._outcomes.refuse(f"{source.key}@{fill.digest}", error)
            raise error

    async def _download(self) -> None:
        """Everything that is missing, from whoever has it. Raises RegistryError when nobody has."""
        permit = await self._permits.take(self._upstream.name, self._upstream.max_fills, self._wanted)
        try:
            failures = turn = 0
            while True:
                source = self._source(turn)
                before = self._lead.received
                try:
                    return await self._attempt(source)
                except CannotKeep:
                    raise  # no fault of the source
                except RegistryError as error:
                    failures = 1 if self._lead.received > before else failures + 1
                    await self._failed(source, error, failures)
                    turn += 1
        finally:
            permit.release()

    def _wanted(self) -> bool:
        """Somebody reads; or somebody did until wrong bytes made us cut them off, and will ask again."""
        return self._fill.readers > 0 or self._mismatches > 0

    def _source(self, turn: int) -> BlobSource:
        """Whose turn it is. After a mismatch a single source, and another one than the first if there is one."""
        alive = self._alive()
        return alive[self._mismatches % len(alive)] if self._mismatches else alive[turn % len(alive)]

    def _alive(self) -> list[BlobSource]:
        """The sources that may still be asked, in order."""
        gone = self._fill.retired | self._spent
        return [source for source in self._fill.sources if source.key not in gone]

    async def _failed(self, source: BlobSource, error: RegistryError, failures: int) -> None:
        """Wait before the next attempt, or raise because there is none."""
        fill = self._fill
        fill.errors[source.key] = error
        if not isinstance(error, Unavailable) or isinstance(error, SourceRetired):
            fill.retired.add(source.key)
            await self._outcomes.refuse(f"{source.key}@{fill.digest}", error)
            if not self._alive():
                raise error
            return
        pause = policy.next_attempt(failures, error.pause)
        if pause is None or not policy.worth_asking_again(error.label):
            self._spent.add(source.key)
        late = not fill.live and time.monotonic() - self._started > self._upstream.egress.first_byte_deadline
        if late or not self._alive():
            for known in fill.sources:
                await self._outcomes.refuse(f"{known.key}@{fill.digest}", fill.errors.get(known.key, error))
            raise error
        await asyncio.sleep(0 if source.key in self._spent else pause or 0)

    def _joined(self) -> None:
        """Somebody who waits brought another source: one that is silent so far no longer has all the time."""
        limit, left = self._limit, len(self._alive())
        if limit is None or limit.expired() or limit.when() is None or self._fill.live or left < 2:
            return
        share = policy.attempt_budget(time.monotonic() - self._started, self._upstream.egress.first_byte_deadline, left)
        limit.reschedule(min(limit.when() or 0.0, asyncio.get_running_loop().time() + share))

    async def _attempt(self, source: BlobSource) -> None:
        """One request. Raises RegistryError when it does not bring the end of the blob."""
        fill, lead = self._fill, self._lead
        waited, egress = time.monotonic() - self._started, self._upstream.egress
        budget = policy.attempt_budget(waited, egress.first_byte_deadline, len(self._alive()))
        if fill.live:  # clients are in the middle of a body
            budget = egress.stall_timeout
        try:
            async with asyncio.timeout(budget) as self._limit, source.open(fill.digest, lead.received, None) as stream:
                total = self._agree(source, stream)
                if total is not None and lead.received > total:
                    return  # what is here is not the beginning of this blob: the digest will say so
                await self._make_room((total or 0) - lead.received)
                async with contextlib.aclosing(missing(stream, lead.received)) as chunks:
                    async for chunk in chunks:
                        self._limit.reschedule(None)  # from now on the body itself tells a stall
                        if chunk:
                            await self._first_byte(source, total)
                            await self._take(stream, chunk, total)
                await lead.settle()
                if source not in fill.used:
                    fill.used.append(source)  # an empty blob has no first byte, but it was answered 2xx
        except TimeoutError:
            raise Unavailable(f"{source.upstream}: no byte within {budget:.0f} s", label="timeout") from None
        finally:
            self._limit = None  # between two attempts there is none to shorten
        if total is not None and lead.received < total:
            raise Unavailable(f"{stream.host}: the body ended at {lead.received} of {total} bytes", label="body")

    async def _make_room(self, size: int) -> None:
        """Raises CannotKeep."""
        if not await self._permits.room(size):
            raise CannotKeep("the cache is full of what may not be evicted")

    def _agree(self, source: BlobSource, stream: BlobStream) -> int | None:
        """The blob's size, when everybody who names one names the same."""
        promised = self._fill.size if self._fill.live else None
        said = {size for size in (stream.total, source.size, promised) if size is not None}
        if len(said) > 1:
            sizes = " and ".join(str(size) for size in sorted(said))
            raise SourceRetired(f"{stream.host}: the blob is said to have {sizes} bytes", label="body")
        return said.pop() if said else None

    async def _first_byte(self, source: BlobSource, total: int | None) -> None:
        """This source really delivers: say so to readers here and to followers elsewhere, once."""
        fill, lead = self._fill, self._lead
        if fill.live and source is self._delivering:
            return
        self._delivering = source
        if source not in fill.used:
            fill.used.append(source)
        await source.opened(fill.digest, None)
        lead.announce(total)
        lead.on_progress(lambda: fill.grown(lead.fd, lead.offset, total))
        fill.grown(lead.fd, lead.offset, total)

    async def _take(self, stream: BlobStream, chunk: bytes, total: int | None) -> None:
        if total is not None and self._lead.received + len(chunk) > total:
            raise SourceRetired(f"{stream.host}: sent more than the {total} bytes it should", label="body")
        self._check_wanted()
        await self._lead.write(chunk)
        await self._permits.pace(self._upstream.name, len(chunk))

    def _check_wanted(self) -> None:
        """Without clients a fill goes on only while there is room for such."""
        if self._fill.readers == 0 and self._abandoned is None:
            self._abandoned = self._permits.take_abandoned(self._upstream.name, self._upstream.max_fills)
        elif self._fill.readers and self._abandoned is not None:
            self._abandoned.release()
            self._abandoned = None
