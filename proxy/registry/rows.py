"""What the index says of one upstream's names, typed. Rows are small, and every one can be asked for again.

`scope` is who may see a digest. An upstream without credentials is public: a digest got without credentials is visible
in every repository of every such upstream, no question asked, so all of them share one empty scope. With credentials
the scope is the repository, and a row is written only after that upstream answered 2xx for that digest in it; being
listed in a manifest proves nothing. What is shared says only what the bytes themselves say: a manifest's own media
type, a size that was verified. What somebody merely told, a manifest of its children, a HEAD of a blob, counts in its
own repository only: a hostile upstream breaks nothing elsewhere.

A row that this program did not write, or another version of it did, is a row that is not there: it is asked for again
and written over.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from proxy.oci.digest import Digest, is_digest
from proxy.oci.media import Descriptor, Manifest, children
from proxy.oci.names import Repo
from proxy.registry.renewal import Kept
from proxy.store.index import Index

_CHILDREN = 1000
"""Children of one manifest whose sizes are kept: no real index comes near, a hostile one has 60,000 in 8 MiB."""


class Rows:
    """The rows of one upstream."""

    def __init__(self, index: Index, upstream: str, public: bool) -> None:
        self._index = index
        self._upstream = upstream
        self.public = public

    def full(self, repo: Repo) -> str:
        """The repository's name on this machine."""
        return f"{self._upstream}/{repo}"

    def _scope(self, repo: Repo) -> str:
        return "" if self.public else self.full(repo)

    def manifest(self, repo: Repo, digest: Digest) -> Descriptor | None:
        """A manifest this repository may show."""
        match read(self._index.get(f"m:{self._scope(repo)}@{digest}")):
            case [str(media_type), size] if _is_size(size) and media_type.isascii() and media_type.isprintable():
                return Descriptor(digest, size, media_type)
        return None

    def blob(self, repo: Repo, digest: Digest) -> Descriptor | None:
        """A blob this repository may show."""
        row = self._index.get(f"b:{self._scope(repo)}@{digest}")
        size = None if row == "null" else _size(row)
        return Descriptor(digest, size) if row == "null" or size is not None else None

    def told_size(self, repo: Repo, digest: Digest) -> int | None:
        """What a manifest or a HEAD in this repository said of a blob's size. Permits nothing."""
        return _size(self._index.get(f"s:{self.full(repo)}@{digest}"))

    async def put_manifest(self, repo: Repo, manifest: Manifest) -> None:
        """The upstream answered with this manifest in this repository."""
        said = manifest.descriptor
        told = children(manifest.content)[:_CHILDREN]
        rows: dict[str, str | None] = {f"s:{self.full(repo)}@{child.digest}": str(child.size) for child in told}
        rows[f"m:{self._scope(repo)}@{said.digest}"] = json.dumps([said.media_type, said.size])
        await self._index.note(rows)

    async def put_blob(self, repo: Repo, digest: Digest, verified: int | None = None, told: int | None = None) -> None:
        """The upstream answered 2xx for this blob in this repository; its size, where it was verified or only told."""
        rows: dict[str, str | None] = {}
        if verified is not None or self.blob(repo, digest) is None:
            rows[f"b:{self._scope(repo)}@{digest}"] = json.dumps(verified)
        if told is not None:
            rows[f"s:{self.full(repo)}@{digest}"] = str(told)
        if rows:
            await self._index.note(rows)

    def kept(self, key: str) -> Kept[Any] | None:
        """A value that was asked for at some time: a tag's digest, a list."""
        match read(self._index.get(key)):
            case [value, int() | float() as checked, int() | float() as failed] if _is_value(key, value):
                return Kept(value, checked, failed) if math.isfinite(checked) and math.isfinite(failed) else None
        return None

    async def keep(self, key: str, kept: Kept[Any] | None) -> None:
        """Write such a value, None to forget it."""
        row = None if kept is None else json.dumps([kept.value, kept.checked_at, kept.failed_at])
        rows: Mapping[str, str | None] = {key: row}
        await self._index.note(rows)


def is_everybodys(index: Index, digest: Digest) -> bool:
    """Whether a digest was got without credentials, as far as the rows know."""
    rows, anywhere = Rows(index, "", True), Repo("")
    return rows.blob(anywhere, digest) is not None or rows.manifest(anywhere, digest) is not None


def read(row: str | None) -> Any:
    """What a row holds, None where there is none or it cannot be read."""
    try:
        return None if row is None else json.loads(row)
    except (ValueError, RecursionError):
        return None


def _size(row: str | None) -> int | None:
    size = read(row)
    return size if _is_size(size) else None


def _is_size(size: object) -> TypeGuard[int]:
    return type(size) is int and size >= 0


def _is_value(key: str, value: object) -> bool:
    """A tag's digest, a list of referrers, a list of tags: the key tells which."""
    if key.startswith("t:"):
        return isinstance(value, str) and is_digest(value)
    kind = dict if "@" in key else str
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)
