"""The pushing half of the registry API: call -> what changes -> response. Errors are raised through, as in handlers.

Bodies are taken as they come and written as they are taken; a connection that breaks leaves what arrived, to be gone
on from. Locations repeat the name, prefix and ns as they were asked, so that a client stays where it began.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote

from aiohttp import web

from proxy import metrics
from proxy.errors import (
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    NoSpace,
    Unavailable,
    UploadOutOfOrder,
)
from proxy.http import respond
from proxy.http.exchange import Exchange
from proxy.http.received import body, whole
from proxy.oci import pushed
from proxy.oci.calls import Request
from proxy.oci.digest import Digest
from proxy.oci.media import OCI_MANIFEST, Descriptor, Manifest
from proxy.oci.names import Repo, Tag
from proxy.oci.pushes import (
    AppendUpload,
    CancelUpload,
    DeleteBlob,
    DeleteManifest,
    FinishUpload,
    Push,
    PutManifest,
    StartUpload,
    UploadStatus,
)
from proxy.ports import Ask
from proxy.registry.local import Local
from proxy.registry.owner import Ownership
from proxy.registry.route import Route
from proxy.store.uploads import Upload

_RANGE = re.compile(r"(\d{1,18})-(\d{1,18})\Z")
_PATIENCE = 20.0
"""Seconds an answer waits for an upload to be read again and to reach the disk; clients give up after 30."""
_POLL = 0.1
_SETTLE = 1.0
"""Seconds an answer waits for its upload to be closed: longer only where it is still being read or written."""


class Pushing:
    """Answers the calls that write to one local registry."""

    def __init__(self, local: Local, ownership: Ownership, room: Callable[[int], Awaitable[bool]]) -> None:
        """`room` makes room for so many bytes: what is cached gives way before a push is refused."""
        self.name = local.name
        self._local = local
        self._ownership = ownership
        self._room = room
        self._uploads = local.uploads
        self._sealing: dict[Upload, asyncio.Task[bool]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def repositories(self) -> list[str]:
        """Everything that was pushed here. Raises OSError."""
        return await self._local.repositories()

    async def check(self, call: Push, route: Route) -> None:
        """Whether the name is ours. Raises Denied."""
        if route.asks and isinstance(call, StartUpload | PutManifest):
            await self._ownership.check(route.repo)

    async def answer(self, exchange: Exchange, asked: Request, call: Push, repo: Repo) -> web.StreamResponse:
        """Raises RegistryError, OSError."""
        match call:
            case StartUpload():
                return await self._start(exchange, asked, call, repo)
            case AppendUpload():
                return await self._append(exchange, asked, call, repo)
            case FinishUpload():
                return await self._finish(exchange, asked, call, repo)
            case UploadStatus():
                size = await asyncio.to_thread(self._uploads.size, repo, call.upload)
                return _done(exchange, 204, self._session(asked, call.upload, size))
            case CancelUpload():
                await asyncio.to_thread(self._uploads.cancel, repo, call.upload)
                return _done(exchange, 204, {})
            case PutManifest():
                return await self._put_manifest(exchange, asked, call, repo)
            case DeleteManifest():
                await self._local.delete_manifest(repo, call.reference)
            case DeleteBlob():
                await self._local.delete_blob(repo, call.digest)
        return _done(exchange, 202, {})

    async def _start(self, exchange: Exchange, asked: Request, call: StartUpload, repo: Repo) -> web.StreamResponse:
        if call.mount is not None and await self._local.mount(repo, call.mount, call.source):
            return self._created(exchange, asked, call.mount)
        if call.digest is None:
            upload = await asyncio.to_thread(self._uploads.begin, repo, call.algorithm)
            return _done(exchange, 202, self._session(asked, upload, 0))
        name = await asyncio.to_thread(self._uploads.begin, repo, call.digest.algorithm)
        async with self._writing(repo, name) as writing:
            try:
                await self._take(exchange, writing)
                return await self._commit(exchange, asked, repo, writing, call.digest)
            except BaseException:
                if writing not in self._sealing:
                    writing.forget()  # nobody knows of it
                raise

    async def _append(self, exchange: Exchange, asked: Request, call: AppendUpload, repo: Repo) -> web.StreamResponse:
        async with self._writing(repo, call.upload, _SETTLE) as upload:  # one that broke off is closed in a moment
            _check_order(exchange, upload)
            await self._take(exchange, upload)
            await upload.settle()
            return _done(exchange, 202, self._session(asked, call.upload, upload.size))

    async def _finish(self, exchange: Exchange, asked: Request, call: FinishUpload, repo: Repo) -> web.StreamResponse:
        began = time.monotonic()
        try:
            async with self._writing(repo, call.upload, _PATIENCE) as upload:
                _check_order(exchange, upload)
                await self._take(exchange, upload)
                return await self._commit(exchange, asked, repo, upload, call.digest)
        except BlobUploadUnknown:
            # Finished before: its answer was lost, or could not wait. Where this one has waited for the end of that,
            # the link follows in a moment.
            until = began if time.monotonic() - began < _POLL else time.monotonic() + _SETTLE
            if not await self._is_there(repo, call.digest, until):
                raise
            return self._created(exchange, asked, call.digest)

    async def _is_there(self, repo: Repo, digest: Digest, until: float) -> bool:
        while True:
            with contextlib.suppress(BlobUnknown):
                await self._local.stat(Ask(repo, time.time()), digest)
                return True
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_POLL)

    async def _take(self, exchange: Exchange, upload: Upload) -> None:
        """The body, to the end of the upload. Raises NoSpace, ConnectionError, OSError."""
        upload.expect(exchange.request.content_length or 0)
        with contextlib.suppress(OSError):  # where no room can be made the write says so
            await self._room(exchange.request.content_length or 0)
        async for chunk in body(exchange):
            await upload.write(chunk)
            metrics.PUSHED.inc(len(chunk))

    async def _commit(
        self, exchange: Exchange, asked: Request, repo: Repo, upload: Upload, digest: Digest
    ) -> web.StreamResponse:
        """What takes longer than a client waits goes on, and whoever finishes the upload again finds it done. Raises
        DigestInvalid, Unavailable, OSError."""
        sealing = self._sealing[upload] = asyncio.ensure_future(self._seal(repo, upload, digest))
        done, _ = await asyncio.wait([sealing], timeout=_PATIENCE)
        if not done:
            raise _not_yet()
        del self._sealing[upload]
        if not sealing.result():
            raise DigestInvalid(f"what was uploaded is not {digest.short}; cancel the upload and begin anew")
        return self._created(exchange, asked, digest)

    async def _seal(self, repo: Repo, upload: Upload, digest: Digest) -> bool:
        """It becomes a blob of this repository, durably, if the digest fits. Raises OSError."""
        if not await upload.matches(digest):
            return False
        size = await upload.commit(self._local.files, digest)
        await self._local.add_blob(repo, digest, size)
        return True

    @asynccontextmanager
    async def _writing(self, repo: Repo, name: str, patience: float = 0) -> AsyncIterator[Upload]:
        """The session, ours alone; for `patience` seconds one that somebody else has is waited for. No room ends it:
        half of it would only take more."""
        upload = await self._opened(repo, name, patience)
        try:
            yield upload
        except ConnectionError:
            raise  # the client left; it may come back
        except (OSError, NoSpace):
            upload.forget()
            raise
        finally:
            closing = asyncio.ensure_future(self._close(upload))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            await asyncio.wait([closing], timeout=_SETTLE)

    async def _close(self, upload: Upload) -> None:
        """Once nothing is done with it any more: the lock is given up only then."""
        sealing = self._sealing.get(upload)
        if sealing is not None:
            await asyncio.wait([sealing])
            del self._sealing[upload]
            if not sealing.cancelled() and sealing.exception() is not None:
                upload.forget()
        await upload.close()

    async def _opened(self, repo: Repo, name: str, patience: float) -> Upload:
        deadline = time.monotonic() + patience
        while True:
            try:
                return await asyncio.to_thread(self._uploads.open, repo, name)
            except UploadOutOfOrder:
                if time.monotonic() > deadline:
                    if patience < _PATIENCE:
                        raise
                    raise _not_yet() from None
            await asyncio.sleep(_POLL)

    async def _put_manifest(
        self, exchange: Exchange, asked: Request, call: PutManifest, repo: Repo
    ) -> web.StreamResponse:
        content = await whole(exchange)
        media_type = exchange.request.headers.get("Content-Type", "").partition(";")[0].strip() or OCI_MANIFEST
        pushed.check(content, media_type)
        digest = call.reference if isinstance(call.reference, Digest) else Digest.of(content)
        if not digest.matches(content):
            raise DigestInvalid(f"the manifest is not {digest.short}")
        manifest = Manifest(Descriptor(digest, len(content), media_type), content)
        await self._local.put_manifest(repo, call.reference, manifest, call.tags)
        metrics.PUSHED.inc(len(content))
        sent = {"Location": _location(asked, f"manifests/{digest}"), "Docker-Content-Digest": str(digest)}
        subject = pushed.needs(content).subject
        sent |= {"OCI-Subject": str(subject)} if subject is not None else {}
        return _done(exchange, 201, sent, call.tags)

    def _session(self, asked: Request, upload: str, size: int) -> dict[str, str]:
        where = _location(asked, f"blobs/uploads/{upload}")
        return {"Location": where, "Range": f"0-{max(0, size - 1)}", "Docker-Upload-UUID": upload}

    def _created(self, exchange: Exchange, asked: Request, digest: Digest) -> web.StreamResponse:
        sent = {"Location": _location(asked, f"blobs/{digest}"), "Docker-Content-Digest": str(digest)}
        return _done(exchange, 201, sent)


def _not_yet() -> Unavailable:
    return Unavailable("the upload is still being read or written to the disk; finish it again", retry_after=1)


def _done(exchange: Exchange, status: int, sent: Mapping[str, str], tags: tuple[Tag, ...] = ()) -> web.StreamResponse:
    exchange.result = "hit"
    response = respond.whole(exchange, b"", {**respond.headers(), **sent}, status)
    for tag in tags:
        response.headers.add("OCI-Tag", tag)
    return response


def _location(asked: Request, path: str) -> str:
    """A path below the name as it was asked, with its ns."""
    name = getattr(asked.call, "name", "")
    namespace = f"?ns={quote(asked.namespace, safe='')}" if asked.namespace is not None else ""
    return f"/v2/{quote(name, safe='/:')}/{path}{namespace}"


def _check_order(exchange: Exchange, upload: Upload) -> None:
    """Content-Range of a chunk, `first-last`. Raises BlobUploadInvalid, UploadOutOfOrder."""
    text = exchange.request.headers.get("Content-Range")
    if text is None:
        return
    match = _RANGE.match(text)
    if match is None or int(match[2]) < int(match[1]):
        raise BlobUploadInvalid(f"Content-Range {text[:40]!r} is not first-last, such as 0-1023")
    first, last = int(match[1]), int(match[2])
    if first != upload.size:
        raise UploadOutOfOrder(f"the chunk begins at {first}, the upload stands at {upload.size}", upload.size)
    length = exchange.request.content_length
    if length is not None and length != last - first + 1:
        raise BlobUploadInvalid(f"Content-Range names {last - first + 1} bytes, Content-Length {length}")
