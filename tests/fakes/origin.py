"""A registry in memory that misbehaves on demand.

Hand-written HTTP/1.1 over asyncio streams, because a real server library refuses to send most of what is sent here.
Content, faults and answers are plain values; one method writes. Not here: what a fault does (faults.py).
"""

import asyncio
import hashlib
import http
import json
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs

from tests.fakes.auth import Basic, Bearer
from tests.fakes.faults import Answer, Fault
from tests.fakes.log import Log, Request

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

_PATH = re.compile(r"/v2/(?P<repo>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<rest>[^/]+)\Z")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")


@dataclass(slots=True)
class Rule:
    """Faults for requests whose path and query contain `contains`; `left` None: for ever."""

    contains: str
    faults: tuple[Fault, ...]
    left: int | None
    method: str | None
    used: int = 0

    def take(self, request: Request) -> bool:
        """Whether this rule is for the request, counted when it is."""
        if self.left == 0 or not request.matches(self.method, self.contains):
            return False
        self.used += 1
        self.left = None if self.left is None else self.left - 1
        return True


@dataclass(slots=True)
class Repository:
    """One repository's content, all by digest but the tags."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """What add_image made: digests, and each blob's bytes by digest."""

    repo: str
    tag: str
    digest: str
    manifest: bytes
    blobs: dict[str, bytes]


