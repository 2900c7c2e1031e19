"""Small files that name things: pushed content, sets of pins. Each is durable before anybody is told of it.

A link is a file whose path says what is linked and whose text says the rest. It is written beside its place, fsynced,
renamed, and its folder fsynced; so after an acknowledged push a power cut loses nothing, every worker sees it at once,
and a folder listing is the list of names, with no second copy that could disagree. The design had a database with full
synchronisation and these files to rebuild it from; the files alone carry the same promises with one thing less to
repair, and a read of one costs 20 us behind the memory that answers first.

    <folder>/<repository>/_tags/<tag>                         the digest
    <folder>/<repository>/_manifests/<algorithm>-<hex>        JSON: media type, size, subject ...
    <folder>/<repository>/_blobs/<algorithm>-<hex>            the size
    <folder>/<repository>/_referrers/<alg>-<hex>/<alg>-<hex>  empty: the second refers to the first

No part of a repository's name begins with an underscore, and no tag with a dot, so that names, kinds and the files in
the making never meet. Blocks; every call may come from a thread.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator

from proxy.store.files import sync_folder


class Links:
    """The links of one folder. Names are parts of a path that somebody else has validated."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.makedirs(folder, exist_ok=True)

    def put(self, text: str, *parts: str) -> None:
        """Write a link, or another text to it, durably. Raises OSError."""
        path = os.path.join(self.folder, *parts)
        folder, name = os.path.split(path)
        _make_folder(folder)
        making = os.path.join(folder, f".{name[:100]}.{secrets.token_hex(8)}")
        try:
            with open(making, "x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.rename(making, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(making)
            raise
        sync_folder(folder)

    def get(self, *parts: str) -> str | None:
        """A link's text, None where there is none; bytes that are no text stand in it as U+FFFD, and what reads it will
        not understand it. Raises OSError."""
        try:
            with open(os.path.join(self.folder, *parts), encoding="utf-8", errors="replace") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def remove(self, *parts: str) -> bool:
        """Remove a link durably; whether there was one. Raises OSError."""
        path = os.path.join(self.folder, *parts)
        try:
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        sync_folder(os.path.dirname(path))
        return True

    def names(self, *parts: str) -> list[str]:
        """The names of the links in a folder, sorted by their bytes. Raises OSError."""
        try:
            with os.scandir(os.path.join(self.folder, *parts)) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def repositories(self) -> Iterator[str]:
        """Every repository that ever held something, by path. Raises OSError."""
        for folder, names, _ in os.walk(self.folder):
            names.sort()
            if any(name.startswith("_") for name in names):
                yield os.path.relpath(folder, self.folder)
            names[:] = [name for name in names if not name.startswith("_")]


def _make_folder(path: str) -> None:
    """A folder and those above it, each durable in the one above."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    _make_folder(above)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o750)
    sync_folder(above)
