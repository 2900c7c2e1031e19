"""Names without prefix and without ns, where several registries may answer for them, in order.

Only a clean 404 moves on to the next registry; any other failure ends the search, because "not now" must not become
"another image of the same name". Who answered for a manifest is remembered per repository, and blob requests follow
that, so that one pull does not mix registries.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from proxy.errors import BlobUnknown, ManifestUnknown, NameUnknown, RegistryError
from proxy.oci.digest import Digest
from proxy.oci.media import Descriptor, Manifest
from proxy.oci.names import Reference, Repo
from proxy.ports import Answer, Ask, Filling, OpenBlob, Registry
from proxy.registry.local import Local
from proxy.store.index import Index

DOCKER_HUB = "docker.io"
T = TypeVar("T")
_UNKNOWN = (ManifestUnknown, NameUnknown, BlobUnknown)


def in_library(name: str) -> Repo:
    """Docker Hub's one-word names stand under library/. Raises NameInvalid."""
    return Repo.parse(name if "/" in name else f"library/{name}")


class Unqualified:
    """Several registries behind one name space. Satisfies ports.Registry."""

    def __init__(self, registries: Sequence[Registry], index: Index) -> None:
        self.name = registries[0].name
        self.local = any(isinstance(registry, Local) for registry in registries)
        self._registries = registries
        self._index = index

    async def resolve(self, ask: Ask, reference: Reference) -> Answer[Descriptor]:
        return await self._search(ask, lambda registry, asked: registry.resolve(asked, reference))

    async def manifest(self, ask: Ask, reference: Reference) -> Answer[Manifest]:
        return await self._search(ask, lambda registry, asked: registry.manifest(asked, reference))

    async def stat(self, ask: Ask, digest: Digest) -> Answer[Descriptor]:
        owner = self._owner(ask.repo)
        return await _by(owner, owner.stat(_as_named(owner, ask), digest))

    async def blob(self, ask: Ask, digest: Digest) -> Answer[OpenBlob | Filling]:
        owner = self._owner(ask.repo)
        return await _by(owner, owner.blob(_as_named(owner, ask), digest))

    async def tags(self, ask: Ask) -> Answer[Sequence[str]]:
        return await self._search(ask, lambda registry, asked: registry.tags(asked))

    async def referrers(self, ask: Ask, digest: Digest) -> Answer[Sequence[Mapping[str, Any]]]:
        owner = self._owner(ask.repo)
        return await _by(owner, owner.referrers(_as_named(owner, ask), digest))

    def _owner(self, repo: Repo) -> Registry:
        """Who answered for this repository last; the first one where nobody has; ourselves where we hold anything."""
        for registry in self._registries:
            if isinstance(registry, Local) and registry.holds(repo):
                return registry
        name = self._index.get(f"o:{repo}")
        return next((registry for registry in self._registries if registry.name == name), self._registries[0])

    async def _search(self, ask: Ask, call: Callable[[Registry, Ask], Awaitable[Answer[T]]]) -> Answer[T]:
        refusal: RegistryError | None = None
        for registry in self._registries:
            try:
                answer = await _by(registry, call(registry, _as_named(registry, ask)))
            except _UNKNOWN as error:
                if isinstance(registry, Local) and registry.holds(ask.repo):
                    raise  # a repository that holds anything of ours is ours altogether
                refusal = refusal or error
                continue
            if self._index.get(f"o:{ask.repo}") != registry.name:
                await self._index.note({f"o:{ask.repo}": registry.name})
            return answer
        assert refusal is not None, "a chain has at least one registry"
        raise refusal


async def _by(registry: Registry, answer: Awaitable[Answer[T]]) -> Answer[T]:
    """What this one answers or raises, with its name: counted, logged and explained as its own."""
    try:
        return replace(await answer, by=registry.name)
    except RegistryError as error:
        error.by = registry.name
        raise


def _as_named(registry: Registry, ask: Ask) -> Ask:
    """The same question under the name this registry knows the repository by."""
    return replace(ask, repo=in_library(ask.repo)) if registry.name == DOCKER_HUB else ask
