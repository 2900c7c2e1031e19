"""registry.k8s.io as it is: it answers /v2/ itself and sends everything else to whatever host fits today."""

import itertools
import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Self

from aiohttp import web

from tests.fakes.log import Log, Request
from tests.fakes.serving import serving

_BLOB = re.compile(r"/v2/(?P<name>.+)/blobs/(?P<digest>[a-z0-9]+:[0-9a-f]+)\Z")
_NAMED = re.compile(r"/v2/(?P<name>.+)/(?P<rest>(?:manifests|tags|referrers)/[^/]+)\Z")
PROJECT = "/v2/k8s-artifacts-prod/images"


class Redirector:
    """`registry` is the pkg.dev-shaped host; `buckets` are bases of bucket or CDN hosts.

    The host of a blob moves one on with every blob request: each bucket in turn, then `registry`. Every redirect is a
    307 with an absolute Location and without the query string.
    """

    def __init__(self, registry: str, buckets: Sequence[str] = ()) -> None:
        self.log = Log()
        self.registry = registry
        self.url = ""
        self._hosts = itertools.cycle([*buckets, None])
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.url = await self._open.enter_async_context(serving(self._answer, self.log))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def _answer(self, request: web.BaseRequest, entry: Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if request.method not in ("GET", "HEAD"):
            return web.Response(status=405, text="Only GET and HEAD are allowed.", headers={"Allow": "GET, HEAD"})
        if path in ("/v2", "/v2/"):
            return web.Response(headers={"Docker-Distribution-Api-Version": "registry/2.0"})
        if path == "/":
            return _moved("https://kubernetes.io/")
        if found := _BLOB.match(path):
            return _moved(self._blob(found["name"], found["digest"]))
        if found := _NAMED.match(path):
            return _moved(f"{self.registry}{PROJECT}/{found['name']}/{found['rest']}")
        return web.Response(status=404, text="404 page not found\n")

    def _blob(self, name: str, digest: str) -> str:
        bucket = next(self._hosts)
        if bucket is None:
            return f"{self.registry}{PROJECT}/{name}/blobs/{digest}"
        return f"{bucket}/containers/images/{digest}"


def _moved(location: str) -> web.Response:
    return web.Response(status=307, headers={"Location": location, "Content-Type": "text/html; charset=utf-8"})
