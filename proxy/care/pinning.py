"""One order to pin: find the images, see what they are made of, write that down, then fetch what is not here yet.

The pin stands before the first blob is asked for, so nothing of it is evicted while the rest arrives; and a pass of
the janitor that began before the pin stood is over before "it is here" is believed of anything. Whoever ordered it may
go at any time: the work ends, what has arrived stays, and the same order once more goes on from there.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from proxy.care.closure import Closure, Part, Survey, Target
from proxy.care.evict import Janitor
from proxy.care.pins import DoesNotFit, Pin, Pins
from proxy.config import format_size
from proxy.errors import BodyBroken, RegistryError, Unavailable
from proxy.oci.digest import Digest
from proxy.oci.platforms import Platform
from proxy.ports import Ask, OpenBlob
from proxy.store.ingest import Store

T = TypeVar("T")
AT_ONCE = 4
BEAT = 0.5
"""Seconds between two reports; also how soon it is noticed that nobody reads them any more."""
_TRIES = 2
_KEEPING = 60.0
_LOOK = 0.02


class Names(Protocol):
    """What names mean here."""

    async def find(self, text: str) -> Target:
        """The image somebody wrote, its first manifest fetched like a pull would. Raises RegistryError."""
        ...

    def forget_answer(self, target: Target, digest: str) -> None:
        """No worker answers with this manifest from memory alone any more."""
        ...


@dataclass(frozen=True, slots=True)
class Rooms:
    """What a pin is made with."""

    names: Names
    pins: Pins
    janitor: Janitor
    store: Store


@dataclass(frozen=True, slots=True)
class Order:
    """What was asked for."""

    images: Sequence[str]
    platforms: Sequence[Platform]
    set: str


@dataclass(slots=True)
class _Piece:
    """One part on its way; `target` is an image it belongs to."""

    target: Target
    part: Part
    bytes: int = 0
    done: bool = False
    told: tuple[int, bool] = (0, False)


@dataclass(slots=True)
class _Image:
    """One image of the order; `known` are parts of it that were pinned before."""

    target: Target
    closure: Closure
    row: dict[str, Any] = field(default_factory=dict)
    known: Mapping[str, int] = field(default_factory=dict)


class Pinning:
    """Carries out one order; `events` is to be read to its end, or closed."""

    def __init__(self, rooms: Rooms, order: Order, clock: Callable[[], float] = time.time) -> None:
        self._rooms = rooms
        self._order = order
        self._clock = clock
        self._images: list[_Image] = []
        self._pieces: dict[tuple[str, str], _Piece] = {}
        self._missing: list[dict[str, str]] = []
        self._news: list[dict[str, Any]] = []
        self._refused = ""
        self._moved = 0

    async def events(self) -> AsyncGenerator[Mapping[str, Any], None]:
        """Documents as it goes on, at least one a second; the last one has `done`. Raises OSError."""
        work = asyncio.create_task(self._work())
        try:
            while not work.done():
                await asyncio.wait([work], timeout=BEAT)
                for each in self._report():
                    yield each
            work.result()
            rows = [image.row for image in self._images]
            end = {"set": self._order.set, "images": rows, "missing": self._missing, "refused": self._refused}
            yield {"done": True, **end}
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def _report(self) -> list[Mapping[str, Any]]:
        news, self._news = self._news, []
        for piece in self._pieces.values():
            if piece.told != (piece.bytes, piece.done):
                piece.told = piece.bytes, piece.done
                news.append(self._progress(piece))
        sums = {"bytes": sum(piece.bytes for piece in self._pieces.values()), "size": _size(self._pieces.values())}
        here = sum(piece.done for piece in self._pieces.values())
        return [*news, {"total": {**sums, "here": here, "parts": len(self._pieces)}}]

    def _progress(self, piece: _Piece) -> dict[str, Any]:
        said = piece.part.said
        about = {"image": piece.target.reference, "digest": str(said.digest), "media_type": said.media_type}
        return {**about, "bytes": piece.bytes, "size": said.size, "here": piece.done}

    async def _work(self) -> None:
        await _few(self._survey, self._order.images)
        self._images.sort(key=lambda image: image.target.reference)
        if not self._images or not await self._write_down():
            return
        await self._rooms.janitor.settle()
        await _few(self._fetch, self._pieces.values())
        for image in self._images:
            self._conclude(image)

    async def _survey(self, text: str) -> None:
        try:
            target = await self._rooms.names.find(text)
            closure = await Survey(target, self._order.platforms, self._clock).run()
        except (RegistryError, OSError) as error:
            self._missing.append({"image": text, "digest": "", "error": str(error)})
            return
        if any(image.target.reference == target.reference for image in self._images):
            return
        for part in closure.parts.values():
            self._pieces.setdefault((target.repository, str(part.said.digest)), _Piece(target, part))
        size = sum(part.said.size or 0 for part in closure.parts.values())
        row = {"image": target.reference, "digest": str(target.manifest.descriptor.digest), "size": size}
        self._images.append(_Image(target, closure, {**row, "parts": len(closure.parts), "here": False}))
        self._news.append({**row, "parts": len(closure.parts)})

    async def _write_down(self) -> bool:
        """The pins of the whole order, or none: what does not fit is refused before anything is fetched."""
        try:
            limit = (await asyncio.to_thread(self._rooms.janitor.limits)).max_size
            await asyncio.to_thread(self._put, limit)
        except DoesNotFit as error:
            self._refused = (
                f"refused: {format_size(error.more)} more beside {format_size(error.pinned)} pinned already are"
                f" {error.pinned + error.more} bytes, and [cache] max_size is {format_size(error.limit)}"
                f" ({error.limit} bytes); nothing of it is pinned"
            )
        except OSError as error:
            self._refused = f"refused: {error}"
        return not self._refused

    def _put(self, limit: int) -> None:
        known = {pin.reference: pin for pin in self._rooms.pins.sets().get(self._order.set, [])}
        pins = [self._pin(image, known.get(image.target.reference)) for image in self._images]
        self._rooms.pins.put(self._order.set, pins, limit)

    def _pin(self, image: _Image, before: Pin | None) -> Pin:
        """What could not be learned this time may have been before: that stays, and where all of it had been, nothing
        is unknown. So a pin made in time is still found whole on the day the way out is closed."""
        digest, platforms = str(image.target.manifest.descriptor.digest), tuple(map(str, self._order.platforms))
        blobs = {text: part.said.size or 0 for text, part in image.closure.parts.items()}
        if image.closure.missing and before is not None and (before.digest, before.platforms) == (digest, platforms):
            image.known = before.blobs
            blobs = {**before.blobs, **blobs}
            if before.whole:
                image.closure.missing.clear()
        return Pin(image.target.reference, digest, platforms, blobs, not image.closure.missing)

    async def _fetch(self, piece: _Piece) -> None:
        try:
            if piece.part.manifest:
                await self._manifest(piece)
            else:
                await self._blob(piece)
            await self._landed(piece)
        except (RegistryError, OSError) as error:
            self._miss(piece.target.reference, str(piece.part.said.digest), str(error))

    async def _manifest(self, piece: _Piece) -> None:
        """Fetched when the image was looked through, so in general it is here; but one that a worker still remembers
        although its file has gone is answered from memory, so that is voided first."""
        digest = piece.part.said.digest
        if not self._rooms.store.files.has(digest):
            self._rooms.names.forget_answer(piece.target, str(digest))
        await piece.target.registry.manifest(Ask(piece.target.repo, self._clock()), digest)

    async def _blob(self, piece: _Piece) -> None:
        """Raises RegistryError. Waiting for a turn behind downloads of our own that go on is no failure."""
        tries = _TRIES
        while True:
            before = self._moved
            try:
                return await self._read(piece)
            except BodyBroken as error:
                problem = Unavailable(str(error), label="body")
            except Unavailable as error:
                problem = error
            queued = problem.label == "timeout" and self._moved > before
            tries -= 0 if queued else 1 if problem.label == "body" else _TRIES
            if tries <= 0:
                raise problem

    async def _read(self, piece: _Piece) -> None:
        """Stay with the download to its end, so that it counts as wanted. Raises RegistryError, BodyBroken."""
        digest = piece.part.said.digest
        blob = (await piece.target.registry.blob(Ask(piece.target.repo, self._clock()), digest)).value
        with contextlib.closing(blob):
            if isinstance(blob, OpenBlob):
                return
            piece.bytes = 0
            while (available := await blob.wait(piece.bytes)) > piece.bytes:
                self._check_kept(digest)
                self._moved += available - piece.bytes
                piece.bytes = available

    def _check_kept(self, digest: Digest) -> None:
        """Where the disk takes nothing a blob is passed on without being kept: of no use here. Raises Unavailable.

        The part is looked for first, because it becomes the file."""
        if not self._rooms.store.parts.has(digest) and not self._rooms.store.files.has(digest):
            raise Unavailable("it comes but cannot be kept; see the log of tidegate and the disk")

    async def _landed(self, piece: _Piece) -> None:
        """Readers have the last byte before the disk does. Raises Unavailable when it never comes there."""
        digest, deadline = piece.part.said.digest, time.monotonic() + _KEEPING
        while not self._rooms.store.files.has(digest):
            self._check_kept(digest)
            if time.monotonic() > deadline:
                raise Unavailable("it arrived and could not be kept; see the log of tidegate and the disk")
            await asyncio.sleep(_LOOK)
        piece.bytes, piece.done = piece.part.said.size or 0, True

    def _conclude(self, image: _Image) -> None:
        """Here is what is here now; what could not be learned is missing as much as what could not be had."""
        for what, why in image.closure.missing.items():
            self._miss(image.target.reference, what, why)
        named = {each["digest"] for each in self._missing}
        parts = image.closure.parts.keys() | image.known.keys()
        for text in sorted(parts - named):
            if not self._rooms.store.files.has(Digest.parse(text)):
                self._miss(image.target.reference, text, "it was here and has gone")
        told = {each["digest"] for each in self._missing}
        image.row["here"] = told.isdisjoint(parts) and not image.closure.missing

    def _miss(self, image: str, digest: str, error: str) -> None:
        row = {"image": image, "digest": digest, "error": error}
        if not any((each["image"], each["digest"]) == (image, digest) for each in self._missing):
            self._missing.append(row)


def _size(pieces: Iterable[_Piece]) -> int:
    return sum(piece.part.said.size or 0 for piece in pieces)


async def _few(call: Callable[[T], Awaitable[None]], work: Iterable[T]) -> None:
    """`call` for each, at most four at a time."""
    waiting = iter(list(work))

    async def next_ones() -> None:
        for each in waiting:
            await call(each)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(next_ones())
