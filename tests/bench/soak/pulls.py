"""Clients that pull: whatever they get completely is compared with the truth, byte by byte.

An answer is one of: right, refused as the upstream's faults allow, broken off as a transport error, or wrong. Only the
last one is a problem. One more there is: a range without the last byte, of a blob that is still arriving, is sent
before anybody can know its digest. Where the upstream lied about that very blob meanwhile it is "unverified".
"""

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import aiohttp

from tests.bench.soak.world import Report, Truth, digest_of
from tests.fakes.origin import OCI_MANIFEST

BROKEN = (aiohttp.ClientError, ConnectionError)
PATIENCE = 45.0
PREFIX = "registry.k8s.io/"
_UNAVAILABLE = (503,)
_HURRY, _SLOW, _LEAVES = 0.75, 0.87, 1.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One request and what is right: bodies a 200 may have, and for a range the part of the one body."""

    kind: str
    repo: str
    reference: str
    right: list[bytes]
    part: tuple[int, int] | None = None  # first byte and the one after the last; None: all
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    prefix: str = PREFIX

    @property
    def named(self) -> bool:
        """Whether it asks for a manifest, by tag or by digest."""
        return self.kind in ("tag", "manifest")

    @property
    def path(self) -> str:
        return f"/v2/{self.prefix}{self.repo}/{'manifests' if self.named else 'blobs'}/{self.reference}"

    @property
    def name(self) -> str:
        return f"{self.method} {self.kind}{' range' if self.headers.get('Range') else ''}"


def ranged(rng: random.Random, size: int) -> tuple[str, tuple[int, int]]:
    """A Range header and what it means of `size` bytes; an empty part where it cannot be satisfied."""
    start, end = rng.randrange(size + 2), rng.randrange(size + 2)
    match rng.randrange(3):
        case 0:
            start, end = min(start, end), max(start, end)
            return f"bytes={start}-{end}", (start, min(end + 1, size))
        case 1:
            return f"bytes={start}-", (start, size)
        case _:
            return f"bytes=-{end}", (max(0, size - end), size)


def is_right(ask: Ask, status: int, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether a complete answer is what was asked for, in its headers too."""
    size = len(ask.right[0])
    first, after = ask.part or (0, size)
    told = headers.get("Docker-Content-Digest")
    if status in (200, 206) and told is not None and told not in {digest_of(right) for right in ask.right}:
        return False
    match status:
        case 200 if ask.method == "HEAD":
            return int(headers.get("Content-Length", -1)) in {len(right) for right in ask.right} and body == b""
        case 200:
            return body in ask.right
        case 206:
            right = ask.right[0][first:after] if ask.part else b""
            return body == right != b"" and headers.get("Content-Range") == f"bytes {first}-{after - 1}/{size}"
        case 416:
            return ask.part is not None and first >= after
        case _:
            return False


def _last(headers: Mapping[str, str]) -> bool:
    """Whether a part says that it holds the last byte."""
    stop, _, total = headers.get("Content-Range", "").rpartition("-")[2].partition("/")
    return not (stop.isdigit() and total.isdigit() and int(stop) + 1 < int(total))


