"""Making room: what plan.py decides, done. One janitor at a time on this machine, whoever gets its lock.

A fill that knows its size asks for room before it writes; what grows without saying how far is noticed within seconds.
The lock is taken, then the facts are read again: another worker's janitor may just have made the same room. Last uses
in other workers are seconds old at most, and what they read right now is locked.

What is taken: the file is locked exclusively without waiting (readers hold it shared), pins and last use are read
again, the file goes, then the row, and only a row that nobody wrote since: a blob that came back in between keeps
its own. Between batches the thread sleeps for longer than it worked, so that hits keep the disk and the interpreter.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Protocol

from proxy import metrics
from proxy.care import plan
from proxy.care.plan import Limits, Need, Resident, Space
from proxy.errors import DigestInvalid
from proxy.oci.digest import Digest
from proxy.store.catalogue import Catalogue, Held
from proxy.store.ingest import Store
from proxy.store.lock import Hold, hold

EVERY = 2.0
"""Seconds between two looks at what has grown without asking."""
LEFTOVER = 86400.0
"""Seconds after which a part nobody leads is not worth resuming."""
_BATCH = 20
_REST = 2
"""Rests are so many times as long as the batch before them: on a busy machine, or a slow disk, both grow."""
_LOOK = 0.05
_QUIET = 60.0
_log = logging.getLogger("tidegate.care")


class Pinned(Protocol):
    """What may never be taken."""

    def digests(self) -> Mapping[str, int]:
        """Digests and their bytes. Raises OSError."""
        ...


class Janitor:
    """Keeps one data folder within its limits."""

    def __init__(
        self,
        data: str,
        store: Store,
        catalogue: Catalogue,
        pins: Pinned,
        limits: Callable[[int], Limits],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`limits` is told the size of the file system."""
        self._data = data
        self._store = store
        self._catalogue = catalogue
        self._pins = pins
        self._limits = limits
        self._clock = clock
        self._said = 0.0
        self._landed: tuple[Mapping[str, int], set[str]] = ({}, set())
        self._passing: asyncio.Task[None] | None = None

    async def make_room(self, coming: int = 0) -> bool:
        """Make room for `coming` bytes, not yet written; False when there can be none. Raises OSError.

        Whoever brings something leaves as soon as there is room for it, and the pass goes on to the low mark: 10,000
        small blobs beside busy clients take longer than the 25 s an answer may.
        """
        mine: asyncio.Task[None] | None = None
        while True:
            done = mine is not None and mine.done()
            need = await asyncio.to_thread(self._need, coming)
            if done or (need.size == 0 and (coming or mine is None)):
                break
            mine = mine or self._begin(coming)
            await (asyncio.wait([mine], timeout=_LOOK) if mine else asyncio.sleep(_LOOK))
        if mine is not None and mine.done():
            mine.result()
        return need.missing == 0

    def _begin(self, coming: int) -> "asyncio.Task[None] | None":
        """A pass of our own, which no caller takes along when it leaves; None while another one is under way."""
        held = hold(os.path.join(self._data, "run", "janitor.lock"))
        if held is None:
            return None
        self._passing = asyncio.create_task(asyncio.to_thread(self._clear, coming, held))
        self._passing.add_done_callback(self._passed)
        return self._passing

    def _passed(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._complain(f"cannot keep house: {error}")

    async def _turn(self) -> Hold:
        """The janitor's lock, waited for."""
        while (held := hold(os.path.join(self._data, "run", "janitor.lock"))) is None:
            await asyncio.sleep(_LOOK)
        return held

    async def settle(self) -> None:
        """Wait until no pass runs that may not know yet of a pin just written. Raises OSError."""
        (await self._turn()).release()

    async def take_out(self, digests: Iterable[str]) -> tuple[list[Held], list[str]]:
        """Remove blobs that somebody wants gone, whatever their age: what went, and what is being read and stays.
        Pins hold here too. Raises OSError."""
        held = await self._turn()
        try:
            return await asyncio.to_thread(self._take_out, list(digests))
        finally:
            held.release()

    def _take_out(self, digests: Iterable[str]) -> tuple[list[Held], list[str]]:
        gone, reading = [], []
        for digest in digests:
            row, size = self._catalogue.get(digest), self._store.files.size(_digest(digest))
            if digest in self._pins.digests() or size is None:
                continue
            if self._store.files.remove(_digest(digest)):
                gone.append(row or Held(digest, size, 0.0))
            else:
                reading.append(digest)
        self._catalogue.remove(gone)
        return gone, reading

    async def keep_uses(self) -> None:
        """Write down this worker's last uses, for ever."""
        while True:
            await asyncio.sleep(EVERY)
            try:
                await asyncio.to_thread(self._catalogue.flush)
            except OSError as error:
                self._complain(str(error))

    async def watch(self) -> None:
        """Look after what nobody asked room for, sweep leftovers, for ever; one worker does it for the machine."""
        while True:
            try:
                await self._look_after()
            except OSError as error:
                self._complain(f"cannot keep house: {error}")
            await asyncio.sleep(EVERY)

    async def _look_after(self) -> None:
        await asyncio.to_thread(self._store.parts.sweep, LEFTOVER)
        if not await self.make_room():
            space, limits = await asyncio.to_thread(self.space), await asyncio.to_thread(self.limits)
            self._complain(
                f"over the limits and nothing may be evicted: {space.cached} bytes cached, {space.pinned} of them"
                f" pinned, max_size {limits.max_size}; {space.free} bytes free, min_free {limits.min_free}"
            )

    def _complain(self, sentence: str) -> None:
        """Once a minute: whoever watches knows by then."""
        if time.monotonic() - self._said > _QUIET:
            self._said = time.monotonic()
            _log.warning("%s", sentence)

    def _need(self, coming: int) -> Need:
        """Pins are read only where something would have to go: a file of them that cannot be read stops no pull."""
        space, limits = self._unpinned(), self.limits()
        if plan.to_free(space, limits, coming).size > 0:
            space = self.space()
        return plan.to_free(space, limits, coming)

    def limits(self) -> Limits:
        """What is set, in bytes. Raises OSError."""
        found = os.statvfs(self._data)
        return self._limits(found.f_blocks * found.f_frsize)

    def space(self) -> Space:
        """What is so. Raises OSError."""
        space = self._unpinned()
        return replace(space, pinned=min(self._pinned(), space.cached))

    def shown(self) -> Space:
        """The same for people to look at: pins that cannot be read are none. Raises OSError."""
        try:
            return self.space()
        except OSError:
            return self._unpinned()

    def _unpinned(self) -> Space:
        found = os.statvfs(self._data)
        cached, _ = self._catalogue.sums()
        return Space(cached, 0, found.f_bavail * found.f_frsize, self._store.parts.bytes())

    def _pinned(self) -> int:
        """Bytes of pins that are here: what is still to come takes no room from what may be evicted. Nobody evicts a
        pin, so what has been seen here is not looked for again."""
        pins = self._pins.digests()
        known, here = self._landed
        if known is not pins:
            here = set()
            self._landed = pins, here
        here.update(digest for digest in pins.keys() - here if self._store.files.has(_digest(digest)))
        return sum(pins[digest] for digest in tuple(here))

    def _clear(self, coming: int, held: Hold) -> None:
        """Evict what is needed now, then let go of the janitor's lock. Runs in a thread. Raises OSError."""
        try:
            need = self._need(coming)
            if need.size > 0:
                self._evict(need)
        finally:
            held.release()

    def _evict(self, need: Need) -> None:
        """One pass. Raises OSError."""
        self._catalogue.flush()
        now, freed, count, oldest = self._clock(), 0, 0, 0.0
        waiting = (Resident(each.digest, each.size, each.used) for each in self._catalogue.lowest_first())
        chosen = plan.victims(waiting, need.size, now, self._kept)
        for batch in _batches(chosen):
            began = time.monotonic()
            gone = list(self._take(batch, now))
            self._catalogue.remove(gone)
            freed, count = freed + sum(each.size for each in gone), count + len(gone)
            oldest = max([oldest, *(now - each.used for each in gone)])
            for each in gone:
                metrics.EVICTED_IDLE.observe(max(0.0, now - each.used))
            time.sleep(_REST * (time.monotonic() - began))
        metrics.CACHE_EVICTED.labels(need.reason).inc(freed)
        if count:
            days = oldest / 86400
            _log.info("evicted %d blobs, %d bytes (%s), unused for up to %.1f d", count, freed, need.reason, days)

    def _kept(self, digest: str) -> bool:
        return digest in self._pins.digests() or self._store.files.is_read(_digest(digest))

    def _take(self, batch: Iterable[Resident], now: float) -> Iterator[Held]:
        """What really went: pins and last use are read again right before."""
        pinned = self._pins.digests()
        for each in batch:
            row = self._catalogue.get(each.digest)
            if row is None or each.digest in pinned or plan.just_used(row.used, now):
                continue
            if self._store.files.remove(_digest(each.digest)):
                yield row


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        raise OSError(f"the catalogue holds {text[:80]!r}, which is no digest") from error


def _batches(chosen: Iterator[Resident]) -> Iterator[list[Resident]]:
    while batch := list(islice(chosen, _BATCH)):
        yield batch
