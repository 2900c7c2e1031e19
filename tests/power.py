"""What a power cut can leave of a sequence of writes: everything synced, and any half of what was not.

A recorder notes what the store asks of the system while it puts one blob in its place. From that follow the states of
the disk: for every moment, data that was not synced is there, missing or zeros, and names that were changed without a
sync of their folder are the new ones or the old ones. The model is the one file systems promise, not one of them.
"""

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy.care import plan
from proxy.oci.digest import Digest
from proxy.store.catalogue import Catalogue
from proxy.store.ingest import Leading, Store

Tree = dict[str, bytes]
"""Relative paths and their contents."""


@dataclass(frozen=True, slots=True)
class Op:
    """`kind` of call, the path it was about, where it went to or what was written, and at which position."""

    kind: str
    path: str
    data: bytes = b""
    at: int = 0
    to: str = ""


@contextmanager
def recording(root: Path, log: list[Op]) -> Iterator[None]:
    """Everything the block asks of the system below `root`. Descriptors are told by what they have open."""
    real = {name: getattr(os, name) for name in ("pwritev", "pwrite", "fsync", "rename", "unlink", "ftruncate")}

    def of(fd: int) -> str:
        return os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), root)

    def below(path: str) -> str:
        return os.path.relpath(path, root)

    def note(name: str, op: Op, *args: object) -> object:
        result = real[name](*args)
        if not op.path.startswith(".."):
            log.append(op)
        return result

    wrapped = {
        "pwritev": lambda fd, buffers, at: note(
            "pwritev", Op("write", of(fd), b"".join(map(bytes, buffers)), at), fd, buffers, at
        ),
        "pwrite": lambda fd, data, at: note("pwrite", Op("write", of(fd), bytes(data), at), fd, data, at),
        "fsync": lambda fd: note("fsync", Op("sync", of(fd)), fd),
        "rename": lambda old, new: note("rename", Op("rename", below(old), to=below(new)), old, new),
        "unlink": lambda path: note("unlink", Op("unlink", below(path)), path),
        "ftruncate": lambda fd, size: note("ftruncate", Op("truncate", of(fd), at=size), fd, size),
    }
    for name, call in wrapped.items():
        setattr(os, name, call)
    try:
        yield
    finally:
        for name, call in real.items():
            setattr(os, name, call)


def committed(root: Path, content: bytes) -> list[Op]:
    """What is asked of the system to put `content` in its place below `root`."""
    log: list[Op] = []
    books = Catalogue(str(root.with_name(f"{root.name}-books")), plan.rank)

    async def fill() -> None:
        with ThreadPoolExecutor(1) as pool:
            store = Store(str(root), pool, pool, books)
            lead = store.claim(Digest.of(content), lambda: None)
            assert isinstance(lead, Leading)
            lead.announce(len(content))
            for at in range(0, len(content), 1 << 19):
                await lead.write(content[at : at + (1 << 19)])
                await lead.settle()
            assert await lead.seal()
            await lead.publish()
            await lead.close(discard=False)

    root.mkdir(parents=True)
    with recording(root, log):
        asyncio.run(fill())
    books.close()
    return log


@dataclass(frozen=True, slots=True)
class Cut:
    """The power goes after so many calls; what was not synced is `data` (kept, missing or zeros), names that were not
    are `names` (new or old)."""

    after: int
    data: str
    names: str


def cuts(log: list[Op]) -> list[Cut]:
    """Every moment in every mood, but no two that leave the same."""
    moods = [
        ("kept", "new"),
        ("kept", "old"),
        ("missing", "new"),
        ("missing", "old"),
        ("zeros", "new"),
        ("zeros", "old"),
    ]
    return [Cut(after, *mood) for after in range(1, len(log) + 1) for mood in moods]


def left(log: list[Op], cut: Cut) -> Tree:
    """What is on the disk after a cut. A file follows its name: data and names are synced apart."""
    contents: dict[str, bytearray] = {}
    synced: dict[str, bytes] = {}
    names: dict[str, str] = {}  # path -> file
    durable: dict[str, str] = {}
    for op in log[: cut.after]:
        file = names.get(op.path, op.path)
        if op.kind == "write":
            content = contents.setdefault(file, bytearray())
            content[op.at : op.at + len(op.data)] = op.data
            names.setdefault(op.path, file)
        elif op.kind == "truncate":
            del contents.setdefault(file, bytearray())[op.at :]
        elif op.kind == "sync" and file in contents:
            synced[file] = bytes(contents[file])
            durable[op.path] = file  # a synced new file has its name on every file system we know
        elif op.kind == "sync":
            here = {path: each for path, each in names.items() if os.path.dirname(path) == op.path}
            moved = set(here.values())
            durable = {p: f for p, f in durable.items() if os.path.dirname(p) != op.path and f not in moved} | here
        elif op.kind == "rename":
            names[op.to] = names.pop(op.path)
        elif op.kind == "unlink":
            names.pop(op.path, None)
    if cut.names == "old":
        names = {**{path: file for path, file in names.items() if file not in durable.values()}, **durable}
    return {path: _data(bytes(contents[file]), synced.get(file, b""), cut.data) for path, file in names.items()}


def _data(now: bytes, synced: bytes, mood: str) -> bytes:
    if mood == "kept" or now == synced:
        return now
    return synced if mood == "missing" else synced + bytes(len(now) - len(synced))
