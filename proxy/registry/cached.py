"""The pull-through registry: what is here is answered from here, what is not is fetched once and kept.

Manifests are small and fetched whole, in turns (fill/turn.py); blobs arrive through fills. Both live in the same
content-addressed store; what a repository may show stands in the rows.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from proxy import metrics, policy
from proxy.config import Upstream
from proxy.errors import CannotKeep, LoopDetected, ManifestUnknown, Unavailable
from proxy.fill.flight import Flights
from proxy.fill.outcomes import Outcomes
from proxy.fill.tail import Tail
from proxy.fill.turn import Turns
from proxy.oci.digest import Digest
from proxy.oci.media import Descriptor, Manifest, listed
from proxy.oci.names import Reference, Tag
from proxy.ports import Answer, Ask, BlobStore, Filling, OpenBlob
from proxy.registry.asking import Asking
from proxy.registry.content import keep_content
from proxy.registry.finished import Finished
from proxy.registry.memory import Memory
from proxy.registry.proof import Proof
from proxy.registry.renewal import Renewals
from proxy.registry.rows import Rows
from proxy.registry.source import UpstreamSource
from proxy.store.catalogue import Catalogue
from proxy.store.files import Files
from proxy.store.quarantine import Quarantine
from proxy.upstream.client import Client

T = TypeVar("T")
_log = logging.getLogger("tidegate.registry")
_LEAST = 1.0
"""Seconds a step of an answer gets however late it is."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What every pull-through registry of a worker shares."""

    store: BlobStore
    flights: Flights
    turns: Turns
    outcomes: Outcomes
    memory: Memory
    catalogue: Catalogue
    files: Files
    quarantine: Quarantine


