"""What is never evicted because somebody said so: one small file a set, durable, readable, copied with the data.

`<data>/pins/<set>.json` holds the references of the set under their one name here, and for each the digests of all it
is made of with their sizes. The closure is written down when it is pinned, so whoever evicts reads a list and no
manifests; a tag that moves later does not change what is pinned.

Written whole: a file beside it, fsync, rename, fsync of the folder, all under one lock, because whether a pin fits is
a question about every set. Readers need no lock. `digests` counts in blocks of the disk, as limits do.
"""

import contextlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.errors import NameInvalid
from proxy.store.lock import briefly

_BLOCK = 4096
_SET = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")


class DoesNotFit(Exception):
    """Bytes pinned already, bytes these would add, bytes there may be."""

    def __init__(self, pinned: int, more: int, limit: int) -> None:
        super().__init__(f"{pinned} pinned and {more} more are beyond {limit} bytes")
        self.pinned, self.more, self.limit = pinned, more, limit


@dataclass(frozen=True, slots=True)
class Pin:
    """One pinned image: its one name here, its first manifest, the platforms chosen (none: all), all its parts;
    `whole` once everything it is made of has been learned, so that nobody has to be asked to know that it is here."""

    reference: str
    digest: str
    platforms: tuple[str, ...]
    blobs: Mapping[str, int]
    whole: bool = False

    @property
    def repository(self) -> str:
        return self._name[0]

    @property
    def tag(self) -> str:
        """Empty where it was pinned by digest alone."""
        return self._name[1]

    @property
    def _name(self) -> tuple[str, str]:
        name = self.reference.partition("@")[0]
        bare, colon, tag = name.rpartition(":")
        return (bare, tag) if colon and "/" not in tag else (name, "")

    @property
    def names(self) -> tuple[str, str]:
        """What it may be called when it is let go: as it was pinned, or by what it is."""
        return self.reference, f"{self.repository}@{self.digest}"

    def row(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "reference": self.reference,
            "digest": self.digest,
            "platforms": list(self.platforms),
            "whole": self.whole,
            "blobs": dict(sorted(self.blobs.items())),
        }


def check_set(name: str) -> str:
    """The name of a set. Raises NameInvalid."""
    if not _SET.match(name):
        raise NameInvalid(f"{name[:80]!r} is not a set's name: a-z, 0-9 and . _ - inside, at most 64")
    return name


class Pins:
    """The pins of one data folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, exist_ok=True)
        self._seen: tuple[tuple[str, int, int, int], ...] = ()
        self._digests: Mapping[str, int] = {}

    def digests(self) -> Mapping[str, int]:
        """Every pinned digest and its bytes on disk; read again when a file has changed. Raises OSError."""
        state = self._state()
        if state != self._seen:
            self._digests, self._seen = _sizes(self.sets()), state
        return self._digests

    def sets(self) -> dict[str, list[Pin]]:
        """Every set and its images, in order. Raises OSError."""
        names = [name.removesuffix(".json") for name, *_ in self._state()]
        return {name: pins for name in names if (pins := self._read(name))}

    def put(self, name: str, pins: Sequence[Pin], limit: int) -> None:
        """Add to a set, or replace there what has the same reference; all of them or none. Blocks.

        Raises DoesNotFit where everything pinned would be more than `limit` bytes, OSError."""
        fresh = {pin.reference for pin in pins}
        with briefly(os.path.join(self._folder, "lock")):
            sets = self.sets()
            sets[name] = [pin for pin in sets.get(name, []) if pin.reference not in fresh]
            before = sum(_sizes(sets).values())
            sets[name] += pins
            after = sum(_sizes(sets).values())
            if after > limit:
                raise DoesNotFit(before, after - before, limit)
            self._write(name, sets[name])

    def remove(self, references: Collection[str] | None, name: str = "") -> list[tuple[str, str]]:
        """Let go of images, all where None, in one set or in every one; which those were, set and reference. Blocks.

        Raises OSError."""
        gone = []
        with briefly(os.path.join(self._folder, "lock")):
            for each, pins in self.sets().items():
                leave = [pin for pin in pins if name in ("", each) and _is_named(pin, references)]
                if leave:
                    self._write(each, [pin for pin in pins if pin not in leave])
                    gone += [(each, pin.reference) for pin in leave]
        return gone

    def _read(self, name: str) -> list[Pin]:
        """One set. A file that went meanwhile holds none; one that cannot be read stops everything that would evict:
        raises OSError."""
        path = os.path.join(self._folder, f"{name}.json")
        try:
            with open(path, encoding="utf-8") as file:
                return [_pin(row) for row in json.load(file)["images"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OSError(f"{path} cannot be read as a set of pins ({error}): mend or remove it") from error

    def _write(self, name: str, pins: Sequence[Pin]) -> None:
        """Durable when it returns; a set without images has no file. The caller holds the lock."""
        path = os.path.join(self._folder, f"{name}.json")
        if pins:
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                json.dump({"images": [pin.row() for pin in pins]}, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            os.rename(f"{path}.new", path)
        else:
            os.unlink(path)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _state(self) -> tuple[tuple[str, int, int, int], ...]:
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json"):
                    with contextlib.suppress(FileNotFoundError):
                        state = entry.stat()
                        found.append((entry.name, state.st_mtime_ns, state.st_ino, state.st_size))
        return tuple(sorted(found))


def _is_named(pin: Pin, references: Collection[str] | None) -> bool:
    return references is None or any(name in references for name in pin.names)


def _pin(row: Mapping[str, Any]) -> Pin:
    blobs = {str(digest): int(size) for digest, size in row["blobs"].items()}
    platforms = tuple(map(str, row.get("platforms", ())))
    whole = row.get("whole") is True
    return Pin(str(row.get("reference", "")), str(row.get("digest", "")), platforms, blobs, whole)


def _sizes(sets: Mapping[str, Sequence[Pin]]) -> dict[str, int]:
    """Every digest of these sets once, in whole blocks of the disk."""
    each = (item for pins in sets.values() for pin in pins for item in pin.blobs.items())
    return {digest: -(-size // _BLOCK) * _BLOCK for digest, size in each}
