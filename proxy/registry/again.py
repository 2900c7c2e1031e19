"""Content that was here and has to be fetched again, past whatever workers still have in memory."""

import time
from collections.abc import Mapping

from proxy.errors import Unavailable
from proxy.oci.digest import Digest
from proxy.oci.names import Repo
from proxy.ports import Ask, OpenBlob, Registry
from proxy.store.board import Board


class Again:
    """Fetches through the registries of this worker."""

    def __init__(self, registries: Mapping[str, Registry], board: Board) -> None:
        self._registries = registries
        self._board = board

    async def fetch(self, repository: str, digest: Digest, manifest: bool) -> None:
        """Ask for it like a client, to its end; `repository` starts with its upstream.

        Raises RegistryError, BodyBroken, OSError.
        """
        name, _, repo = repository.partition("/")
        registry = self._registries.get(name)
        if registry is None:
            raise Unavailable(f"{name} is no upstream any more")
        ask = Ask(Repo.parse(repo), time.time())
        if manifest:
            self._board.change(f"t:{repository}:{digest}")
            await registry.manifest(ask, digest)
            return
        found = (await registry.blob(ask, digest)).value
        try:
            at = 0
            while not isinstance(found, OpenBlob) and (available := await found.wait(at)) > at:
                at = available
        finally:
            found.close()
