"""Method, path and query -> one of a closed set of calls, each with its end-N of the distribution-spec.

Parsed once, here; whoever holds a call holds valid digests, references and numbers. The name is still the text of
the path, because what it means (prefix, alias, repository) is for routing to say. Writes are recognised so that they
get 405 and not 404.
"""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from proxy.errors import NameInvalid, NoSuchPath, RequestInvalid, Unsupported
from proxy.oci import pushes
from proxy.oci.digest import Digest
from proxy.oci.names import Reference, Tag, parse_reference
from proxy.oci.pushes import Push

PAGE_LIMIT = 10_000
_NAME = r"(?P<name>[^/?#\s]+(?:/[^/?#\s]+)*)"
_PATHS = [
    (re.compile(rf"/v2/{_NAME}/{shape}\Z"), kind)
    for shape, kind in (
        (r"manifests/(?P<rest>[^/]+)", "manifests"),
        (r"blobs/uploads/?(?P<rest>)", "uploads"),
        (r"blobs/uploads/(?P<rest>[^/]+)", "upload"),
        (r"blobs/(?P<rest>[^/]+)", "blobs"),
        (r"tags/list(?P<rest>)", "tags"),
        (r"referrers/(?P<rest>[^/]+)", "referrers"),
    )
]
_READS = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True)
class Ping:
    """end-1: GET /v2/"""


@dataclass(frozen=True, slots=True)
class GetBlob:
    """end-2: GET or HEAD /v2/<name>/blobs/<digest>"""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class GetManifest:
    """end-3: GET or HEAD /v2/<name>/manifests/<reference>"""

    name: str
    reference: Reference


@dataclass(frozen=True, slots=True)
class ListTags:
    """end-8a, end-8b: GET /v2/<name>/tags/list?n=&last="""

    name: str
    limit: int | None
    last: str | None


@dataclass(frozen=True, slots=True)
class ListReferrers:
    """end-12a, end-12b: GET /v2/<name>/referrers/<digest>?artifactType=&n=&last="""

    name: str
    digest: Digest
    artifact_type: str | None
    limit: int | None
    last: str | None


@dataclass(frozen=True, slots=True)
class ListRepositories:
    """GET /v2/_catalog?n=&last= (CNCF Distribution's; the specification has none)"""

    limit: int | None
    last: str | None


Pull = GetBlob | GetManifest | ListTags | ListReferrers
Call = Ping | ListRepositories | Pull | Push


@dataclass(frozen=True, slots=True)
class Request:
    """A call, and the namespace the client says it means (containerd's `ns`), as sent."""

    call: Call
    namespace: str | None
    head: bool


def parse(method: str, raw_path: str, pushing: bool = False) -> Request:
    """The request behind a method and an undecoded path with query. Without `pushing` nothing here takes anything.

    Raises NoSuchPath, NameInvalid, DigestInvalid, RequestInvalid, Unsupported.
    """
    encoded, _, raw_query = _origin_form(raw_path).partition("?")
    path = unquote(encoded, errors="replace") if "%" in encoded else encoded
    query = _query(raw_query) if method in _READS else dict(_pairs(raw_query, 2 * pushes.TAGS_AT_ONCE))
    namespace = query.get("ns") or None
    if path in ("/v2/", "/v2"):
        _must_read(method, "the registry's root")
        return Request(Ping(), namespace, method == "HEAD")
    if path == "/v2/_catalog" and pushing:
        _must_read(method, "the catalog")
        return Request(ListRepositories(_limit(query), query.get("last") or None), namespace, method == "HEAD")
    for shape, kind in _PATHS:
        if match := shape.match(path):
            name, rest = match["name"], match["rest"]
            _check_name(name)
            if pushing and pushes.writes(kind, method):
                return Request(pushes.parse(kind, method, name, rest, _lists(raw_query)), namespace, False)
            allow = pushes.allowed(kind) if pushing else "GET, HEAD"
            return Request(_call(kind, name, rest, method, query, allow), namespace, method == "HEAD")
    raise NoSuchPath(f"{path[:80]!r} is not a path of the registry API")


def _origin_form(target: str) -> str:
    """The path of a target that names us too, as clients write it that take us for their proxy (RFC 9112, 3.2.2)."""
    scheme, found, rest = target.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        return target
    return f"/{rest.partition('/')[2]}"


def _call(kind: str, name: str, rest: str, method: str, query: dict[str, str], allow: str) -> Call:
    if kind in ("uploads", "upload") and allow == "GET, HEAD":
        raise Unsupported(f"{name} is a mirror: it takes no uploads; push to the registry it mirrors")
    if kind in ("uploads", "upload"):
        raise Unsupported(f"{method[:10]} is not possible with uploads of {name}", allow)
    _must_read(method, name, allow)
    match kind:
        case "manifests":
            return GetManifest(name, parse_reference(rest))
        case "blobs":
            return GetBlob(name, Digest.parse(rest))
        case "tags":
            return ListTags(name, _limit(query), _last_tag(query))
        case _:
            artifact_type = query.get("artifactType") or None
            return ListReferrers(name, Digest.parse(rest), artifact_type, _limit(query), query.get("last") or None)


def _check_name(name: str) -> None:
    if len(name) > 512 or "\0" in name or ".." in name.split("/"):
        raise NameInvalid(f"{name[:80]!r} is not a repository name")


def _must_read(method: str, what: str, allow: str = "GET, HEAD") -> None:
    if method not in _READS:
        raise Unsupported(f"{what} is read-only: {method[:10]} is not possible, {allow} are", allow)


def _query(raw: str) -> dict[str, str]:
    return dict(_pairs(raw, 32)) if raw else {}


def _lists(raw: str) -> dict[str, list[str]]:
    """A query whose fields may stand several times."""
    found: dict[str, list[str]] = {}
    for key, value in _pairs(raw, 2 * pushes.TAGS_AT_ONCE):
        found.setdefault(key, []).append(value)
    return found


def _pairs(raw: str, most: int) -> list[tuple[str, str]]:
    try:
        return parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=most)
    except ValueError:
        raise RequestInvalid(f"the query cannot be read: wrong escapes or more than {most} fields") from None


def _limit(query: dict[str, str]) -> int | None:
    text = query.get("n")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RequestInvalid(f"n={text[:20]!r} is not a number of entries")
    return min(int(text), PAGE_LIMIT)


def _last_tag(query: dict[str, str]) -> str | None:
    last = query.get("last")
    return Tag.parse(last) if last else None
