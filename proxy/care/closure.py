"""What an image is made of, asked of its registry: index, chosen platforms' manifests, configs, layers, and what others
said of it (cosign's tags, referrers), which a policy inside may want to see on the day the way out is closed.

Manifests are fetched on the way, because only they say what follows; blobs are not. What cannot be learned is a
sentence under its name, never an exception: the rest is still worth having.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from proxy.errors import DigestInvalid, ManifestUnknown, NameUnknown, RegistryError
from proxy.oci.digest import Digest
from proxy.oci.media import Descriptor, Manifest, children
from proxy.oci.names import Reference, Repo, Tag
from proxy.oci.platforms import Platform, choose, entries
from proxy.ports import Ask, Registry

T = TypeVar("T")
_COSIGN = ("sig", "att", "sbom")
_AT_ONCE = 4
_DEEP = 4
_MOST = 20_000
_ABSENT = (ManifestUnknown, NameUnknown)


@dataclass(frozen=True, slots=True)
class Target:
    """An image that was found: its one name here, who has it, and its first manifest."""

    reference: str
    repository: str
    registry: Registry
    repo: Repo
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of content of an image; `platform` empty where it is for none or for all."""

    said: Descriptor
    platform: str
    manifest: bool


@dataclass(slots=True)
class Closure:
    """All parts by digest, and what could not be learned: a digest or tag, and why."""

    parts: dict[str, Part] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def held_by_registries(media_type: str) -> bool:
    """Whether a layer is to be had from a registry at all: Windows' base layers say that they are not."""
    return ".foreign." not in media_type and ".nondistributable." not in media_type


class Survey:
    """Finds out what one image is made of."""

    def __init__(self, target: Target, wanted: Sequence[Platform], clock: Callable[[], float] = time.time) -> None:
        self._target = target
        self._wanted = wanted
        self._clock = clock
        self._found = Closure()
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def run(self) -> Closure:
        """Raises ManifestUnknown for a platform there is not, and for an image that is too large or too old."""
        root = self._target.manifest
        self._add(root.descriptor, "", True)
        await self._walk(root, "", self._wanted, 0)
        digests = [part.said.digest for part in self._found.parts.values() if part.manifest]
        await _all(self._attached(digest) for digest in digests)
        return self._found

    def _add(self, said: Descriptor, platform: str, manifest: bool) -> None:
        if len(self._found.parts) >= _MOST:
            raise ManifestUnknown(f"an image of more than {_MOST} parts is not taken for one")
        self._found.parts.setdefault(str(said.digest), Part(said, platform, manifest))

    async def _walk(self, manifest: Manifest, platform: str, wanted: Sequence[Platform], depth: int) -> None:
        found = entries(manifest.content)
        if not found:
            if ".docker.distribution.manifest.v1+" in manifest.descriptor.media_type:
                raise ManifestUnknown("it is a Docker schema 1 image, which no client of today takes")
            for child in filter(lambda each: held_by_registries(each.media_type), children(manifest.content)):
                self._add(child, platform, False)
        elif depth < _DEEP:
            chosen = choose(found, wanted)
            for entry in chosen:
                self._add(entry.said, str(entry.platform or ""), True)
            await _all(self._enter(entry.said.digest, str(entry.platform or ""), wanted, depth) for entry in chosen)

    async def _enter(self, digest: Digest, platform: str, wanted: Sequence[Platform], depth: int) -> None:
        manifest = await self._ask(digest)
        if isinstance(manifest, Manifest):
            await self._walk(manifest, platform, wanted, depth + 1)
        else:
            self._found.missing[str(digest)] = manifest.message

    async def _attached(self, digest: Digest) -> None:
        """What has been said of one manifest. A clean 404 means: nothing."""
        names: list[Reference] = []
        if digest.algorithm == "sha256":  # the longer ones make no tag
            names += [Tag(f"sha256-{digest.hex}.{kind}") for kind in _COSIGN]
        names += await self._referrers(digest)
        await _all(self._optional(name) for name in names)

    async def _referrers(self, digest: Digest) -> list[Digest]:
        registry = self._target.registry
        try:
            async with self._turn:
                rows = (await registry.referrers(self._question(), digest)).value
        except _ABSENT:
            return []
        except RegistryError as error:
            self._found.missing[f"referrers of {digest}"] = error.message
            return []
        return [found for row in rows if (found := _digest(row.get("digest"))) is not None]

    async def _optional(self, name: Reference) -> None:
        manifest = await self._ask(name)
        if isinstance(manifest, Manifest):
            self._add(manifest.descriptor, "", True)
            await self._walk(manifest, "", (), 1)
        elif not isinstance(manifest, _ABSENT):
            self._found.missing[str(name)] = manifest.message

    async def _ask(self, name: Reference) -> Manifest | RegistryError:
        try:
            async with self._turn:
                return (await self._target.registry.manifest(self._question(), name)).value
        except RegistryError as error:
            return error

    def _question(self) -> Ask:
        return Ask(self._target.repo, self._clock())


async def _all(work: Iterable[Awaitable[None]]) -> None:
    """Every one to its end; raises the first error then, so that nothing is left running."""
    ended = await asyncio.gather(*work, return_exceptions=True)
    for each in ended:
        if isinstance(each, BaseException):
            raise each


def _digest(text: Any) -> Digest | None:
    try:
        return Digest.parse(str(text))
    except DigestInvalid:
        return None
