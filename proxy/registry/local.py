"""Pushed content: repositories of our own, durable, never evicted. No upstream, no copy of anything cached.

Bytes lie in a store of their own, named by digest; names are links (store/links.py). The order of a push is bytes,
then links, then tags, so that a crash leaves garbage that can be swept and never a name without content. Whoever
writes a repository's names holds its lock; readers need none. Whoever collects what nothing needs (care/collect.py)
holds it too, and leaves what somebody who pushes was told of lately (store/asked.py). A manifest in memory is good
while the board's word for its name is unchanged, and every change of a name changes it: after a 201 every worker
answers with the new content.
"""

import asyncio
import json
import math
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from proxy.errors import BlobUnknown, Damaged, DigestInvalid, ManifestBlobUnknown, ManifestUnknown, NameUnknown
from proxy.oci.digest import Digest
from proxy.oci.media import BLOB, Descriptor, Manifest
from proxy.oci.names import Reference, Repo, Tag
from proxy.oci.pushed import Needs, needs
from proxy.ports import Answer, Ask, Filling, OpenBlob
from proxy.registry.memory import Memory
from proxy.store.asked import Asked
from proxy.store.board import Board
from proxy.store.files import Files
from proxy.store.links import BLOBS, MANIFESTS, REFERRERS, TAGS, Links, digest_of, file_of, lock_of, parts_of
from proxy.store.lock import hold_named
from proxy.store.uploads import Uploads

NAME = "local"
_POLL = 0.01


@dataclass(frozen=True, slots=True)
class Shelves:
    """Where pushed content lies. `lend` gives the path of a cached blob that everybody may read, None where none is;
    `ttl` is for how many seconds what a pusher was told stays true; `sparse`: an index need not have all it names."""

    files: Files
    links: Links
    uploads: Uploads
    locks: str
    lend: Callable[[Digest], str | None]
    ttl: float
    sparse: bool


