"""Small files that name things: pushed content, sets of pins. Each is durable before anybody is told of it.

A link is a file whose path says what is linked and whose text says the rest. It is written elsewhere, fsynced,
renamed, and its folder fsynced; so after an acknowledged push a power cut loses nothing, every worker sees it at once,
and a folder listing is the list of names, with no second copy that could disagree. The design had a database with full
synchronisation and these files to rebuild it from; the files alone carry the same promises with one thing less to
repair, and a read of one costs 20 us behind the memory that answers first.

    <folder>/<repository>/_tags/<tag>                         the digest
    <folder>/<repository>/_manifests/<algorithm>-<hex>        JSON: media type, size, subject ...
    <folder>/<repository>/_blobs/<algorithm>-<hex>            the size
    <folder>/<repository>/_referrers/<alg>-<hex>/<alg>-<hex>  empty: the second refers to the first
    <folder>/.making/<random>                                 on its way; what a kill left is swept

A link's time says when it was last asked for by somebody who pushes: what has not been for long, and leads to nothing
that is needed, may be collected (care/collect.py).

No part of a repository's name begins with an underscore, and no tag with a dot, so that names, kinds and the files in
the making never meet. Blocks; every call may come from a thread.
"""

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterator

from proxy.errors import DigestInvalid
from proxy.oci.digest import Digest
from proxy.store.files import make_folder, sync_folder

_MAKING = ".making"
BLOBS, MANIFESTS, REFERRERS, TAGS = "_blobs", "_manifests", "_referrers", "_tags"


class Links:
    """The links of one folder. Names are parts of a path that somebody else has validated."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        self._durable = {folder}

    def put(self, text: str, *parts: str) -> None:
        """Write a link, or another text to it, durably. Raises OSError."""
        path = os.path.join(self.folder, *parts)
        folder = os.path.dirname(path)
        make_folder(folder, self._durable)
        making = os.path.join(self.folder, _MAKING, secrets.token_hex(16))
        os.makedirs(os.path.dirname(making), exist_ok=True)
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

    def settle(self, *parts: str) -> None:
        """What is seen of a folder is there to stay, also what somebody else put there a moment ago. Raises OSError."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            sync_folder(os.path.join(self.folder, *parts))

    def sweep(self, age: float) -> None:
        """Remove what was on its way for `age` seconds and never arrived. Raises OSError."""
        before = time.time() - age
        with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(self.folder, _MAKING)) as entries:
            for entry in entries:
                if entry.stat().st_mtime < before:
                    os.unlink(entry.path)

    def get(self, *parts: str) -> str | None:
        """A link's text, None where there is none; bytes that are no text stand in it as U+FFFD, and what reads it will
        not understand it. Raises OSError."""
        try:
            with open(os.path.join(self.folder, *parts), encoding="utf-8", errors="replace") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def time(self, *parts: str) -> float | None:
        """When a link was written or touched, wall-clock seconds; None where there is none. Raises OSError."""
        try:
            return os.stat(os.path.join(self.folder, *parts)).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None

    def touch(self, *parts: str) -> bool:
        """Give a link the time of now; whether there was one. Not durable: what a power cut takes of it is the time.
        Raises OSError."""
        try:
            os.utime(os.path.join(self.folder, *parts))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def discard(self, *parts: str) -> None:
        """Remove a link; it is durable after `settle` of its folder. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.folder, *parts))

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


def parts_of(repository: str) -> list[str]:
    """A repository's name as the folders of its links."""
    return repository.split("/")


def file_of(digest: Digest) -> str:
    """A digest as the name of a link."""
    return f"{digest.algorithm}-{digest.hex}"


def digest_of(name: str) -> Digest | None:
    """The digest a link is named by; None for a file that somebody else has put there."""
    try:
        return Digest.parse(name.replace("-", ":", 1))
    except DigestInvalid:
        return None


def lock_of(folder: str, repository: str) -> str:
    """The lock file of whoever writes a repository's names, in a folder of them."""
    return os.path.join(folder, hashlib.sha256(repository.encode()).hexdigest()[:32])
