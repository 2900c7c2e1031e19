"""Finished files as the repositories of one upstream may show them, whatever has become of the rows about them.

A finished file was verified when it was made. Here stands what is done where something speaks against it, and where
nothing speaks for it any more:

* its size is not the one that is known: it is read whole. Right bytes correct the row; wrong ones leave the store, and
  the request is a miss that fetches them again. A size that somebody merely told cannot get a good file removed.
* a manifest is hashed whenever it is read from disk: it is small, and memory answers the next time.
* the index was lost and the upstream cannot be asked: what carries the public mark (store/files.py) is shown all the
  same, after it was read whole, to repositories of upstreams without credentials. A manifest must say by itself that
  it is one, because the mark does not tell. Tags come from the books of what was asked for.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from proxy import policy
from proxy.config import Upstream
from proxy.errors import Unavailable
from proxy.fill.turn import Turns
from proxy.oci.digest import Digest
from proxy.oci.media import MANIFEST_LIMIT, Descriptor, Manifest, own_media_type
from proxy.policy import TagFacts
from proxy.ports import Answer, Ask, OpenBlob
from proxy.registry.renewal import STALE
from proxy.registry.rows import Rows
from proxy.store.catalogue import Catalogue
from proxy.store.files import Files, is_public
from proxy.store.quarantine import Quarantine, matches

_BAD = -1


class Finished:
    """The finished files of one data folder, seen through one upstream's rows."""

    def __init__(self, rows: Rows, turns: Turns, files: Files, quarantine: Quarantine, catalogue: Catalogue) -> None:
        self._rows = rows
        self._turns = turns
        self._files = files
        self._quarantine = quarantine
        self._catalogue = catalogue

    async def sound(self, ask: Ask, opened: OpenBlob, prove: Callable[[Ask, Digest], Awaitable[Descriptor]]) -> bool:
        """Whether an open blob may be sent: False when it was bad, and is gone from the store. `prove` asks the
        upstream whether this repository has it. Raises RegistryError where it may not be shown, OSError."""
        if self._rows.blob(ask.repo, opened.digest) is None:
            try:
                await prove(ask, opened.digest)
            except Unavailable:
                if not self._everybodys(ask, opened):
                    raise
        return await self._whole(ask, opened)

    async def _whole(self, ask: Ask, opened: OpenBlob) -> bool:
        if opened.size == self._expected(ask, opened.digest):
            return True

        async def check() -> int:
            size = await asyncio.to_thread(self._check, opened.digest)
            if size != _BAD:
                await self._rows.put_blob(ask.repo, opened.digest, verified=size)
            return size

        return await self._turns.run(f"v:{opened.digest}", lambda: self._checked(ask, opened), check) == opened.size

    def _expected(self, ask: Ask, digest: Digest) -> int | None:
        """The size as it was verified, else as this repository was told."""
        said = self._rows.blob(ask.repo, digest)
        return said.size if said is not None and said.size is not None else self._rows.told_size(ask.repo, digest)

    def _checked(self, ask: Ask, opened: OpenBlob) -> int | None:
        """What somebody else has found out meanwhile."""
        said = self._rows.blob(ask.repo, opened.digest)
        if said is not None and said.size == opened.size:
            return said.size
        return None if self._files.is_at(opened.digest, opened.fd) else _BAD

    def _check(self, digest: Digest) -> int:
        """Read the file, through a descriptor of our own: whoever asked may leave. Its size, _BAD when it is gone."""
        opened = self._files.open(digest)
        if opened is None:
            return _BAD
        try:
            if matches(opened):
                return opened.size
            self._quarantine.take(digest, opened.fd, "found when it was opened")
            return _BAD
        finally:
            opened.close()

    def _everybodys(self, ask: Ask, opened: OpenBlob) -> bool:
        """Whether a blob may be shown though no row says so, where nobody can be asked."""
        if not self._rows.public or self._rows.manifest(ask.repo, opened.digest) is not None:
            return False
        return is_public(opened.fd)

    def manifest(self, ask: Ask, digest: Digest) -> Manifest | None:
        """A manifest that is here and that this repository may show. Raises OSError."""
        said = self._rows.manifest(ask.repo, digest)
        content = self._content(digest, public=False) if said is not None else None
        return None if said is None or content is None else Manifest(replace(said, size=len(content)), content)

    async def or_unlisted(self, ask: Ask, digest: Digest, asked: Awaitable[Answer[Manifest]]) -> Answer[Manifest]:
        """What the upstream answers, or what is here though no row says so. Raises RegistryError, OSError."""
        try:
            return await asked
        except Unavailable:
            if (found := self._unlisted_manifest(digest)) is None:
                raise
            await self._rows.put_manifest(ask.repo, found)
            return Answer(found, "hit")

    async def or_unlisted_size(self, ask: Ask, digest: Digest, asked: Awaitable[Descriptor]) -> Answer[Descriptor]:
        """The same for a blob's size. Raises RegistryError, OSError."""
        try:
            return Answer(await asked, "miss")
        except Unavailable:
            opened = self._files.open(digest)
            if opened is None:
                raise
            with contextlib.closing(opened):
                if not self._everybodys(ask, opened) or not await self._whole(ask, opened):
                    raise
                return Answer(Descriptor(digest, opened.size), "hit")

    async def or_remembered(self, settings: Upstream, key: str, current: Awaitable[Answer[str]]) -> Answer[str]:
        """A tag's digest as it stands, or as the books say where its row is lost. Raises RegistryError."""
        try:
            return await current
        except Unavailable:
            if self._rows.kept(key) is not None:
                raise  # too old to be answered
            repository, _, tag = key.removeprefix("t:").rpartition(":")
            with contextlib.suppress(OSError):
                for named in await asyncio.to_thread(self._catalogue.images, repository):
                    facts = TagFacts(named.asked, 0.0)
                    usable = policy.usable_stale(facts, settings.tag_ttl, settings.stale_if_error, time.time())
                    if named.reference == tag and usable:
                        return Answer(named.digest, "stale", STALE)
            raise

    def _unlisted_manifest(self, digest: Digest) -> Manifest | None:
        content = self._content(digest, public=True) if self._rows.public else None
        media_type = own_media_type(content) if content is not None else None
        if content is None or media_type is None:
            return None
        return Manifest(Descriptor(digest, len(content), media_type), content)

    def _content(self, digest: Digest, *, public: bool) -> bytes | None:
        opened = self._files.open(digest)
        if opened is None:
            return None
        try:
            if public and not is_public(opened.fd):
                return None
            content = os.pread(opened.fd, MANIFEST_LIMIT + 1, 0)
            if digest.matches(content):
                return content
            if opened.size <= MANIFEST_LIMIT:  # a layer has been asked for by the wrong name
                self._quarantine.take(digest, opened.fd, "found when it was opened")
            return None
        finally:
            opened.close()
