"""Reading everything again: what no longer is what its name says leaves the store and is fetched again.

One pass goes over all finished files in the order of their digests, and where it stands is written down
(`<data>/care/scrub.json`), so that a restart, a kill or Ctrl-C costs the blob that was being read. In the background a
pass keeps to a budget of bytes a second and starts anew a day after it has ended; `tidegate scrub` drives the same pass
on at full speed. One scrubber at a time on the machine: whoever holds `run/scrub.lock` reads; whoever holds
`run/scrub.wanted` was sent by a person, and the one in the background gives way within a piece.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from proxy import metrics
from proxy.care.lost import Fetch, Images, Lost
from proxy.care.reread import Read, Verdict, reread
from proxy.care.steps import stepped
from proxy.errors import DigestInvalid, Unavailable
from proxy.oci.digest import Digest
from proxy.store.catalogue import Catalogue, Held
from proxy.store.files import Files
from proxy.store.lock import Hold, hold
from proxy.store.quarantine import Quarantine

DAY = 86400.0
_SAVE_EVERY = 2.0
_TELL_EVERY = 0.2
_TELL_AT_LEAST = 5.0
_IDLE = 30.0
_POLL = 0.05
_PATIENCE = 20
_LOST = 1000
_log = logging.getLogger("tidegate.care")


@dataclass(frozen=True, slots=True)
class State:
    """Where a pass stands. Times are wall-clock seconds, 0 where that has not happened; `lost` are blobs that were
    found bad and could not be fetched again yet."""

    began: float = 0.0
    after: str = ""
    checked: int = 0
    bytes: int = 0
    bad: int = 0
    finished: float = 0.0
    lost: tuple[str, ...] = ()

    @property
    def under_way(self) -> bool:
        return bool(self.began) and not self.finished

    def counted(self, verdict: Verdict, bad: bool) -> "State":
        """One blob further."""
        lost = (*self.lost, verdict.digest.text) if bad and verdict.digest.text not in self.lost else self.lost
        return replace(
            self,
            after=verdict.digest.text,
            checked=self.checked + 1,
            bytes=self.bytes + verdict.size,
            bad=self.bad + bad,
            lost=lost[-_LOST:],
        )


@dataclass(frozen=True, slots=True)
class Step:
    """`size` bytes more were read, or with a `blob` that one is done; where the pass stands then."""

    state: State
    size: int = 0
    blob: str = ""
    bad: bool = False


class Scrubber:
    """Passes over one data folder."""

    def __init__(
        self, data: str, files: Files, quarantine: Quarantine, catalogue: Catalogue, images: Images = tuple
    ) -> None:
        """`images` are those that what is bad is fetched again for."""
        self._files = files
        self._quarantine = quarantine
        self._catalogue = catalogue
        self._state_path = os.path.join(data, "care", "scrub.json")
        self._lost = Lost(files, images)
        self._run = os.path.join(data, "run")

    # One pass, in any thread

    def work(self, full: bool) -> Generator[Step, None, None]:
        """Go on with the pass that was cut off, or begin one; whoever takes the steps sets the pace, and may stop.

        Blocks a piece at a time. Raises OSError.
        """
        state = self.load()
        if full or not state.under_way:
            state = State(began=time.time(), lost=state.lost)
        saved, finished = time.monotonic(), 0.0
        try:
            for name, _ in self._files.walk(state.after):
                for step in self._steps(state, name):
                    state = step.state
                    if time.monotonic() - saved > _SAVE_EVERY:
                        saved = time.monotonic()
                        self._save(state)
                    yield step
            finished = time.time()
            yield Step(state)
        finally:
            self._save(replace(state, finished=finished))

    def _steps(self, state: State, name: str) -> Generator[Step, None, None]:
        try:
            digest = Digest.parse(name)
        except DigestInvalid:
            return  # a file that somebody else has put there
        for what in reread(self._files, digest):
            if isinstance(what, Read):
                yield Step(state, what.size)
                continue
            bad = bool(what.wrong) and self._take_out(what)
            metrics.SCRUBBED.labels("bad" if bad else "ok").inc()
            metrics.SCRUBBED_BYTES.inc(what.size)
            yield Step(state.counted(what, bad), 0, name, bad)

    def _take_out(self, verdict: Verdict) -> bool:
        """False where another file, or none, stands there by now."""
        taken = self._quarantine.take(verdict.digest, verdict.fd, verdict.wrong)
        if taken:
            with contextlib.suppress(OSError):  # a row without a file is found when its turn comes
                self._catalogue.remove([Held(verdict.digest.text, 0, float("inf"))])
        return taken

    # Where it stands

    def load(self) -> State:
        """Where the last pass stands; a fresh one where that cannot be read. Blocks."""
        try:
            with open(self._state_path, encoding="utf-8") as file:
                found = json.load(file)
            state = State(**{**found, "lost": tuple(Digest.parse(text).text for text in found["lost"])})
        except (OSError, ValueError, TypeError, KeyError, DigestInvalid):
            return State()
        readable = all(type(getattr(state, each.name)) is type(each.default) for each in fields(State))
        return state if readable else State()

    def _save(self, state: State) -> None:
        """A disk that cannot be written costs the place, nothing else."""
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(self._state_path), exist_ok=True)
            with open(f"{self._state_path}.new", "w", encoding="utf-8") as file:
                json.dump(asdict(state), file)
            os.replace(f"{self._state_path}.new", self._state_path)

    def progress(self, state: State, reading: int = 0) -> dict[str, Any]:
        """How far a pass has come, as the command shows it. Blocks. Raises OSError."""
        of_bytes, of = self._catalogue.sums()
        done = state.bytes + reading
        counts = {"checked": state.checked, "bytes": done, "bad": state.bad, "began": state.began}
        return counts | {"of": max(of, state.checked), "of_bytes": max(of_bytes, done)}

    # Now, because somebody asked

    async def take(self) -> Hold:
        """The right to scrub now, to be given to `now`. Raises Unavailable while somebody else has it."""
        for _ in range(_PATIENCE):  # the one in the background looks for a moment whether somebody wants to
            if (wanted := hold(os.path.join(self._run, "scrub.wanted"))) is not None:
                return wanted
            await asyncio.sleep(_POLL)
        raise Unavailable("another tidegate scrub is running; wait for its end", retry_after=60)

    async def now(self, wanted: Hold, full: bool, fetch: Fetch) -> AsyncGenerator[dict[str, Any], None]:
        """A pass at full speed: how it goes, then what came of it with `done`. Raises OSError."""
        held = None
        try:
            while (held := hold(os.path.join(self._run, "scrub.lock"))) is None:
                await asyncio.sleep(_POLL)
            async for line in self._report(full, fetch):
                yield line
        finally:
            if held is not None:
                held.release()
            wanted.release()

    async def _report(self, full: bool, fetch: Fetch) -> AsyncGenerator[dict[str, Any], None]:
        state, reading, told = State(), 0, 0.0
        async with contextlib.aclosing(stepped(self.work(full))) as steps:
            async for step in steps:
                state, reading = step.state, 0 if step.blob else reading + step.size
                if step.bad or time.monotonic() - told > _TELL_EVERY:
                    told = time.monotonic()
                    line = await asyncio.to_thread(self.progress, state, reading)
                    yield line | ({"bad_blob": step.blob} if step.bad else {})
        fetching = asyncio.create_task(self.fetch_lost(fetch))
        try:
            while not fetching.done():
                await asyncio.wait([fetching], timeout=_TELL_AT_LEAST)
                yield await asyncio.to_thread(self.progress, state)
        finally:
            fetching.cancel()
        left = list(self.load().lost)
        yield await asyncio.to_thread(self.progress, state) | {"done": True, "again": fetching.result(), "lost": left}

    def alone(self, full: bool) -> Iterator[dict[str, Any]]:
        """The same where no service runs: nothing is fetched. Blocks. Raises OSError."""
        state, reading, told = State(), 0, 0.0
        for step in self.work(full):
            state, reading = step.state, 0 if step.blob else reading + step.size
            if step.bad or time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                yield self.progress(state, reading) | ({"bad_blob": step.blob} if step.bad else {})
        yield self.progress(state) | {"done": True, "again": 0, "lost": list(state.lost)}

    # In the background

    async def watch(self, bandwidth: int, fetch: Fetch) -> None:
        """Passes within the budget, in bytes a second, for ever; 0: only what was lost is fetched again."""
        while True:
            held = hold(os.path.join(self._run, "scrub.lock"))
            try:
                if held is not None:
                    if bandwidth and self._due():
                        await self._pass(bandwidth)
                    await self.fetch_lost(fetch)
            except OSError as error:
                _log.warning("the scrub cannot go on: %s", error)
            finally:
                if held is not None:
                    held.release()
            await asyncio.sleep(_IDLE)

    def _due(self) -> bool:
        state = self.load()
        return not state.finished or not 0 <= time.time() - state.finished < DAY

    def _wanted(self) -> bool:
        probe = hold(os.path.join(self._run, "scrub.wanted"))
        if probe is not None:
            probe.release()
        return probe is None

    async def _pass(self, bandwidth: int) -> None:
        due = time.monotonic()
        async with contextlib.aclosing(stepped(self.work(full=False))) as steps:
            async for step in steps:
                if self._wanted():
                    return
                due = max(due, time.monotonic() - 1) + step.size / bandwidth
                await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def fetch_lost(self, fetch: Fetch) -> int:
        """Fetch again what was found bad, where an image that was asked for needs it; the rest is fetched by whoever
        asks for it next. How many are here again. Raises OSError."""
        lost = [Digest.parse(text) for text in self.load().lost]
        again, left = await self._lost.recover(lost, fetch)
        if lost:
            self._save(replace(self.load(), lost=tuple(digest.text for digest in left)))
        return again
