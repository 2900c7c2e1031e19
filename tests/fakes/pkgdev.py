"""The pkg.dev-shaped host behind the redirector: a front before any registry, which redirects blobs once more.

That redirect is the one well-known caches break on: 302, a relative Location, and a long token in its path whose
escapes are part of the token.
"""

import base64
import json
import os
import re
from contextlib import AsyncExitStack
from typing import Self

import aiohttp
from aiohttp import web
from yarl import URL

from tests.fakes.log import Log, Request
from tests.fakes.redirector import PROJECT
from tests.fakes.serving import serving

_PATH = re.compile(re.escape(PROJECT) + r"/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>[^/]+)\Z")
_DOWNLOADS = "/artifacts-downloads/namespaces/k8s-artifacts-prod/repositories/images/downloads/"
_PASSED_ON = ("Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest", "Accept-Ranges", "ETag")
_ASKED_ON = ("Accept", "Range")


class PkgDev:
    """Serves `registry`'s repositories under PROJECT. A token is good for any number of requests, to the letter."""

    def __init__(self, registry: str) -> None:
        self.log = Log()
        self.registry = registry
        self.url = ""
        self._tokens: dict[str, str] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        # Connections are not kept: an idle one would look like a leaked descriptor to the test after this one.
        connector = aiohttp.TCPConnector(force_close=True)
        session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        self._session = await self._open.enter_async_context(session)
        self.url = await self._open.enter_async_context(serving(self._answer, self.log))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def _answer(self, request: web.BaseRequest, entry: Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        if path.startswith(_DOWNLOADS):
            target = self._tokens.get(path)
            return await self._pass(request, entry, target) if target else web.Response(status=403, text="bad token")
        found = _PATH.match(path)
        if not found:
            return web.Response(status=404, text="not found")
        target = f"/v2/{found['name']}/{found['kind']}/{found['rest']}"
        if found["kind"] == "blobs":
            return web.Response(status=302, headers={"Location": self._token(target)})
        if found["kind"] == "tags":
            return await self._tags(found["name"], target)
        return await self._pass(request, entry, f"{target}?{query}" if query else target)

    def _token(self, target: str) -> str:
        raw = base64.b64encode(os.urandom(720) + b"\xfb\xff").decode()  # with +, / and = in it, as signed URLs have
        path = _DOWNLOADS + raw.replace("/", "%2F").replace("=", "%3D") + "+%2F%3D"
        self._tokens[path] = target
        return path

    async def _tags(self, name: str, target: str) -> web.Response:
        """The tag list under the name it has here, which is not the name the client asked the redirector for."""
        async with self._session.get(self.registry + target) as answer:
            document = json.loads(await answer.read())
        if answer.status == 200:
            document |= {"name": f"k8s-artifacts-prod/images/{name}", "child": []}
        return web.json_response(document, status=answer.status)

    async def _pass(self, request: web.BaseRequest, entry: Request, target: str) -> web.StreamResponse:
        headers = [(name, value) for name in _ASKED_ON for value in request.headers.getall(name, [])]
        url = URL(self.registry + target, encoded=True)
        async with self._session.request(request.method, url, headers=headers, allow_redirects=False) as answer:
            kept = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            if request.method == "GET":
                async for piece in answer.content.iter_chunked(256 << 10):
                    await response.write(piece)
                    entry.sent += len(piece)
            await response.write_eof()
        return response
