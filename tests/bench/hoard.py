"""A data folder with any number of blobs and names in it, as if it had been filled for months. No measuring here.

Half of the files are manifests, half are blobs, and every file has a tag: `count` files, `count` rows by digest and
`count` tags in the index, `count` objects and `count` images in the catalogue. A few hundred of each kind, spread over
all of them, have content and are asked for. The mass is sparse, because a million blocks take minutes to give back on a
disk that discards, while its rows say a block each; what would be evicted first has its blocks.
"""

import asyncio
import hashlib
import json
import multiprocessing
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import click

from proxy.care.plan import rank
from proxy.store.catalogue import Catalogue, Held
from proxy.store.index import Index
from tests.real.images import OCI_KINDS

UPSTREAM = "registry.k8s.io"
HOT = 500
"""Manifests and blobs, so many of each, that somebody asks for; fewer where a hoard is small."""
OLD_SIZE = 24 << 10
_OLD_EVERY = 50
_BLOCK = 4096
_BATCH = 20_000
_DAY = 86400.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hoard:
    """What can be asked of a data folder; paths of URLs."""

    data: Path
    count: int
    by_digest: tuple[str, ...]
    by_tag: tuple[str, ...]
    blobs: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes as its rows say."""
        with closing(sqlite3.connect(self.data / "catalogue/catalogue.db")) as db:
            ((size,),) = db.execute("SELECT bytes FROM sums")
        return int(size)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file and its name: `content` None for the mass."""

    number: int
    digest: str
    content: bytes | None

    @property
    def is_manifest(self) -> bool:
        return self.number % 2 == 0

    @property
    def is_old(self) -> bool:
        return self.content is None and self.number % _OLD_EVERY == 0

    @property
    def size(self) -> int:
        return OLD_SIZE if self.is_old else _BLOCK

    @property
    def repository(self) -> str:
        return f"scale/r{self.number // 100:05d}"

    @property
    def tag(self) -> str:
        return f"v{self.number % 100}"


def hoard(data: Path, count: int) -> Hoard:
    """Fill a new folder, saying how far it is. A million take one to two minutes."""
    data.mkdir(parents=True)
    began = time.monotonic()
    names = multiprocessing.get_context("fork").Process(target=_index, args=(str(data / "index"), count), daemon=True)
    names.start()
    try:
        _files(data, _told(count, "files"))
        _catalogue(data, _told(count, "catalogue"))
        names.join()
    finally:
        names.terminate()
        names.join()
    assert names.exitcode == 0, "the index was not written"
    os.sync()
    click.echo(f"\r{count:,} blobs and names made in {time.monotonic() - began:.0f} s" + " " * 20, err=True)
    hot = [entry for entry in _entries(count) if entry.content is not None]
    manifests = [entry for entry in hot if entry.is_manifest]
    return Hoard(
        data, count,
        tuple(f"/v2/{entry.repository}/manifests/{entry.digest}" for entry in manifests),
        tuple(f"/v2/{entry.repository}/manifests/{entry.tag}" for entry in manifests),
        tuple(f"/v2/{entry.repository}/blobs/{entry.digest}" for entry in hot if not entry.is_manifest),
    )  # fmt: skip


def _entries(count: int) -> Iterator[_Entry]:
    """All of them; digests of the mass rise, so that they are quickly written."""
    every = max(1, count // (2 * HOT))
    for number in range(count):
        if number % (2 * every) in (0, every | 1):  # one even, one odd
            content = _content(number)
            yield _Entry(number, f"sha256:{hashlib.sha256(content).hexdigest()}", content)
        else:
            rest = hashlib.sha256(b"%d" % number).hexdigest()[8:]
            yield _Entry(number, f"sha256:{number * (1 << 32) // count:08x}{rest}", None)


def _content(number: int) -> bytes:
    """A small manifest, or a blob of the same size."""
    layers = [{"mediaType": OCI_KINDS[1], "digest": f"sha256:{number + each:064x}", "size": 1000} for each in range(3)]
    config = {"mediaType": OCI_KINDS[0], "digest": f"sha256:{number:064x}", "size": 700}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_KINDS[2], "config": config, "layers": layers}).encode()


def _told(count: int, what: str) -> Callable[[], Iterator[_Entry]]:
    """All entries, counted aloud."""

    def entries() -> Iterator[_Entry]:
        for entry in _entries(count):
            if entry.number % _BATCH == 0:
                click.echo(f"\r{what}: {entry.number:,} of {count:,} ", nl=False, err=True)
            yield entry

    return entries


def _files(data: Path, entries: Callable[[], Iterator[_Entry]]) -> None:
    folder = f"{data}/blobs/sha256"
    for prefix in range(256):
        os.makedirs(f"{folder}/{prefix:02x}")
    for entry in entries():
        name = entry.digest.removeprefix("sha256:")
        fd = os.open(f"{folder}/{name[:2]}/{name}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o444)
        if entry.content is not None:
            os.write(fd, entry.content)
        elif entry.is_old:
            os.posix_fallocate(fd, 0, OLD_SIZE)
        os.close(fd)


def _catalogue(data: Path, entries: Callable[[], Iterator[_Entry]]) -> None:
    """Objects through the catalogue itself; images, which it takes one by one, in one transaction of our own."""
    now = time.time()
    catalogue = Catalogue(str(data / "catalogue"), rank)
    for batch in _batches(entries()):
        catalogue.take_in([Held(entry.digest, entry.size, _used(entry, now)) for entry in batch])
    catalogue.close()
    with closing(sqlite3.connect(data / "catalogue/catalogue.db")) as db, db:
        rows = ((f"{UPSTREAM}/{entry.repository}", entry.tag, entry.digest, now) for entry in entries())
        db.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", rows)


def _used(entry: _Entry, now: float) -> float:
    if entry.content is not None:
        return now
    return now - (90 if entry.is_old else 30) * _DAY + entry.number


def _index(folder: str, count: int) -> None:
    """In a process of its own: half of the minutes."""
    index = Index(folder)
    try:
        asyncio.run(_names(index, count))
    finally:
        index.close()


async def _names(index: Index, count: int) -> None:
    """First the digests, then the tags, so that keys rise."""
    now = time.time()
    for batch in _batches(_entries(count)):
        await index.put({_key(entry): _row(entry) for entry in batch})
    for batch in _batches(_entries(count)):
        await index.put({f"t:{UPSTREAM}/{entry.repository}:{entry.tag}": json.dumps([entry.digest, now, 0.0])
                         for entry in batch})  # fmt: skip


def _key(entry: _Entry) -> str:
    return f"{'m' if entry.is_manifest else 'b'}:@{entry.digest}"


def _row(entry: _Entry) -> str:
    size = len(entry.content or b"")
    return json.dumps([OCI_KINDS[2], size] if entry.is_manifest else size)


def _batches(entries: Iterable[T]) -> Iterator[list[T]]:
    waiting = iter(entries)
    while batch := list(islice(waiting, _BATCH)):
        yield batch