class Puller:
    """One client with connections of its own."""

    def __init__(self, url: str, truth: Truth, report: Report, rng: random.Random) -> None:
        self._url, self._truth, self._report, self._rng = url, truth, report, rng

    async def run(self, over: asyncio.Event) -> None:
        """Asks at random until it is over."""
        while not over.is_set():
            timeout = aiohttp.ClientTimeout(total=None)
            async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
                for _ in range(self._rng.randrange(1, 20)):
                    if over.is_set():
                        break
                    if self._rng.random() < 0.05:
                        await self.list_tags(session, self._rng.choice(list(self._truth.repos)))
                    else:
                        await self.pull(session, self._unqualified(self._any()), self._rng.random())
                    await asyncio.sleep(self._rng.expovariate(12))

    def _unqualified(self, ask: Ask) -> Ask:
        """Half of the time without the prefix; blobs follow the manifest, so that has to come first."""
        free = ask.named or ask.repo in self._truth.ours
        return replace(ask, prefix="") if free and self._rng.random() < 0.5 else ask

    def _any(self) -> Ask:
        rng = self._rng
        name = rng.choice(list(self._truth.repos))
        repo = self._truth.repos[name]
        method = "HEAD" if rng.random() < 0.15 else "GET"
        if rng.random() < 0.35:
            tag = rng.choice(list(repo.tags))
            return self.tagged(name, tag, method)
        if rng.random() < 0.3:
            digest = rng.choice(list(repo.manifests))
            return Ask("manifest", name, digest, [repo.manifests[digest][0]], method=method)
        digest = rng.choice(list(repo.blobs))
        content = repo.blobs[digest]
        if method == "HEAD" or rng.random() < 0.6:
            return Ask("blob", name, digest, [content], method=method)
        header, part = ranged(rng, len(content))
        return Ask("blob", name, digest, [content], part, headers={"Range": header})

    def tagged(self, name: str, tag: str, method: str = "GET", prefix: str = PREFIX) -> Ask:
        """A tag: everything it ever was is right, the cache may be as old as it says."""
        repo = self._truth.repos[name]
        right = [repo.manifests[each][0] for each in self._truth.ever[name, tag]]
        return Ask("tag", name, tag, right, method=method, prefix=prefix)

    async def pull(self, session: aiohttp.ClientSession, ask: Ask, pace: float = 0.0) -> str:
        """Result of one request; `pace` below _HURRY reads as fast as it can, below _SLOW slowly, else leaves."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                result = await self._exchange(session, ask, pace, began)
        except TimeoutError:
            self._report.problem(f"no end within {PATIENCE:g} s: {ask.name} {ask.path}")
            result = "hung"
        except BROKEN:
            result = "broken off"
        self._report.requests[ask.name, result] += 1
        return result

    async def _exchange(self, session: aiohttp.ClientSession, ask: Ask, pace: float, began: float) -> str:
        headers = {"Accept": OCI_MANIFEST, **ask.headers}
        async with session.request(ask.method, self._url + ask.path, headers=headers) as response:
            if response.status >= 300 and response.status != 416:
                await response.read()
                return self._refused(ask, response, began)
            if pace >= _SLOW and ask.method == "GET":
                await response.content.read(self._rng.randrange(200_000) + 1)
                response.close()
                return "left"
            body = bytearray()
            async for piece in response.content.iter_chunked(16 << 10 if pace >= _HURRY else 256 << 10):
                body += piece
                self._report.bytes += len(piece)
                if pace >= _HURRY:
                    await asyncio.sleep(0.01)
            return self._judged(ask, response, bytes(body), began)

    def _refused(self, ask: Ask, response: aiohttp.ClientResponse, began: float) -> str:
        status = response.status
        if status in _UNAVAILABLE or self._truth.refused(ask.repo, ask.reference, status, began):
            return str(status)
        self._report.problem(f"{status} {response.reason!r}, which the upstream did not say: {ask.name} {ask.path}")
        return f"{status} unasked"

    def _judged(self, ask: Ask, response: aiohttp.ClientResponse, body: bytes, began: float) -> str:
        """What a complete answer is."""
        if ask.kind == "tag":  # it may have moved since it was asked for
            ask = self.tagged(ask.repo, ask.reference, ask.method, ask.prefix)
        if is_right(ask, response.status, response.headers, body):
            if ask.named and not ask.prefix:
                self._truth.ours.add(ask.repo)
            return str(response.status)
        if response.status == 206 and not _last(response.headers) and self._truth.lied_to(ask.reference, began):
            return "206 unverified"
        self._report.wrong += 1
        got = f"{response.status}, {len(body)} bytes, {response.headers}"
        self._report.problem(f"wrong: {ask.name} {ask.path} {ask.headers}: {got}")
        return "wrong"

    async def list_tags(self, session: aiohttp.ClientSession, repo: str) -> None:
        """A list names tags there are; all of them, unless it says that it is not complete."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE), session.get(f"{self._url}/v2/{repo}/tags/list") as response:
                body = await response.read()
        except (*BROKEN, TimeoutError):
            self._report.requests["GET tags", "broken off"] += 1
            return
        self._report.requests["GET tags", str(response.status)] += 1
        if response.status == 200:
            found, known = json.loads(body), set(self._truth.repos[repo].tags)
            if found["name"] != repo or not set(found["tags"]) <= known:
                self._report.problem(f"wrong list of {repo}: {body[:200]!r}")
            elif set(found["tags"]) != known and "Warning" not in response.headers:
                self._report.problem(f"a short list of {repo} that does not say so: {body[:200]!r}")
        elif response.status not in _UNAVAILABLE and not self._truth.refused(repo, "list", response.status, began):
            self._report.problem(f"{response.status}, which the upstream did not say: tags of {repo}")
