"""The calls that write, each with its end-N of the distribution-spec. Parsed like the others (calls.py)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from proxy.errors import DigestInvalid, NameInvalid, RequestInvalid
from proxy.oci.digest import Digest
from proxy.oci.names import Reference, Repo, Tag, parse_reference

TAGS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class StartUpload:
    """end-4a, end-4b, end-11: POST /v2/<name>/blobs/uploads/[?digest=][?mount=&from=][?digest-algorithm=]"""

    name: str
    digest: Digest | None
    mount: Digest | None
    source: Repo | None
    algorithm: str


@dataclass(frozen=True, slots=True)
class AppendUpload:
    """end-5: PATCH /v2/<name>/blobs/uploads/<id>"""

    name: str
    upload: str


@dataclass(frozen=True, slots=True)
class FinishUpload:
    """end-6: PUT /v2/<name>/blobs/uploads/<id>?digest="""

    name: str
    upload: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """end-13: GET /v2/<name>/blobs/uploads/<id>"""

    name: str
    upload: str


@dataclass(frozen=True, slots=True)
class CancelUpload:
    """end-14: DELETE /v2/<name>/blobs/uploads/<id>"""

    name: str
    upload: str


@dataclass(frozen=True, slots=True)
class PutManifest:
    """end-7a, end-7b: PUT /v2/<name>/manifests/<reference>[?tag=...]"""

    name: str
    reference: Reference
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class DeleteManifest:
    """end-9: DELETE /v2/<name>/manifests/<reference>"""

    name: str
    reference: Reference


@dataclass(frozen=True, slots=True)
class DeleteBlob:
    """end-10: DELETE /v2/<name>/blobs/<digest>"""

    name: str
    digest: Digest


Push = (
    StartUpload | AppendUpload | FinishUpload | UploadStatus | CancelUpload | PutManifest | DeleteManifest | DeleteBlob
)
_NOWHERE = Repo("-")
"""No repository can be called that."""
Query = Mapping[str, Sequence[str]]


def _start(name: str, rest: str, query: Query) -> Push:
    mount = _one(query, "mount")
    source = _one(query, "from")
    algorithm = _one(query, "digest-algorithm") or "sha256"
    if algorithm not in ("sha256", "sha512"):
        raise DigestInvalid(f"digest-algorithm={algorithm[:40]!r} is not one spoken here; sha256 and sha512 are")
    digest = _one(query, "digest")
    return StartUpload(
        name,
        Digest.parse(digest) if digest is not None else None,
        Digest.parse(mount) if mount is not None else None,
        _source(source or ""),
        algorithm,
    )


def _source(text: str) -> Repo | None:
    """Where to mount from. What is no repository's name here (another registry's, say) has nothing to mount: the
    specification's answer is an upload, which a client goes on with."""
    try:
        return Repo.parse(text) if text else None
    except NameInvalid:
        return _NOWHERE


def _finish(name: str, rest: str, query: Query) -> Push:
    digest = _one(query, "digest")
    if digest is None:
        raise DigestInvalid("an upload is finished with ?digest=, and there is none")
    return FinishUpload(name, rest, Digest.parse(digest))


def _put_manifest(name: str, rest: str, query: Query) -> Push:
    tags = query.get("tag", ())
    if len(tags) > TAGS_AT_ONCE:
        raise RequestInvalid(f"{len(tags)} tags at once; at most {TAGS_AT_ONCE}")
    return PutManifest(name, parse_reference(rest), tuple(Tag.parse(tag) for tag in tags))


_Parse = Callable[[str, str, Query], Push]
_WRITES: Mapping[tuple[str, str], _Parse] = {
    ("uploads", "POST"): _start,
    ("upload", "PATCH"): lambda name, rest, _: AppendUpload(name, rest),
    ("upload", "PUT"): _finish,
    ("upload", "GET"): lambda name, rest, _: UploadStatus(name, rest),
    ("upload", "DELETE"): lambda name, rest, _: CancelUpload(name, rest),
    ("manifests", "PUT"): _put_manifest,
    ("manifests", "DELETE"): lambda name, rest, _: DeleteManifest(name, parse_reference(rest)),
    ("blobs", "DELETE"): lambda name, rest, _: DeleteBlob(name, Digest.parse(rest)),
}
_READS = {"manifests": ("GET", "HEAD"), "blobs": ("GET", "HEAD"), "tags": ("GET", "HEAD"), "referrers": ("GET", "HEAD")}


def writes(kind: str, method: str) -> bool:
    """Whether a method on such a path is a call of the pushing half."""
    return (kind, method) in _WRITES


def allowed(kind: str) -> str:
    """What Allow says of such a path in a registry that takes pushes."""
    return ", ".join([*_READS.get(kind, ()), *(method for path, method in _WRITES if path == kind)])


def parse(kind: str, method: str, name: str, rest: str, query: Query) -> Push:
    """Raises DigestInvalid, NameInvalid, RequestInvalid."""
    return _WRITES[kind, method](name, rest, query)


def _one(query: Query, key: str) -> str | None:
    found = query.get(key, ())
    return found[-1] if found else None