class Cached:
    """One upstream, pulled through. Satisfies ports.Registry."""

    def __init__(
        self, settings: Upstream, clients: Sequence[Client], rows: Rows, renewals: Renewals, rooms: Rooms
    ) -> None:
        self.name = settings.name
        self._settings = settings
        self._clients = clients
        self._asking = Asking(settings, clients, rooms.outcomes)
        self._rows = rows
        self._proof = Proof(rows, self._asking, rooms.store, rooms.turns, rooms.outcomes)
        self._renewals = renewals
        self._rooms = rooms
        self._finished = Finished(rows, rooms.turns, rooms.files, rooms.quarantine, rooms.catalogue)

    async def resolve(self, ask: Ask, reference: Reference) -> Answer[Descriptor]:
        answer = await self.manifest(ask, reference)
        return Answer(answer.value.descriptor, answer.result, answer.warning)

    async def manifest(self, ask: Ask, reference: Reference) -> Answer[Manifest]:
        key = f"t:{self._rows.full(ask.repo)}:{reference}"
        known = self._rooms.memory.get(key)
        if known is not None:
            self._rooms.catalogue.touch(known.value.descriptor.digest.text)
            return known
        word = self._rooms.memory.word(key)
        if isinstance(reference, Digest):
            answer = await self._by_digest(ask, reference)
            self._rooms.memory.put(key, answer.value, word, math.inf)
            return answer
        current = self._renewals.current(key, ask, lambda known: self._renew_tag(ask, reference, known))
        named: Answer[str] = await self._finished.or_remembered(self._settings, key, current)
        answer = await self._by_digest(ask, Digest.parse(named.value))
        if named.result == "hit" and (kept := self._rows.kept(key)) is not None and kept.value == named.value:
            until = math.inf if self._settings.offline else kept.checked_at + self._settings.tag_ttl
            self._rooms.memory.put(key, answer.value, word, until)
        return Answer(answer.value, named.result if answer.result == "hit" else answer.result, named.warning)

    async def _renew_tag(self, ask: Ask, tag: Tag, known: str | None) -> tuple[str, bool]:
        """One HEAD where the tag is known, and the manifest only when it changed; the manifest at once where not."""
        if known is not None:
            head = await self._asking.first(lambda client: client.head(ask, tag))
            if head.digest is not None:
                if str(head.digest) == known or self._held(ask, tag, known, head.digest):
                    return known, True
                await self._by_digest(ask, head.digest)
                await self._name(ask, tag, head.digest)
                return str(head.digest), False
        manifest = await self._asking.first(lambda client: client.manifest(ask, tag))
        await self._keep(ask, manifest)
        found = manifest.descriptor.digest
        if known is not None and str(found) != known and self._held(ask, tag, known, found):
            return known, True
        await self._name(ask, tag, found)
        return str(found), str(found) == known

    async def _name(self, ask: Ask, reference: Reference, digest: Digest) -> None:
        """For the books: this image was asked for. A disk that cannot be written costs the line, not the answer."""
        with contextlib.suppress(OSError):
            name = self._rows.full(ask.repo), str(reference), str(digest)
            await asyncio.to_thread(self._rooms.catalogue.name, *name)

    def _held(self, ask: Ask, tag: Tag, known: str, found: Digest) -> bool:
        """A tag moved. One that reads as a version is worth a line and a count, and is held where that is chosen."""
        if not policy.looks_like_version(tag):
            return False
        metrics.TAGS_MOVED.labels(self.name).inc()
        held = self._settings.on_move == "hold"
        what = "held at what is known" if held else "followed"
        _log.warning("%s/%s:%s moved from %s to %s: %s", self.name, ask.repo, tag, known[:19], found.short, what)
        return held

    async def _by_digest(self, ask: Ask, digest: Digest) -> Answer[Manifest]:
        """A manifest named by digest: here, or fetched once."""
        if (found := self._finished.manifest(ask, digest)) is not None:
            self._rooms.catalogue.touch(digest.text)
            return Answer(found, "hit")
        key = f"m:{self._rows.full(ask.repo)}@{digest}"
        joined = self._rooms.turns.running(key)

        def look() -> Answer[Manifest] | None:
            found = self._finished.manifest(ask, digest)
            if found is None and (refusal := self._rooms.outcomes.refusal(key, ask.arrived)) is not None:
                raise refusal
            return None if found is None else Answer(found, "coalesced")

        async def fetch() -> Answer[Manifest]:
            manifest = await self._asking.refusing(key, lambda client: client.manifest(ask, digest))
            await self._keep(ask, manifest)
            await self._name(ask, digest, digest)
            return Answer(manifest, "miss")

        asked = self._asking.in_time(self._rooms.turns.run(key, look, fetch))
        answer = await self._finished.or_unlisted(ask, digest, asked)
        return replace(answer, result="coalesced") if joined else answer

    async def _keep(self, ask: Ask, manifest: Manifest) -> None:
        """Rows first, then the file: a row without a file is a miss. A full disk costs the copy, not the answer."""
        await self._rows.put_manifest(ask.repo, manifest)
        try:
            await keep_content(self._rooms.store, manifest.descriptor.digest, manifest.content)
        except OSError as error:
            self._rooms.flights.cannot_keep(error)

    async def stat(self, ask: Ask, digest: Digest) -> Answer[Descriptor]:
        size = self._proof.size(ask, digest)
        if size is not None:
            return Answer(Descriptor(digest, size), "hit")
        return await self._finished.or_unlisted_size(ask, digest, self._proof.get(ask, digest))

    async def blob(self, ask: Ask, digest: Digest) -> Answer[OpenBlob | Filling]:
        opened = self._rooms.store.open(digest)
        if opened is None:
            return await self._fill(ask, digest)
        try:
            sound = await self._finished.sound(ask, opened, self._proof.get)
        except BaseException:
            opened.close()
            raise
        if not sound:
            opened.close()
            return await self._fill(ask, digest)
        self._rooms.catalogue.touch(digest.text)
        return Answer(opened, "hit")

    async def _fill(self, ask: Ask, digest: Digest) -> Answer[OpenBlob | Filling]:
        """The blob as it arrives. Two failures are not the asker's: a loop that somebody else's Via has made, and a
        disk that does not take it."""
        while True:
            joined = self._rooms.flights.running(digest)
            try:
                return await self._arriving(ask, digest)
            except LoopDetected:
                if not joined:
                    raise
            except CannotKeep as error:
                size = self._rows.told_size(ask.repo, digest)
                return await self._pass_on(digest, self._sources(ask, size), size, error)

    def _sources(self, ask: Ask, size: int | None) -> list[UpstreamSource]:
        return [UpstreamSource(client, ask, self._rows, size) for client in self._clients]

    async def _arriving(self, ask: Ask, digest: Digest) -> Answer[OpenBlob | Filling]:
        """Join the fill, or start it. Having led is the proof that this repository has the blob; having read what
        somebody else downloads is none, so whoever may not see the digest yet asks for itself. All of it together has
        to be within the time an answer may take: clients give up after 30 s."""
        until = time.monotonic() + self._settings.egress.first_byte_deadline
        size = self._rows.told_size(ask.repo, digest)
        sources = self._sources(ask, size)
        flights = self._rooms.flights
        await self._proof.before_joining(ask, digest, lambda: flights.others(digest, sources[0]))
        joined = flights.running(digest)
        if not joined and not flights.keeps:
            raise CannotKeep("the cache cannot be written")
        fill = flights.board(digest, sources, ask.arrived, self._settings)
        tail = Tail(fill, sources[0], max(_LEAST, until - time.monotonic()), flights.passages)
        try:
            await tail.ready()
            if not self._proof.stands(ask, digest):
                await self._proof.get(ask, digest, max(_LEAST, until - time.monotonic()))
        except BaseException:
            tail.close()
            raise
        return Answer(tail, "coalesced" if joined or not fill.used else "miss")

    async def _pass_on(
        self, digest: Digest, sources: Sequence[UpstreamSource], size: int | None, why: CannotKeep
    ) -> Answer[OpenBlob | Filling]:
        """Without keeping it: the disk takes nothing now. Raises RegistryError."""
        try:
            passing = self._rooms.flights.passages.begin(digest, sources, size, why)
        except OSError as error:
            raise Unavailable(f"{why.message}, and cannot be passed on: {error.strerror}") from None
        try:
            await passing.ready(self._settings.egress.first_byte_deadline)
        except BaseException:
            passing.close()
            raise
        return Answer(passing, "miss")

    async def tags(self, ask: Ask) -> Answer[Sequence[str]]:
        async def renew(known: Sequence[str] | None) -> tuple[Sequence[str], bool]:
            found = await self._asking.first(lambda client: client.tags(ask))
            return found, found == known

        return await self._renewals.current(f"l:{self._rows.full(ask.repo)}", ask, renew)

    async def referrers(self, ask: Ask, digest: Digest) -> Answer[Sequence[Mapping[str, Any]]]:
        async def renew(
            known: Sequence[Mapping[str, Any]] | None,
        ) -> tuple[Sequence[Mapping[str, Any]], bool]:
            found = await self._asking.first(lambda client: self._referrers(client, ask, digest))
            return found, found == known

        return await self._renewals.current(f"l:{self._rows.full(ask.repo)}@{digest}", ask, renew)

    async def _referrers(self, client: Client, ask: Ask, digest: Digest) -> list[Mapping[str, Any]]:
        """The referrers API, else the specification's fallback tag, else none."""
        try:
            return await client.referrers(ask, digest)
        except ManifestUnknown:
            pass
        try:
            manifest = await client.manifest(ask, Tag(f"{digest.algorithm}-{digest.hex}"))
        except ManifestUnknown:
            return []
        return listed(manifest.content)
