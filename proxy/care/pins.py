"""What is never evicted because somebody said so: one small file a set, durable, readable, copied with the data.

`<data>/pins/<set>.json` holds the references of the set as they were asked for, and for each the digests of all it
is made of with their sizes. The closure is written down when it is pinned, so whoever evicts reads a list and no
manifests; a tag that moves later does not change what is pinned.
"""

import contextlib
import json
import os
from collections.abc import Mapping


class Pins:
    """The pins of one data folder, for reading."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, exist_ok=True)
        self._seen: tuple[tuple[str, int], ...] = ()
        self._digests: Mapping[str, int] = {}

    def digests(self) -> Mapping[str, int]:
        """Every pinned digest and its bytes; read again when a file has changed. Raises OSError."""
        state = self._state()
        if state != self._seen:
            found: dict[str, int] = {}
            for name, _ in state:
                found |= _blobs(os.path.join(self._folder, name))
            self._digests, self._seen = found, state
        return self._digests

    def _state(self) -> tuple[tuple[str, int], ...]:
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(".json"):
                    with contextlib.suppress(FileNotFoundError):
                        found.append((entry.name, entry.stat().st_mtime_ns))
        return tuple(sorted(found))


def _blobs(path: str) -> dict[str, int]:
    """The digests of one set. A file that went meanwhile holds none; one that cannot be read stops everything that
    would evict: raises OSError."""
    try:
        with open(path, encoding="utf-8") as file:
            images = json.load(file)["images"]
        return {str(digest): int(size) for image in images for digest, size in image["blobs"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OSError(f"{path} cannot be read as a set of pins ({error}): mend or remove it") from error
