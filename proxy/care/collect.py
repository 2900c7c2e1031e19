"""gc of what was pushed: links and files that no manifest reaches go, while everybody goes on pushing and pulling.

First every repository gives up its links (sift.py). Then every file without a link in any repository, and older than
`ttl`, is noted with its change time; all links are listed once more, and what none of them names is unlinked, alone
with its digest (store/yard.py), if its change time is still the same. Whoever links a blob touches its file before, so
whatever the clock says:

    gc notes an old file without link
                                            a push mounts it before gc lists the repository: gc sees the link
    gc lists all links
                                            a push mounts it after that: the file has changed
    gc looks at the file, and unlinks it

Links are gone for certain before a file is: whatever ends a run in the middle leaves bytes without a name, never a name
without bytes. A repository with a manifest that cannot be read keeps everything, and is told of. One run at a time.
"""

import contextlib
import os
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from proxy import metrics
from proxy.care.sift import Going, Shelves, Sift, Unreadable
from proxy.care.steps import stepped
from proxy.errors import DigestInvalid, Unavailable
from proxy.oci.digest import Digest
from proxy.store.asked import lately
from proxy.store.links import BLOBS, MANIFESTS
from proxy.store.lock import Hold, hold

_PREFIXES = 256
_AT_ONCE = 1000
_TELL_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asked for. Without `delete` nothing changes; with `untagged` manifests go that nothing reaches."""

    delete: bool = False
    untagged: bool = False


@dataclass(slots=True)
class Repository:
    """What goes, or would go, of one: links of manifests and blobs, and the bytes those blobs have. `unreadable` is on
    account of what everything stays."""

    repository: str
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    unreadable: str = ""


@dataclass(slots=True)
class _Sum:
    """What came of it so far. `share` of the way is done; `files` with their `bytes` went, or would go: a blob that
    another repository needs loses a link, and its file stays."""

    order: Order
    share: float = 0.0
    files: int = 0
    bytes: int = 0
    repositories: list[Repository] = field(default_factory=list)

    def add(self, size: int) -> None:
        """One file more."""
        self.files += 1
        self.bytes += size

    def document(self) -> dict[str, Any]:
        """How it goes, as the command shows it."""
        return {"progress": round(self.share, 4), "files": self.files, "bytes": self.bytes}

    def last(self) -> dict[str, Any]:
        rows = [asdict(each) for each in self.repositories if each.manifests or each.blobs or each.unreadable]
        said = {"deleted": self.order.delete, "untagged": self.order.untagged, "repositories": rows}
        return self.document() | {"done": True, **said}


class Collector:
    """Collects in one data folder. What was told of within `ttl` seconds stays."""

    def __init__(self, shelves: Shelves, ttl: float, lock: str) -> None:
        self._shelves = shelves
        self._age = ttl + lately(ttl)
        self._lock = lock

    def take(self) -> Hold:
        """The right to collect now. Raises Unavailable while somebody else does, OSError."""
        held = hold(self._lock)
        if held is None:
            raise Unavailable("another tidegate gc is running; wait for its end", retry_after=60)
        return held

    async def now(self, held: Hold, order: Order) -> AsyncGenerator[dict[str, Any], None]:
        """How it goes, then what came of it with `done`. Raises OSError."""
        told = 0.0
        try:
            async with contextlib.aclosing(stepped(self.run(order))) as steps:
                async for document in steps:
                    if "done" in document:
                        held.release()  # whoever reads it may ask again at once
                    if "done" in document or time.monotonic() - told > _TELL_EVERY:
                        told = time.monotonic()
                        yield document
        finally:
            held.release()

    def run(self, order: Order) -> Generator[dict[str, Any], None, None]:
        """The same step by step. May be closed after any step. Blocks a step at a time. Raises OSError."""
        before = time.time() - self._age
        names = list(self._shelves.links.repositories())
        total, linked = _Sum(order), set[bytes]()
        for number, name in enumerate(names):
            for _ in self._sift(Sift(self._shelves, name, before, order.untagged), name, total, linked):
                yield total.document()
            total.share = (number + 1) / (len(names) + _PREFIXES)
        noted: dict[Digest, int] = {}
        for share, digest in self._files(linked):
            total.share = (len(names) + share * _PREFIXES) / (len(names) + _PREFIXES)
            if digest is not None and (found := self._old(digest, before)) is not None:
                noted[digest] = found.st_ctime_ns
                if not order.delete:
                    total.add(found.st_size)
            yield total.document()
        if order.delete:
            for size in self._unlink(noted, before):
                if size is not None:
                    total.add(size)
                yield total.document()
        total.share = 1.0
        yield total.last()

    def _sift(self, sift: Sift, name: str, total: _Sum, linked: set[bytes]) -> Iterator[None]:
        """One repository: what it gives up, and what it still links when it has. A step may be a batch."""
        found = Repository(name)
        total.repositories.append(found)
        going = Going((), ())
        try:
            going = sift.look()
            if total.order.delete and (going.manifests or going.blobs):
                for gone in sift.remove():
                    self._count(found, gone)
                    yield
            elif not total.order.delete:
                self._count(found, going)
        except Unreadable as error:
            found.unreadable = str(error)
            going = Going((), ())
        if total.order.delete:
            going = Going((), ())  # what really went has no link, what did not has
        keeps = {*sift.linked(MANIFESTS)}.difference(going.manifests) | {*sift.linked(BLOBS)}.difference(going.blobs)
        linked.update(bytes.fromhex(digest.hex) for digest in keeps)
        yield

    def _count(self, found: Repository, gone: Going) -> None:
        found.manifests += len(gone.manifests)
        found.blobs += len(gone.blobs)
        found.bytes += sum(self._shelves.files.size(digest) or 0 for digest in (*gone.manifests, *gone.blobs))

    def _files(self, linked: set[bytes]) -> Iterator[tuple[float, Digest | None]]:
        """Every file without a link, and now and then how far the walk has come."""
        for number, name in enumerate(self._shelves.files.names()):
            with contextlib.suppress(DigestInvalid):  # a file that somebody else has put there
                digest = Digest.parse(name)
                share = 1.0 if digest.algorithm != "sha256" else int(digest.hex[:2], 16) / _PREFIXES
                if bytes.fromhex(digest.hex) not in linked:
                    yield share, digest
                elif number % _AT_ONCE == 0:
                    yield share, None

    def _unlink(self, noted: dict[Digest, int], before: float) -> Iterator[int | None]:
        """The bytes of each file that went; None while the links are listed."""
        for name in self._shelves.links.repositories() if noted else ():
            sift = Sift(self._shelves, name, before, untagged=False)
            for digest in (*sift.linked(MANIFESTS), *sift.linked(BLOBS)):
                noted.pop(digest, None)
            yield None
        for digest, changed in noted.items():
            with self._shelves.yard.changing(digest):
                found = self._old(digest, before)
                if found is None or found.st_ctime_ns != changed or not self._shelves.files.remove(digest):
                    continue
                self._shelves.yard.give(found.st_size)
            metrics.GC_REMOVED.inc(found.st_size)
            yield found.st_size

    def _old(self, digest: Digest, before: float) -> os.stat_result | None:
        """A file that nobody linked since; None where there is none such."""
        try:
            found = os.stat(self._shelves.files.path(digest))
        except FileNotFoundError:
            return None
        return found if found.st_mtime < before else None
