"""A plain HTTP client of one registry: requests as a test words them, answers as they came. Nothing here decides.

One connection a request, so that no answer can lean on an earlier one and any worker may take it. Helpers that push
assert that it worked; whatever a test is about it asks itself, through `ask` and the paths.
"""

import contextlib
import http.client
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

from tests.conformance.content import ACCEPT, OCTETS, Content

Body = bytes | Iterable[bytes] | None


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """One answer; `request` is the method and path it belongs to."""

    request: str
    status: int
    headers: Message
    body: bytes

    def __repr__(self) -> str:
        return f"<{self.request}: {self.status} {dict(self.headers)} {self.body[:300]!r}>"

    def expect(self, *statuses: int) -> "Answer":
        """Itself, when the status is one of these."""
        assert self.status in statuses, f"not {' or '.join(map(str, statuses))}: {self!r}"
        return self

    def refused(self, status: int, code: str) -> "Answer":
        """Itself, when it is an error document with this code among its errors."""
        self.expect(status)
        assert code in self.codes(), f"no {code} in {self!r}"
        return self

    def header(self, name: str) -> str:
        """The value of a header that has to be there."""
        value = self.headers.get(name)
        assert value is not None, f"no {name} in {self!r}"
        return str(value)

    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"no JSON: {self!r}") from None

    def codes(self) -> list[str]:
        """The codes of an error document."""
        document = self.json()
        assert isinstance(document, dict) and isinstance(document.get("errors"), list), f"no errors in {self!r}"
        return [error["code"] for error in document["errors"]]

    def next(self) -> str | None:
        """Where the Link header with rel="next" leads, None when there is none."""
        link = self.headers.get("Link")
        if link is None:
            return None
        target, _, parameters = link.partition(">")
        assert target.startswith("<") and 'rel="next"' in parameters, f"not an RFC 5988 link: {link!r}"
        return str(target[1:])


@dataclass(frozen=True, slots=True)
class Registry:
    """One registry under test at `url`."""

    name: str
    url: str
    timeout: float = 20

    def ask(self, method: str, path: str, body: Body = None, **headers: str) -> Answer:
        """Any request. `path` may be a whole URL of this registry; header names have _ for -; an iterable body goes
        out in HTTP chunks, without Content-Length."""
        target = urlsplit(urljoin(self.url, path))
        assert target.netloc == urlsplit(self.url).netloc, f"{path} leads away from {self.url}"
        where = target._replace(scheme="", netloc="").geturl()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(target.netloc, timeout=self.timeout)
        with contextlib.closing(connection):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # answered before it read all of it
                connection.request(method, where, body=body, headers=named)
            response = connection.getresponse()
            return Answer(f"{method} {where}", response.status, response.headers, whole(response))

    def repository(self, name: str) -> "Repository":
        return Repository(self, name)


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository of it."""

    registry: Registry
    name: str

    def path(self, rest: str, **query: str | int | list[str]) -> str:
        """The path of `rest` under /v2/<name>/."""
        asked = urlencode(query, doseq=True)
        return f"/v2/{self.name}/{rest}" + (f"?{asked}" if asked else "")

    def ask(self, method: str, rest: str, body: Body = None, **headers: str) -> Answer:
        return self.registry.ask(method, self.path(rest), body, **headers)

    # Pull

    def blob(self, digest: str, method: str = "GET", **headers: str) -> Answer:
        return self.ask(method, f"blobs/{digest}", None, **headers)

    def manifest(self, reference: str, method: str = "GET", accept: str = ACCEPT) -> Answer:
        return self.ask(method, f"manifests/{reference}", Accept=accept)

    def tags(self, **query: str | int) -> Answer:
        return self.registry.ask("GET", self.path("tags/list", **query))

    def referrers(self, digest: str, **query: str) -> Answer:
        return self.registry.ask("GET", self.path(f"referrers/{digest}", **query))

    # Push

    def begin(self, **query: str) -> Answer:
        """Opens an upload session, or what the query makes of it; `digest_algorithm` stands for digest-algorithm."""
        named = {name.replace("_", "-"): value for name, value in query.items()}
        return self.registry.ask("POST", self.path("blobs/uploads/", **named))

    def session(self) -> str:
        """The location of a fresh session."""
        return self.begin().expect(202).header("Location")

    def patch(self, location: str, chunk: Body, start: int | None = None) -> Answer:
        """One chunk; with `start` it says where it belongs."""
        place = {}
        if start is not None and isinstance(chunk, bytes):
            place["Content_Range"] = f"{start}-{start + len(chunk) - 1}"
        return self.registry.ask("PATCH", location, chunk, Content_Type=OCTETS, **place)

    def finish(self, location: str, digest: str | None, body: Body = None, **headers: str) -> Answer:
        """Closes a session; without `digest` the parameter is missing."""
        return self.registry.ask("PUT", located(location, digest), body, Content_Type=OCTETS, **headers)

    def push_blob(self, content: Content) -> Content:
        self.finish(self.session(), content.digest, content.body).expect(201)
        return content

    def put_manifest(self, content: Content, reference: str | None = None, **query: str | list[str]) -> Answer:
        """By digest unless a reference is given."""
        path = self.path(f"manifests/{reference or content.digest}", **query)
        return self.registry.ask("PUT", path, content.body, Content_Type=content.media_type)

    def push(self, content: Content, reference: str | None = None) -> Content:
        """A manifest whose parts are there already."""
        self.put_manifest(content, reference).expect(201)
        return content

    def push_all(self, content: Content, reference: str | None = None) -> Content:
        """A manifest after everything it is made of."""
        for part in content.parts:
            if part.is_manifest:
                self.push_all(part)
            else:
                self.push_blob(part)
        return self.push(content, reference)


def whole(response: http.client.HTTPResponse) -> bytes:
    """The body, which has to be as long as it was announced."""
    try:
        return response.read()
    except http.client.IncompleteRead as cut:
        raise AssertionError(f"{response.status}, {cut.expected} bytes missing after {cut.partial!r}") from None


def located(location: str, digest: str | None) -> str:
    """A session's location with the digest added to the query it may already have."""
    if digest is None:
        return location
    return f"{location}{'&' if urlsplit(location).query else '?'}digest={quote(digest, safe=':')}"


def headers_of(content: Content) -> Mapping[str, str]:
    """What every successful answer about this content has to say."""
    return {"Docker-Content-Digest": content.digest, "Content-Length": str(len(content.body))}


def is_about(answer: Answer, content: Content) -> None:
    """A 200 with the headers of this content; with its bytes too, unless it answers a HEAD."""
    answer.expect(200)
    for name, value in headers_of(content).items():
        assert answer.header(name) == value, answer
    assert answer.body == (b"" if answer.request.startswith("HEAD") else content.body), answer