class Origin:
    """`async with Origin() as origin:` listens on a free port of 127.0.0.1 until left.

    `log` holds every request; `auth` may be set to Basic or Bearer; `refusing = True` drops every connection, old and
    new, as a host that is down does. With `tls` it speaks https.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.log = Log()
        self._tls = tls
        self.auth: Basic | Bearer | None = None
        self.refusing = False
        self.repos: dict[str, Repository] = {}
        self.rules: list[Rule] = []
        self.page = 1000  # tags per page when `n` is not given
        self.has_referrers = True
        self.host = ""
        self.url = ""
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=4 << 20, ssl=self._tls)
        self.host = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self.url = f"{'https' if self._tls else 'http'}://{self.host}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    # Content

    def add_blob(self, repo: str, content: bytes, algorithm: str = "sha256") -> str:
        """Returns the digest."""
        digest = _digest(content, algorithm)
        self._repo(repo).blobs[digest] = content
        return digest

    def add_manifest(
        self, repo: str, tag: str | None, content: bytes, media_type: str = OCI_MANIFEST, algorithm: str = "sha256"
    ) -> str:
        """Returns the digest; moves the tag there, if one is given."""
        digest = _digest(content, algorithm)
        self._repo(repo).manifests[digest] = (content, media_type)
        if tag is not None:
            self._repo(repo).tags[tag] = digest
        return digest

    def add_image(self, repo: str, tag: str, *layers: bytes, subject: str | None = None) -> Image:
        """An OCI image of these layers, its config made up from the tag."""
        config = json.dumps({"architecture": "amd64", "os": "linux", "tag": tag}).encode()
        blobs = {self.add_blob(repo, content): content for content in (config, *layers)}
        document: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config),
            "layers": [descriptor(OCI_LAYER, layer) for layer in layers],
        }
        if subject is not None:
            document["subject"] = {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}
        manifest = json.dumps(document).encode()
        return Image(repo, tag, self.add_manifest(repo, tag, manifest), manifest, blobs)

    def fault(self, contains: str, *faults: Fault, times: int | None = None, method: str | None = None) -> Rule:
        """The first rule that fits and has times left decides; `rule.used` says how often it did."""
        rule = Rule(contains, faults, times, method)
        self.rules.append(rule)
        return rule

    def count(self, method: str | None = None, contains: str | None = None) -> int:
        """Requests so far with this method and this text in path or query."""
        return self.log.count(method, contains)

    def _repo(self, name: str) -> Repository:
        return self.repos.setdefault(name, Repository())

    # Connections

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client left
        except asyncio.CancelledError:
            writer.transport.abort()  # the test is over; what a client never read would keep the socket open
        finally:
            self._serving.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether the connection lives on."""
        head = await reader.readuntil(b"\r\n\r\n")
        if self.refusing:
            writer.transport.abort()
            return False
        request = _parse(head)
        await reader.readexactly(int(request.headers.get("content-length", 0)))
        self.log.append(request)
        answer = self._decide(request)
        return await self._send(request, answer, reader, writer)

    def _decide(self, request: Request) -> Answer:
        rule = next((rule for rule in self.rules if rule.take(request)), None)
        faults = rule.faults if rule else ()
        answer = self._answer(request, ranged=all(fault.keeps_range for fault in faults))
        for fault in faults:
            fault.bend(answer)
        return answer

    async def _send(
        self, request: Request, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        await asyncio.sleep(answer.wait)
        if answer.silent:
            await _until_gone(reader)
        if answer.silent or answer.hang_up:
            return False
        request.status = answer.status
        writer.write(_head(answer))
        await writer.drain()
        if request.method != "HEAD":
            await self._send_body(request, answer, reader, writer)
        return answer.cut is None and answer.framing != "close"

    async def _send_body(
        self, request: Request, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        limits = [limit for limit in (answer.cut, answer.stall, len(answer.body)) if limit is not None]
        body = memoryview(answer.body)[: min(limits)]
        chunked = answer.framing == "chunked"
        for start in range(0, len(body), answer.piece):
            piece = body[start : start + answer.piece]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)) if chunked else piece)
            await writer.drain()
            request.sent += len(piece)
            if answer.pause:
                await asyncio.sleep(answer.pause)
        if answer.stall is not None:
            await _until_gone(reader)
        elif chunked and answer.cut is None:
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    # Answers

    def _answer(self, request: Request, ranged: bool) -> Answer:
        if request.path == "/token" and isinstance(self.auth, Bearer):
            document = self.auth.issue(request.query, request.headers.get("authorization", ""))
            return _error(401, "UNAUTHORIZED") if document is None else _json(document)
        found = _PATH.match(request.path)
        scope = f"repository:{found['repo']}:pull" if found else ""
        if self.auth and not self.auth.allows(request.headers.get("authorization", ""), scope):
            refusal = _error(401, "UNAUTHORIZED")
            refusal.headers["WWW-Authenticate"] = self.auth.challenge(self.url, scope)
            return refusal
        if request.path in ("/v2", "/v2/"):
            return Answer(200, headers={"Docker-Distribution-Api-Version": "registry/2.0"})
        if request.method not in ("GET", "HEAD"):
            return _error(405, "UNSUPPORTED")
        if not found or found["repo"] not in self.repos:
            return _error(404, "NAME_UNKNOWN")
        answers: dict[str, Callable[[], Answer]] = {
            "manifests": lambda: self._manifest(found["repo"], found["rest"]),
            "blobs": lambda: self._blob(found["repo"], found["rest"], request.headers.get("range") if ranged else None),
            "tags": lambda: self._tags(found["repo"], request),
            "referrers": lambda: self._referrers(found["repo"], found["rest"], request),
        }
        return answers[found["kind"]]()

    def _manifest(self, repo: str, reference: str) -> Answer:
        digest = self.repos[repo].tags.get(reference, reference)
        if digest not in self.repos[repo].manifests:
            return _error(404, "MANIFEST_UNKNOWN")
        content, media_type = self.repos[repo].manifests[digest]
        return Answer(200, content, {"Content-Type": media_type, "Docker-Content-Digest": digest})

    def _blob(self, repo: str, digest: str, wanted: str | None) -> Answer:
        content = self.repos[repo].blobs.get(digest)
        if content is None:
            return _error(404, "BLOB_UNKNOWN")
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
        }
        size = len(content)
        found = _RANGE.match(wanted or "")
        if not found:
            return Answer(200, content, headers, total=size)
        start, end = int(found[1]), min(int(found[2] or size - 1), size - 1)
        if start > end:
            return Answer(416, b"", {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{end}/{size}"
        return Answer(206, memoryview(content)[start : end + 1], headers, start=start, total=size)

    def _tags(self, repo: str, request: Request) -> Answer:
        query = {key: values[0] for key, values in parse_qs(request.query).items()}
        names = sorted(name for name in self.repos[repo].tags if name > query.get("last", ""))
        limit = int(query.get("n", self.page))
        answer = _json({"name": repo, "tags": names[:limit]})
        if len(names) > limit > 0:
            answer.headers["Link"] = f'</v2/{repo}/tags/list?n={limit}&last={names[limit - 1]}>; rel="next"'
        return answer

    def _referrers(self, repo: str, digest: str, request: Request) -> Answer:
        if not self.has_referrers:
            return _error(404, "NOT_FOUND")
        wanted = parse_qs(request.query).get("artifactType", [None])[0]
        rows = []
        for content, media_type in self.repos[repo].manifests.values():
            document = json.loads(content)
            kind = document.get("artifactType") or document.get("config", {}).get("mediaType")
            if document.get("subject", {}).get("digest") == digest and wanted in (None, kind):
                rows.append(descriptor(media_type, content) | {"artifactType": kind})
        answer = _json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}, OCI_INDEX)
        if wanted is not None:
            answer.headers["OCI-Filters-Applied"] = "artifactType"
        return answer


def descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    """What a manifest says of `content`."""
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def _parse(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    path, _, query = target.partition("?")
    pairs = (line.partition(":") for line in lines if line)
    return Request(method, path, query, {name.lower(): value.strip() for name, _, value in pairs})


def _head(answer: Answer) -> bytes:
    headers = dict(answer.headers)
    match answer.framing:
        case "chunked":
            headers["Transfer-Encoding"] = "chunked"
        case "length":
            headers["Content-Length"] = str(len(answer.body) if answer.length is None else answer.length)
        case "close":
            headers["Connection"] = "close"
    reason = answer.reason or http.HTTPStatus(answer.status).phrase
    lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _json(document: object, media_type: str = "application/json") -> Answer:
    return Answer(200, json.dumps(document).encode(), {"Content-Type": media_type})


def _error(status: int, code: str) -> Answer:
    answer = _json({"errors": [{"code": code, "message": code.lower(), "detail": None}]})
    answer.status = status
    return answer


async def _until_gone(reader: asyncio.StreamReader) -> None:
    """Holds the connection open until the other side closes it."""
    while await reader.read(65536):
        pass
