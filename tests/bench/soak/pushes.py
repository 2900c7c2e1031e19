"""Clients that push, delete and look: each owns one repository, so it knows what must be there.

What was answered 201 stays, over every kill and restart; what was answered 202 to a DELETE is gone. After an answer
that never came both are right until the next one that did.
"""

import asyncio
import random
from urllib.parse import quote

import aiohttp

from tests.bench.soak.pulls import BROKEN, PATIENCE, Ask
from tests.bench.soak.world import KIB, Report, digest_of, image
from tests.fakes.origin import OCI_MANIFEST

_GONE: None = None


class _Given(Exception):
    """The registry refused for now, or the connection broke."""


class Pusher:
    """One repository below mine/, one tag after the other."""

    def __init__(self, url: str, name: str, report: Report, rng: random.Random) -> None:
        self._url, self._repo, self._report, self._rng = url, f"mine/{name}", report, rng
        self._images: dict[str, tuple[bytes, dict[str, bytes]]] = {}  # by manifest digest
        self._may: dict[str, set[str | None]] = {}  # what a tag may be now; None: nothing
        self.abandoned = 0

    async def run(self, over: asyncio.Event) -> None:
        """Pushes, deletes and pulls back until it is over."""
        while not over.is_set():
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session:
                # Else aiohttp sends a PUT again when its connection breaks: an upload would get the first bytes of a
                # chunk twice, and one that has been finished would be finished again.
                session._retry_connection = False
                for _ in range(5):
                    if not over.is_set():
                        await self._step(session)
                        await asyncio.sleep(self._rng.expovariate(5))

    async def _step(self, session: aiohttp.ClientSession) -> None:
        tag = self._rng.choice("abc")
        try:
            if self._rng.random() < 0.5:
                await self._push(session, tag)
            elif self._rng.random() < 0.25 and self._may.get(tag, {_GONE}) != {_GONE}:
                await self._delete(session, tag)
            else:
                await self.look(session, tag)
        except TimeoutError:
            self._report.problem(f"no end within {PATIENCE:g} s: {self._repo}:{tag}")
        except (*BROKEN, _Given):
            self._report.requests["push", "given up"] += 1

    async def _push(self, session: aiohttp.ClientSession, tag: str) -> None:
        layers = [self._rng.randbytes(self._rng.choice((1, 5 * KIB, 600 * KIB))) for _ in range(2)]
        manifest, blobs = image(self._rng, layers)
        self.abandoned += 1
        for digest, content in blobs.items():
            await self._blob(session, digest, content)
        self.abandoned -= 1
        digest = digest_of(manifest)
        self._images[digest] = manifest, blobs
        self._may[tag] = self._may.get(tag, {_GONE}) | {digest}
        await self._ask(session, "PUT", f"manifests/{tag}", 201, manifest, {"Content-Type": OCI_MANIFEST})
        self._may[tag] = {digest}

    async def _blob(self, session: aiohttp.ClientSession, digest: str, content: bytes) -> None:
        where = (await self._ask(session, "POST", "blobs/uploads/", 202))["Location"]
        half = len(content) // 2 if self._rng.random() < 0.5 else 0
        if half:
            octets = {"Content-Type": "application/octet-stream", "Content-Range": f"0-{half - 1}"}
            where = (await self._ask(session, "PATCH", where, 202, content[:half], octets))["Location"]
        where += f"{'&' if '?' in where else '?'}digest={quote(digest)}"
        await self._ask(session, "PUT", where, 201, content[half:])

    async def _delete(self, session: aiohttp.ClientSession, tag: str) -> None:
        self._may[tag] = self._may[tag] | {_GONE}
        await self._ask(session, "DELETE", f"manifests/{tag}", 202 if _GONE not in self._may[tag] else (202, 404))
        self._may[tag] = {_GONE}

    async def look(self, session: aiohttp.ClientSession, tag: str) -> None:
        """Pulls the tag back, with a layer of it. Raises BROKEN and TimeoutError."""
        right = self._may.get(tag, {_GONE})
        path = f"/v2/{self._repo}/manifests/{tag}"
        async with session.get(self._url + path, headers={"Accept": OCI_MANIFEST}) as response:
            body, status = await response.read(), response.status
        self._report.requests["GET pushed", str(status)] += 1
        if status == 503:
            return
        found = digest_of(body) if status == 200 else _GONE
        if status not in (200, 404) or found not in right:
            self._wrong(f"{path}: {status} {found}, not {right}")
        elif found is not None:
            digest, content = self._rng.choice(list(self._images[found][1].items()))
            ask = Ask("blob", self._repo, digest, [content], prefix="")
            async with session.get(self._url + ask.path) as response:
                if response.status != 503 and (response.status != 200 or await response.read() != content):
                    self._wrong(f"{ask.path}: {response.status}")

    async def look_at_all(self, session: aiohttp.ClientSession) -> None:
        """Every tag there ever was."""
        for tag in self._may:
            await self.look(session, tag)

    def _wrong(self, text: str) -> None:
        self._report.wrong += 1
        self._report.problem(f"wrong, pushed: {text}")

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        right: int | tuple[int, ...],
        body: bytes = b"",
        headers: dict[str, str] | None = None,
    ) -> aiohttp.typedefs.LooseHeaders:
        """The headers of an answer with a right status. Raises _Given, BROKEN and TimeoutError."""
        url = self._url + (path if path.startswith("/") else f"/v2/{self._repo}/{path}")
        async with session.request(method, url if "://" not in path else path, data=body, headers=headers) as response:
            await response.read()
            self._report.requests[f"{method} push", str(response.status)] += 1
            if response.status in (right if isinstance(right, tuple) else (right,)):
                return response.headers
            if response.status != 503:
                self._report.problem(f"{method} {url}: {response.status} {response.reason!r}, not {right}")
            raise _Given
