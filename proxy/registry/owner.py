"""Whose name an unqualified name is, before somebody pushes to it.

Nothing pushed may answer for an upstream's image under any name. A repository that is ours already is ours; one that
`own` names is ours without asking; any other is asked for at every other registry behind unqualified names, and is
ours only when all of them say that they do not know it. Who cannot be asked has not said so.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from proxy.errors import Denied, NameUnknown, RegistryError
from proxy.oci.names import Repo
from proxy.ports import Ask, Pushable, Registry
from proxy.registry.chain import DOCKER_HUB, in_library

_REMEMBERED = 600.0


class Ownership:
    """`others` answer for unqualified names beside `local`; `cached` says whether one of them is known to serve a
    repository, without asking it."""

    def __init__(
        self, local: Pushable, others: Sequence[Registry], own: Iterable[str], cached: Callable[[str], bool]
    ) -> None:
        self._local = local
        self._others = others
        self._own = tuple(own)
        self._cached = cached
        self._free: dict[Repo, float] = {}

    async def check(self, repo: Repo) -> None:
        """Raises Denied where the name is somebody else's, or might be."""
        if any(fnmatchcase(repo, pattern) for pattern in self._own) or self._local.holds(repo):
            return
        if time.monotonic() < self._free.get(repo, 0.0):
            return
        for registry in self._others:
            await self._ask(registry, repo)
        self._free[repo] = time.monotonic() + _REMEMBERED
        if len(self._free) > 1000:
            del self._free[next(iter(self._free))]

    async def _ask(self, registry: Registry, repo: Repo) -> None:
        name = in_library(repo) if registry.name == DOCKER_HUB else repo
        if not self._cached(f"{registry.name}/{name}"):
            try:
                found = await registry.tags(Ask(name, time.time()))
            except NameUnknown:
                return
            except RegistryError as error:
                raise Denied(
                    f"whether {registry.name} serves {repo} cannot be told now ({error.message});"
                    f' name it in [local] own = ["{repo}"], or push it under another name'
                ) from None
            if not found.value:
                return
        raise Denied(f"{registry.name} serves {repo}; push it under another name")
