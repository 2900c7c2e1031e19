"""One upstream under one repository name, as a place a fill can get a blob from."""

from contextlib import AbstractAsyncContextManager

from proxy.oci.digest import Digest
from proxy.ports import Ask
from proxy.registry.rows import Rows
from proxy.upstream.body import Body
from proxy.upstream.client import Client


class UpstreamSource:
    """Satisfies ports.BlobSource."""

    def __init__(self, client: Client, ask: Ask, rows: Rows, size: int | None) -> None:
        self._client = client
        self._ask = ask
        self._rows = rows
        self.upstream = client.upstream
        self.key = f"{client.upstream}|{client.base}/{ask.repo}"
        self.image = f"{client.upstream}/{ask.repo}"
        self.size = size

    def open(self, digest: Digest, offset: int, stop: int | None) -> AbstractAsyncContextManager[Body]:
        return self._client.blob(self._ask, digest, offset, stop)

    async def opened(self, digest: Digest, total: int | None) -> None:
        await self._rows.put_blob(self._ask.repo, digest, total)

    def __repr__(self) -> str:
        return f"<UpstreamSource {self.key}>"