class Local:
    """The repositories pushed here. Satisfies ports.Pushable."""

    def __init__(self, shelves: Shelves, memory: Memory, board: Board) -> None:
        self.name = NAME
        self.uploads = shelves.uploads
        self.files = shelves.files
        self._links = shelves.links
        self._yard = shelves.uploads.yard
        self._lend = shelves.lend
        self._sparse = shelves.sparse
        self._asked = Asked(shelves.links, self._yard, shelves.ttl)
        self._locks = shelves.locks
        self._memory = memory
        self._board = board
        os.makedirs(shelves.locks, exist_ok=True)

    def holds(self, repo: Repo) -> bool:
        """Whether there is anything in a repository: then it is ours altogether. Raises OSError."""
        return any(self._links.names(*parts_of(repo), kind) for kind in (MANIFESTS, TAGS, BLOBS))

    async def resolve(self, ask: Ask, reference: Reference) -> Answer[Descriptor]:
        answer = await self.manifest(ask, reference)
        return Answer(answer.value.descriptor, answer.result)

    async def manifest(self, ask: Ask, reference: Reference) -> Answer[Manifest]:
        key = _key(ask.repo, reference)
        if isinstance(reference, Digest):
            await self._asked.note(ask.repo, MANIFESTS, reference)
        known = self._memory.get(key)
        if known is not None:
            return known
        word = self._memory.word(key)
        manifest = self._manifest(ask.repo, reference)
        self._memory.put(key, manifest, word, math.inf)
        return Answer(manifest, "hit")

    def _manifest(self, repo: Repo, reference: Reference) -> Manifest:
        digest = reference if isinstance(reference, Digest) else self._tagged(repo, reference)
        text = self._links.get(*parts_of(repo), MANIFESTS, file_of(digest)) if digest is not None else None
        opened = self.files.open(digest) if digest is not None and text is not None else None
        if digest is None or text is None or opened is None:
            raise ManifestUnknown(f"no manifest {reference} in {repo} here")
        try:
            content = os.pread(opened.fd, opened.size, 0)
        finally:
            opened.close()
        try:
            media_type = str(json.loads(text)["mediaType"])
        except (ValueError, LookupError, TypeError):
            raise Damaged(f"manifest {digest.short} of {repo}") from None
        if not digest.matches(content):
            raise Damaged(f"manifest {digest.short} of {repo}")
        return Manifest(Descriptor(digest, len(content), media_type), content)

    def _tagged(self, repo: Repo, tag: Tag) -> Digest | None:
        text = self._links.get(*parts_of(repo), TAGS, tag)
        try:
            return None if text is None else Digest.parse(text)
        except DigestInvalid:
            raise Damaged(f"tag {tag} of {repo}") from None

    async def stat(self, ask: Ask, digest: Digest) -> Answer[Descriptor]:
        opened = self._blob(ask.repo, digest)
        opened.close()
        if not await self._asked.note(ask.repo, BLOBS, digest):
            raise BlobUnknown(f"no blob {digest.short} in {ask.repo} here")
        return Answer(Descriptor(digest, opened.size, BLOB), "hit")

    async def blob(self, ask: Ask, digest: Digest) -> Answer[OpenBlob | Filling]:
        return Answer(self._blob(ask.repo, digest), "hit")

    def _blob(self, repo: Repo, digest: Digest) -> OpenBlob:
        opened = self.files.open(digest) if self.has_blob(repo, digest) else None
        if opened is None:
            raise BlobUnknown(f"no blob {digest.short} in {repo} here")
        return opened

    def has_blob(self, repo: Repo, digest: Digest) -> bool:
        """Whether a repository holds a blob. Raises OSError."""
        return self._links.get(*parts_of(repo), BLOBS, file_of(digest)) is not None

    async def tags(self, ask: Ask) -> Answer[Sequence[str]]:
        found = await asyncio.to_thread(self._links.names, *parts_of(ask.repo), TAGS)
        if not found and not await asyncio.to_thread(self.holds, ask.repo):
            raise NameUnknown(f"no repository {ask.repo} here")
        return Answer(found, "hit")

    async def referrers(self, ask: Ask, digest: Digest) -> Answer[Sequence[Mapping[str, Any]]]:
        return Answer(await asyncio.to_thread(self._referrers, ask.repo, digest), "hit")

    def _referrers(self, repo: Repo, subject: Digest) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for name in self._links.names(*parts_of(repo), REFERRERS, file_of(subject)):
            if (digest := digest_of(name)) is None:
                continue
            try:
                manifest = self._manifest(repo, digest)
            except ManifestUnknown:
                continue  # deleted, or a crash between the link and its manifest's
            found.append(needs(manifest.content).described(manifest.descriptor))
        return found

    async def repositories(self) -> list[str]:
        """Every repository that holds something, sorted by bytes."""
        found = await asyncio.to_thread(lambda: list(self._links.repositories()))
        held = await asyncio.to_thread(lambda: [name for name in found if self.holds(Repo(name))])
        return sorted(held)

    def sweep(self, age: float) -> None:
        """Forget uploads nobody has written to for `age` seconds. Blocks. Raises OSError."""
        self.uploads.sweep(age)
        self._links.sweep(age)

    # Pushing

    async def add_blob(self, repo: Repo, digest: Digest, size: int) -> None:
        """A blob whose bytes are durable belongs to a repository. Raises OSError."""
        await asyncio.to_thread(self._add, repo, digest, size)

    def _add(self, repo: Repo, digest: Digest, size: int) -> None:
        with self._yard.keeping(digest):
            self._links.put(str(size), *parts_of(repo), BLOBS, file_of(digest))

    async def mount(self, repo: Repo, digest: Digest, source: Repo | None) -> bool:
        """Let a repository have a blob that another one has, or that is cached for everybody; whether there was one.

        A source that holds nothing pushed may be an upstream's, of an image that was pulled here and is pushed under a
        name of one's own. Raises NoSpace, OSError."""
        held = source is not None and self.has_blob(source, digest)
        if source is not None and not held and self._lend(digest) is None:
            return False
        return await asyncio.to_thread(self._mount, repo, digest, not held)

    def _mount(self, repo: Repo, digest: Digest, anywhere: bool) -> bool:
        cached = self._lend(digest) if anywhere and not self.files.has(digest) else None
        if cached is not None:
            self._borrow(digest, cached)
        with self._yard.keeping(digest):
            if not (self.files.settle(digest) and self.files.touch(digest)):
                return False
            self._links.put(str(self.files.size(digest)), *parts_of(repo), BLOBS, file_of(digest))
        return True

    def _borrow(self, digest: Digest, cached: str) -> None:
        """A second name for the bytes, and counted as what was pushed. Raises NoSpace, OSError."""
        with self._yard.changing(digest):
            if self.files.has(digest):
                return
            size = _size(cached)
            self._yard.take(size)
            if not self.files.take_over(cached, digest):
                self._yard.give(size)

    async def put_manifest(self, repo: Repo, reference: Reference, manifest: Manifest, tags: Sequence[Tag]) -> None:
        """Bytes, links, tags. Raises ManifestInvalid, ManifestBlobUnknown, NoSpace, OSError."""
        said = needs(manifest.content)
        digest = manifest.descriptor.digest
        named = [*tags, *([reference] if isinstance(reference, Tag) else [])]
        names: list[Reference] = [digest, *named]
        async with self._alone(repo):
            await asyncio.to_thread(self._check_children, repo, said)
            try:
                await asyncio.to_thread(self._write, repo, manifest, said, named)
            finally:  # a disk that failed at the second tag has taken the first
                for name in names:
                    self._board.change(_key(repo, name))

    def _check_children(self, repo: Repo, said: Needs) -> None:
        """A child that another client is pushing at this moment may be seen before it is durable: it is made so here,
        else a power cut could leave the manifest and take the child."""
        missing = [child for child in said.blobs if not self.has_blob(repo, child)]
        if not self._sparse:
            missing += [child for child in said.manifests if self._link(repo, child) is None]
        if missing:
            raise ManifestBlobUnknown(f"{repo} has no {missing[0]}, which the manifest names; push it first")
        for kind in [*([BLOBS] if said.blobs else []), *([MANIFESTS] if said.manifests else [])]:
            self._links.settle(*parts_of(repo), kind)

    def _link(self, repo: Repo, digest: Digest) -> str | None:
        return self._links.get(*parts_of(repo), MANIFESTS, file_of(digest))

    def _write(self, repo: Repo, manifest: Manifest, said: Needs, tags: Sequence[Tag]) -> None:
        digest, path = manifest.descriptor.digest, parts_of(repo)
        row = {"mediaType": manifest.descriptor.media_type, "size": len(manifest.content)}
        with self._yard.changing(digest):
            self.uploads.keep(self.files, digest, manifest.content)
            if said.subject is not None:
                self._links.put("", *path, REFERRERS, file_of(said.subject), file_of(digest))
            self._links.put(json.dumps(row), *path, MANIFESTS, file_of(digest))
        for tag in tags:
            self._links.put(str(digest), *path, TAGS, tag)

    async def delete_manifest(self, repo: Repo, reference: Reference) -> None:
        """A tag alone, or a manifest with the tags that name it. Raises ManifestUnknown, OSError."""
        async with self._alone(repo):
            await asyncio.to_thread(self._delete, repo, reference)

    def _delete(self, repo: Repo, reference: Reference) -> None:
        path = parts_of(repo)
        if not isinstance(reference, Digest):
            if not self._remove(repo, reference, TAGS, reference):
                raise ManifestUnknown(f"no tag {reference} in {repo} here")
            return
        said = needs(self._manifest(repo, reference).content)
        for tag in self._links.names(*path, TAGS):
            if self._tagged(repo, Tag(tag)) == reference:
                self._remove(repo, Tag(tag), TAGS, tag)
        self._remove(repo, reference, MANIFESTS, file_of(reference))
        if said.subject is not None:
            self._links.remove(*path, REFERRERS, file_of(said.subject), file_of(reference))

    def _remove(self, repo: Repo, reference: Reference, kind: str, name: str) -> bool:
        """A name that is gone, or was found gone, is gone from every worker's memory too."""
        try:
            return self._links.remove(*parts_of(repo), kind, name)
        finally:
            self._board.change(_key(repo, reference))

    def forget(self, repository: str, digest: Digest) -> None:
        """A manifest that stood there alone, without a tag, has been removed by somebody else."""
        self._board.change(_key(Repo(repository), digest))

    async def delete_blob(self, repo: Repo, digest: Digest) -> None:
        """A repository no longer has a blob; its bytes stay for the others. Raises BlobUnknown, OSError."""
        async with self._alone(repo):
            if not await asyncio.to_thread(self._links.remove, *parts_of(repo), BLOBS, file_of(digest)):
                raise BlobUnknown(f"no blob {digest.short} in {repo} here")

    @asynccontextmanager
    async def _alone(self, repo: Repo) -> AsyncIterator[None]:
        """The only writer of a repository's names on this machine."""
        path = lock_of(self._locks, repo)
        while (held := hold_named(path)) is None:
            await asyncio.sleep(_POLL)
        try:
            yield
        finally:
            held.release()


def _size(path: str) -> int:
    with suppress(FileNotFoundError):
        return os.stat(path).st_size
    return 0


def _key(repo: Repo, reference: Reference) -> str:
    return f"t:{NAME}/{repo}:{reference}"
