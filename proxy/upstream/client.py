"""One registry elsewhere: what it is asked, and what its answers mean.

Each call is one chain of requests, no ping before it. Statuses become domain errors here: 404 only when the registry
itself said so; 401 and 403 are Denied; 429, 5xx, timeouts, web pages and broken protocol are Unavailable, so that no
client ever learns "there is no such image" from a firewall.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from proxy import metrics
from proxy.config import Upstream
from proxy.errors import (
    BlobUnknown,
    DigestInvalid,
    ManifestUnknown,
    NameUnknown,
    RegistryError,
    Unavailable,
)
from proxy.oci.digest import Digest
from proxy.oci.media import ACCEPT, BLOB, MANIFEST_LIMIT, OCI_INDEX, Descriptor, Manifest, manifest_type
from proxy.oci.names import Reference
from proxy.ports import Ask, Gate
from proxy.upstream.auth import Keyring
from proxy.upstream.body import Body, length, no_web_page, pieces
from proxy.upstream.causes import explained
from proxy.upstream.egress import Door, next_url
from proxy.upstream.ledger import Ledger
from proxy.upstream.meaning import meaning
from proxy.upstream.rules import Rules

_LIST_LIMIT = 64 << 20
_PAGE_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Head:
    """What an upstream said of a manifest without sending it; `digest` None where it did not say."""

    digest: Digest | None


class Client:
    """All requests to one registry, at one of its URLs, each through `gate`, which learns what became of it."""

    def __init__(self, settings: Upstream, base: str, instance: str, ledger: Ledger, gate: Gate) -> None:
        self.upstream = settings.name
        self.base = base
        self._base = URL(base)
        self.host = self._base.host or base
        self._instance = instance
        self._gate = gate
        self._keys = Keyring(frozenset({self._base.origin()}), settings.username, settings.password.reveal())
        self._offline = settings.offline
        self._stall = settings.egress.stall_timeout
        self._patience = settings.egress.first_byte_deadline
        self._ledger = ledger
        egress = settings.egress
        named = [URL(url) for url in (*settings.urls, *([egress.proxy] if egress.proxy else []))]
        rules = Rules.of(egress.allow, egress.deny, egress.allow_private, named)
        self._door = Door(settings.name, egress, self._keys, rules, ledger)
        # A mirror of the registry has to be told which registry is meant, as containerd tells it; the registry itself
        # knows. This is what lets an upstream be another tidegate.
        self._namespace = "" if self._base.host == settings.name.partition(":")[0] else f"ns={settings.name}"

    async def start(self) -> None:
        await self._door.start()

    async def close(self) -> None:
        await self._door.close()

    async def head(self, ask: Ask, reference: Reference) -> Head:
        """HEAD of a manifest. Raises ManifestUnknown, Denied, LoopDetected, Unavailable."""
        path = f"{ask.repo}/manifests/{reference}"
        async with self._ask("HEAD", path, ask, ManifestUnknown, Accept=ACCEPT) as response:
            return Head(_said_digest(response))

    async def manifest(self, ask: Ask, reference: Reference) -> Manifest:
        """GET of a manifest, its digest checked. Raises ManifestUnknown, Denied, LoopDetected, Unavailable."""
        path = f"{ask.repo}/manifests/{reference}"
        async with self._ask("GET", path, ask, ManifestUnknown, Accept=ACCEPT) as response:
            content = await self._read(response, MANIFEST_LIMIT, "manifest")
            media_type = manifest_type(content, response.headers.get("Content-Type", ""))
            if media_type is None:
                what = "a web page" if response.content_type == "text/html" else "something that is no manifest"
                raise Unavailable(f"{response.url.host}: sent {what} where a manifest was due")
            said = _said_digest(response)
        digest = self._digest_of(content, reference, said)
        return Manifest(Descriptor(digest, len(content), media_type), content)

    def _digest_of(self, content: bytes, reference: Reference, said: Digest | None) -> Digest:
        """The digest a manifest goes by: the one asked for, the one the upstream named, else sha256 of the bytes."""
        wanted = reference if isinstance(reference, Digest) else said or Digest.of(content)
        if not wanted.matches(content):
            raise Unavailable(f"{self._base.host}: sent a manifest that does not match {wanted.short}")
        return wanted

    async def blob_size(self, ask: Ask, digest: Digest) -> Descriptor:
        """HEAD of a blob. Raises BlobUnknown, Denied, LoopDetected, Unavailable."""
        async with self._ask("HEAD", f"{ask.repo}/blobs/{digest}", ask, BlobUnknown) as response:
            no_web_page(response)
            return Descriptor(digest, length(response), BLOB)

    @asynccontextmanager
    async def blob(self, ask: Ask, digest: Digest, offset: int, stop: int | None) -> AsyncIterator["Body"]:
        """The bytes of a blob from `offset`, or up to `stop`. Raises BlobUnknown, Denied, LoopDetected, Unavailable."""
        sent = {"Range": f"bytes={offset}-{'' if stop is None else stop - 1}"} if offset or stop else {}
        async with self._ask("GET", f"{ask.repo}/blobs/{digest}", ask, BlobUnknown, **sent) as response:
            yield Body(response, offset, self._stall, self._received)

    async def tags(self, ask: Ask) -> list[str]:
        """All tags, every page. Raises NameUnknown, Denied, LoopDetected, Unavailable."""
        found: list[str] = []
        async for page in self._pages(f"{ask.repo}/tags/list", ask, NameUnknown):
            listed = page.get("tags")
            found += [tag for tag in listed if isinstance(tag, str)] if isinstance(listed, list) else []
        return sorted(set(found))

    async def referrers(self, ask: Ask, digest: Digest) -> list[Mapping[str, Any]]:
        """Descriptors of all referrers, every page. Raises ManifestUnknown when the upstream has no such API, Denied,
        LoopDetected, Unavailable."""
        found: list[Mapping[str, Any]] = []
        async for page in self._pages(f"{ask.repo}/referrers/{digest}", ask, ManifestUnknown):
            listed = page.get("manifests")
            found += [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        return found

    async def _pages(self, path: str, ask: Ask, unknown: type[RegistryError]) -> AsyncIterator[Mapping[str, Any]]:
        url = self._url(path)
        for _ in range(_PAGE_LIMIT):
            assert url is not None
            async with self._ask_url(
                "GET", url, ask, unknown, {"Accept": f"application/json, {OCI_INDEX}"}
            ) as response:
                document = _document(response, await self._read(response, _LIST_LIMIT, "manifest"))
                link = _next_link(response.headers.get("Link"))
            yield document
            if link is None:
                return
            url = next_url(url, link)
            if url.origin() != self._base.origin():
                raise Unavailable(f"{self._base.host}: its list goes on at another host, {url.host}")
        raise Unavailable(f"{self._base.host}: a list of more than {_PAGE_LIMIT} pages")

    def _ask(
        self, method: str, path: str, ask: Ask, unknown: type[RegistryError], **headers: str
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return self._ask_url(method, self._url(path), ask, unknown, headers)

    @asynccontextmanager
    async def _ask_url(
        self, method: str, url: URL, ask: Ask, unknown: type[RegistryError], headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response that is 2xx, or a 416 to a range. Every other one is raised as what it means."""
        if self._offline:
            raise Unavailable(f"{self.upstream} is set offline here, and this is not in the cache", label="refused")
        via = f"{ask.via}, 1.1 {self._instance}" if ask.via else f"1.1 {self._instance}"
        sent = {"Accept-Encoding": "identity", "User-Agent": "tidegate", "Via": via, **headers}
        with self._gated() as heard:
            async with self._door.walk(method, url, sent, f"repository:{ask.repo}:pull") as response:
                if response.status not in (200, 206, 416):
                    raise meaning(response, ask.repo, unknown)
                if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                    raise Unavailable(f"{response.url.host}: sent a {response.headers['Content-Encoding'][:20]} body")
                heard()
                yield response

    @contextmanager
    def _gated(self) -> Iterator[Callable[[], None]]:
        """Whether there may be a request, and what became of it, counted and told to the gate. Silence is told when
        clients stop waiting for it, although the request goes on: a scanning proxy may still deliver."""

        def silent() -> None:
            self._gate.failed(Unavailable(f"{self._base.host}: no answer in time", label="timeout"))

        def heard() -> None:
            watch.cancel()
            self._gate.heard()

        self._enter()
        watch = asyncio.get_running_loop().call_later(self._patience, silent)
        try:
            yield heard
        except Unavailable as error:
            metrics.UPSTREAM_ERRORS.labels(self.upstream, error.label).inc()
            self._gate.failed(error)
            raise
        except RegistryError:
            self._gate.heard()
            raise
        finally:
            watch.cancel()

    def _enter(self) -> None:
        """Raises Unavailable where this upstream is left alone now."""
        try:
            self._gate.enter()
        except Unavailable as error:
            metrics.UPSTREAM_ERRORS.labels(self.upstream, error.label).inc()
            raise

    async def _read(self, response: aiohttp.ClientResponse, limit: int, kind: str) -> bytes:
        """A whole small body. Raises Unavailable when it is not small, or breaks off."""
        found, size = [], 0
        with explained(response.url):
            async with contextlib.aclosing(pieces(response.content, self._stall)) as coming:
                async for piece in coming:
                    size += len(piece)
                    if size > limit:
                        what = f"sent more than {limit >> 20} MiB where a {kind} was due"
                        raise Unavailable(f"{response.url.host}: {what}")
                    found.append(piece)
        self._received(kind, response.url.host or "?", size)
        return b"".join(found)

    def _received(self, kind: str, host: str, size: int) -> None:
        metrics.received(self.upstream, kind, host, size)
        self._ledger.received(self.upstream, host, "registry" if host == self._base.host else "redirect", size)

    def _url(self, path: str) -> URL:
        base = str(self._base).rstrip("/")
        origin, prefix = str(self._base.origin()), base[len(str(self._base.origin())) :]
        return URL(f"{origin}/v2{prefix}/{path}{'?' if self._namespace else ''}{self._namespace}", encoded=True)

    def __repr__(self) -> str:
        return f"<Client {self.upstream} at {self._base.host}>"


def _said_digest(response: aiohttp.ClientResponse) -> Digest | None:
    """Docker-Content-Digest; one that cannot be read is one that was not sent."""
    try:
        return Digest.parse(response.headers.get("Docker-Content-Digest", ""))
    except DigestInvalid:
        return None


def _document(response: aiohttp.ClientResponse, content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Unavailable(f"{response.url.host}: answered something else where a list was due")
    return document


def _next_link(header: str | None) -> str | None:
    """The target of `Link: <...>; rel="next"`."""
    if not header or not header.startswith("<") or 'rel="next"' not in header.replace("rel=next", 'rel="next"'):
        return None
    return header[1:].partition(">")[0] or None
