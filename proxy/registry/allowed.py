"""Which repositories of an upstream are served: its `repositories` and `deny_repositories`, as a registry around it.

What must not live here: who asks (http/auth). Around, and not inside: what is not allowed never reaches what it is
about, so it is neither asked for nor answered from what is kept, nor pinned, however its name came here. It is names
that are refused: a blob that an allowed repository has too is still that one's.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from proxy.config import Upstream
from proxy.errors import Denied
from proxy.oci.digest import Digest
from proxy.oci.media import Descriptor, Manifest
from proxy.oci.names import Reference, Repo
from proxy.ports import Answer, Ask, Filling, OpenBlob, Registry

EVERY = ("*",)


def within_rules(upstream: Upstream, registry: Registry) -> Registry:
    """The registry behind the rules of its upstream; itself where there are none."""
    if upstream.repositories == EVERY and not upstream.deny_repositories:
        return registry
    return Allowed(upstream, registry)


def rule_against(upstream: Upstream, repo: Repo) -> str:
    """The rule that refuses a repository, in words that end a sentence; "" when none does."""
    table = f"upstreams.{upstream.name}"
    for pattern in upstream.deny_repositories:
        if fnmatchcase(repo, pattern):
            return f"it matches {pattern} of {table}.deny_repositories"
    if not any(fnmatchcase(repo, pattern) for pattern in upstream.repositories):
        return f"nothing in {table}.repositories allows it"
    return ""


class Allowed:
    """A registry of which some names are served. Satisfies ports.Registry; every method raises Denied for the others,
    and else what the registry raises."""

    def __init__(self, upstream: Upstream, registry: Registry) -> None:
        self.name = registry.name
        self._upstream = upstream
        self._registry = registry

    def _behind(self, ask: Ask) -> Registry:
        if rule := rule_against(self._upstream, ask.repo):
            raise Denied(f"{self.name}/{ask.repo} is not served here: {rule}")
        return self._registry

    async def resolve(self, ask: Ask, reference: Reference) -> Answer[Descriptor]:
        return await self._behind(ask).resolve(ask, reference)

    async def manifest(self, ask: Ask, reference: Reference) -> Answer[Manifest]:
        return await self._behind(ask).manifest(ask, reference)

    async def stat(self, ask: Ask, digest: Digest) -> Answer[Descriptor]:
        return await self._behind(ask).stat(ask, digest)

    async def blob(self, ask: Ask, digest: Digest) -> Answer[OpenBlob | Filling]:
        return await self._behind(ask).blob(ask, digest)

    async def tags(self, ask: Ask) -> Answer[Sequence[str]]:
        return await self._behind(ask).tags(ask)

    async def referrers(self, ask: Ask, digest: Digest) -> Answer[Sequence[Mapping[str, Any]]]:
        return await self._behind(ask).referrers(ask, digest)
