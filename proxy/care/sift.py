"""One repository's part of gc: what nothing in it needs loses its link, under the lock of whoever writes its names.

It is looked at twice. A look without the lock finds out whether there is anything to do, and reads every manifest;
then, under the lock, only the manifests that came meanwhile are read, and a batch goes:

    gc looks                          a push puts a manifest of an old blob: it checks the children, then writes
    gc unlinks the blob               the manifest stands without it

A link that somebody was told of meanwhile has a new time, and is looked at once more alone with its digest
(store/yard.py, store/asked.py). Manifests go before the blobs they need, parents before children, and what a folder
lists is on the disk before the next kind goes: cut off anywhere, nothing stands without what it needs.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from proxy.care import reach
from proxy.care.reach import Said
from proxy.errors import ManifestInvalid
from proxy.oci.digest import Digest
from proxy.oci.pushed import named, needs
from proxy.store.files import Files
from proxy.store.links import BLOBS, MANIFESTS, REFERRERS, TAGS, Links, digest_of, file_of, lock_of, parts_of
from proxy.store.lock import hold_named
from proxy.store.yard import Yard

_BATCH = 200
_POLL = 0.01


@dataclass(frozen=True, slots=True)
class Shelves:
    """Where pushed content lies, as far as gc goes. `locks` is the folder of the repositories' locks; `forget` voids
    what workers remember of a repository's manifest."""

    files: Files
    links: Links
    locks: str
    yard: Yard
    forget: Callable[[str, Digest], None]


class Unreadable(Exception):
    """A manifest or tag whose meaning nobody can tell: what it needs is not known."""


@dataclass(frozen=True, slots=True)
class Going:
    """What one look found: manifests in the order they go, then blobs."""

    manifests: Sequence[Digest]
    blobs: Sequence[Digest]


class Sift:
    """One repository. `before` is the time that links must be older than to go; with `untagged` manifests that nothing
    reaches go too."""

    def __init__(self, shelves: Shelves, repository: str, before: float, untagged: bool) -> None:
        self._shelves = shelves
        self._files = shelves.files
        self._links = shelves.links
        self._name = repository
        self._parts = parts_of(repository)
        self._before = before
        self._untagged = untagged
        self._said: dict[Digest, Said] = {}

    def linked(self, kind: str) -> list[Digest]:
        """Every digest that has a link of this kind now. Blocks. Raises OSError."""
        found = map(digest_of, self._links.names(*self._parts, kind))
        return [digest for digest in found if digest is not None]

    def look(self) -> Going:
        """What may go as things stand. Blocks. Raises Unreadable, OSError."""
        manifests = self.linked(MANIFESTS)
        self._said = {digest: self._said.get(digest) or self._read(digest) for digest in manifests}
        stand = reach.standing(self._said, self._roots(manifests))
        needed = reach.blobs(self._said, stand)
        blobs = [digest for digest in self.linked(BLOBS) if digest not in needed and self._is_old(BLOBS, digest)]
        return Going(reach.parents_first(self._said, self._said.keys() - stand), blobs)

    def remove(self) -> Iterator[Going]:
        """Take it out, a batch at a time: what really went. Blocks. Raises Unreadable, OSError."""
        for kind in (MANIFESTS, BLOBS):
            while True:
                with self._alone():
                    going = self.look()
                    waiting = going.manifests if kind == MANIFESTS else going.blobs
                    gone = [digest for digest in waiting[:_BATCH] if self._take(kind, digest)]
                if gone:
                    self._links.settle(*self._parts, kind)
                    yield Going(gone, ()) if kind == MANIFESTS else Going((), gone)
                if len(waiting) <= _BATCH:
                    break

    def _take(self, kind: str, digest: Digest) -> bool:
        with self._shelves.yard.changing(digest):
            if not self._is_old(kind, digest):
                return False
            self._links.discard(*self._parts, kind, file_of(digest))
        if kind == MANIFESTS:
            subject = self._said[digest].subject
            if subject is not None:
                self._links.remove(*self._parts, REFERRERS, file_of(subject), file_of(digest))
            self._shelves.forget(self._name, digest)
        return True

    def _roots(self, manifests: Sequence[Digest]) -> Sequence[Digest]:
        if not self._untagged:
            return manifests
        tags = [self._tagged(tag) for tag in self._links.names(*self._parts, TAGS)]
        return [*filter(None, tags), *(digest for digest in manifests if not self._is_old(MANIFESTS, digest))]

    def _tagged(self, tag: str) -> Digest | None:
        text = self._links.get(*self._parts, TAGS, tag)
        if text is None:
            return None  # removed meanwhile
        digest = digest_of(text.replace(":", "-", 1))
        if digest is None:
            raise Unreadable(f"tag {tag}")
        return digest

    def _read(self, digest: Digest) -> Said:
        opened = self._files.open(digest)
        if opened is None:
            raise Unreadable(f"manifest {digest}")
        try:
            content = os.pread(opened.fd, opened.size, 0)
        finally:
            opened.close()
        try:
            if digest.matches(content):
                return Said(named(content), needs(content).subject)
        except ManifestInvalid:
            pass
        raise Unreadable(f"manifest {digest}")

    def _is_old(self, kind: str, digest: Digest) -> bool:
        at = self._links.time(*self._parts, kind, file_of(digest))
        return at is not None and at < self._before

    @contextmanager
    def _alone(self) -> Iterator[None]:
        path = lock_of(self._shelves.locks, self._name)
        while (held := hold_named(path)) is None:
            time.sleep(_POLL)
        try:
            yield
        finally:
            held.release()
