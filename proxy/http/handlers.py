"""Call -> registry method -> response. No `try` here: errors are raised through, the guard knows what they mean."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from aiohttp import web

from proxy.errors import LoopDetected
from proxy.http import respond
from proxy.http.exchange import Exchange
from proxy.oci.calls import Call, GetBlob, GetManifest, ListReferrers, ListRepositories, ListTags, Ping, Pull, Request
from proxy.oci.digest import Digest
from proxy.oci.media import BLOB, OCI_INDEX, Descriptor
from proxy.oci.pushes import DeleteManifest, PutManifest
from proxy.oci.ranges import Span, Wanted, parse_range
from proxy.ports import Answer, Ask, Filling, OpenBlob
from proxy.registry.route import Route

T = TypeVar("T")
_REFERRERS_PAGE = 1000


async def answer(exchange: Exchange, asked: Request, call: Pull, route: Route, ask: Ask) -> web.StreamResponse:
    """The response to one call that reads. Raises RegistryError, BodyBroken, ConnectionError."""
    match call:
        case GetManifest():
            return await _manifest(exchange, asked, call, route, ask)
        case GetBlob():
            return await _blob(exchange, asked, call, route, ask)
        case ListTags():
            return await _tags(exchange, asked, call, route, ask)
        case ListReferrers():
            return await _referrers(exchange, asked, call, route, ask)


def catalog(exchange: Exchange, asked: Request, call: ListRepositories, found: Sequence[str]) -> web.StreamResponse:
    """The repositories pushed here, as CNCF Distribution lists them."""
    page, more = _page([name for name in found if call.last is None or name > call.last], call.limit)
    link = _link(asked, "_catalog", {"n": call.limit, "last": page[-1]}) if more and page else {}
    return respond.document(exchange, {"repositories": page}, "application/json", **link)


def _noted(exchange: Exchange, found: Answer[T]) -> T:
    exchange.result = found.result
    exchange.upstream = found.by or exchange.upstream
    return found.value


def _content(asked: Request, route: Route, digest: Digest, media_type: str, warning: str) -> dict[str, str]:
    """The headers of content that has a digest."""
    text = str(digest)
    sent = respond.headers()
    sent["Content-Type"] = media_type
    sent["Docker-Content-Digest"] = text
    sent["ETag"] = f'"{text}"'
    if asked.namespace is not None:
        sent["OCI-Namespace"] = route.registry.name
    if warning:
        sent["Warning"] = warning
    return sent


def _has_it(exchange: Exchange, digest: Digest) -> bool:
    """Whether If-None-Match names what would be sent (RFC 9110 section 13.1.2)."""
    header = exchange.request.headers.get("If-None-Match")
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or f'"{digest}"' in tags


async def _manifest(
    exchange: Exchange, asked: Request, call: GetManifest, route: Route, ask: Ask
) -> web.StreamResponse:
    found = await route.registry.manifest(ask, call.reference)
    manifest = _noted(exchange, found)
    said = manifest.descriptor
    sent = _content(asked, route, said.digest, said.media_type, found.warning)
    if _has_it(exchange, said.digest):
        return respond.not_modified(exchange, sent)
    return respond.whole(exchange, manifest.content, sent)


async def _blob(exchange: Exchange, asked: Request, call: GetBlob, route: Route, ask: Ask) -> web.StreamResponse:
    sent = _content(asked, route, call.digest, BLOB, "") | {"Accept-Ranges": "bytes"}
    if asked.head or _has_it(exchange, call.digest):
        said = _noted(exchange, await route.registry.stat(ask, call.digest))
        return _head(exchange, said, sent)
    blob = _noted(exchange, await route.registry.blob(ask, call.digest))
    with contextlib.closing(blob):
        wanted = _wanted(exchange, call.digest)
        if isinstance(blob, OpenBlob):
            span = Span(0, blob.size) if wanted is None else wanted.within(blob.size)
            return await respond.file(exchange, blob.fd, span, *_partial(sent, wanted, span, blob.size))
        return await _filling(exchange, blob, wanted, sent)


def _head(exchange: Exchange, said: Descriptor, sent: dict[str, str]) -> web.StreamResponse:
    """Only the headers: to a HEAD, or to a GET by somebody who has it; neither starts a fill."""
    if _has_it(exchange, said.digest):
        return respond.not_modified(exchange, sent)
    exchange.status = 200
    if said.size is not None:
        sent["Content-Length"] = str(said.size)
    return web.Response(headers=sent)


def _wanted(exchange: Exchange, digest: Digest) -> Wanted | None:
    """The range to answer; If-Range that does not name this content means the whole (RFC 9110 section 13.1.5)."""
    if exchange.request.headers.get("If-Range", f'"{digest}"') != f'"{digest}"':
        return None
    return parse_range(exchange.request.headers.get("Range"))


def _partial(sent: dict[str, str], wanted: Wanted | None, span: Span, size: int) -> tuple[Mapping[str, str], int]:
    if wanted is None:
        return sent, 200
    return sent | {"Content-Range": f"bytes {span.start}-{span.stop - 1}/{size}"}, 206


async def _filling(
    exchange: Exchange, blob: Filling, wanted: Wanted | None, sent: dict[str, str]
) -> web.StreamResponse:
    """Out of the running fill. Without a size there is no Content-Range to give, so the whole is the answer."""
    if blob.size is None:
        return await respond.growing_unknown(exchange, blob, sent)
    span = Span(0, blob.size) if wanted is None else wanted.within(blob.size)
    named, status = _partial(sent, wanted, span, blob.size)
    if wanted is not None and (body := await blob.bypass(span)) is not None:
        exchange.result = "bypass"
        return respond.whole(exchange, body, named, status)
    return await respond.growing(exchange, blob, span, named, status)


async def _tags(exchange: Exchange, asked: Request, call: ListTags, route: Route, ask: Ask) -> web.StreamResponse:
    found = await route.registry.tags(ask)
    after = [tag for tag in _noted(exchange, found) if call.last is None or tag > call.last]
    page, more = _page(after, call.limit)
    link = _link(asked, f"{call.name}/tags/list", {"n": call.limit, "last": page[-1]}) if more and page else {}
    return respond.document(exchange, {"name": call.name, "tags": page}, "application/json", **link)


async def _referrers(
    exchange: Exchange, asked: Request, call: ListReferrers, route: Route, ask: Ask
) -> web.StreamResponse:
    found = _noted(exchange, await route.registry.referrers(ask, call.digest))
    wanted = [entry for entry in found if call.artifact_type in (None, entry.get("artifactType"))]
    wanted = sorted(wanted, key=lambda entry: str(entry.get("digest")))
    after = [entry for entry in wanted if call.last is None or str(entry.get("digest")) > call.last]
    limit = _REFERRERS_PAGE if call.limit is None else call.limit
    page, more = _page(after, limit)
    more_headers: dict[str, str] = {}
    if more and page:
        query = {"artifactType": call.artifact_type, "n": limit, "last": page[-1].get("digest")}
        more_headers = _link(asked, f"{call.name}/referrers/{call.digest}", query)
    if call.artifact_type is not None:
        more_headers["OCI-Filters-Applied"] = "artifactType"
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}
    return respond.document(exchange, index, OCI_INDEX, **more_headers)


def _page(entries: Sequence[T], limit: int | None) -> tuple[Sequence[T], bool]:
    if limit is None or len(entries) <= limit:
        return entries, False
    return entries[:limit], True


def _link(asked: Request, path: str, query: Mapping[str, Any]) -> dict[str, str]:
    """RFC 8288 next link, with the name and the ns as they were asked."""
    fields = {key: value for key, value in {**query, "ns": asked.namespace}.items() if value is not None}
    return {"Link": f'</v2/{quote(path, safe="/:")}?{urlencode(fields)}>; rel="next"'}


def check_loop(via: str, instance: str) -> None:
    """Raises LoopDetected when a request has been here before; names both ends."""
    passed = [part.strip().rpartition(" ")[2] for part in via.split(",")]
    if instance in passed:
        raise LoopDetected(
            f"a loop: {instance} is asked by {passed[-1]} for what it asks itself; check [upstreams] urls"
        )


def describe(exchange: Exchange, call: Call) -> None:
    """Say on the exchange what was asked."""
    match call:
        case GetManifest():
            exchange.kind = "manifest" if isinstance(call.reference, Digest) else "tag"
            exchange.reference = str(call.reference)
        case GetBlob():
            exchange.kind, exchange.reference = "blob", str(call.digest)
        case ListTags():
            exchange.kind = "tags"
        case ListReferrers():
            exchange.kind, exchange.reference = "referrers", str(call.digest)
        case Ping():
            exchange.kind = "ping"
        case ListRepositories():
            exchange.kind = "catalog"
        case PutManifest() | DeleteManifest():
            exchange.kind, exchange.reference = "push", str(call.reference)
        case _:
            exchange.kind = "push"
