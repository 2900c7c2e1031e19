"""What was found bad, fetched again: whoever asks for it next would do it too, but what is pinned, or is asked for when
the upstream is away, must not wait for that.

Which image needs a blob is looked up when one is bad, in the manifests that are here, from what was asked for. What no
image needs is left to whoever asks.
"""

import logging
from collections.abc import Awaitable, Callable

from proxy.errors import BodyBroken, DigestInvalid, RegistryError
from proxy.oci.digest import Digest
from proxy.oci.media import MANIFEST_LIMIT, children
from proxy.store.catalogue import Catalogue
from proxy.store.files import Files

Fetch = Callable[[str, Digest, bool], Awaitable[None]]
"""Fetch a blob again: the repository with its upstream, the digest, whether it is a manifest there. Raises
RegistryError, BodyBroken, OSError."""
_log = logging.getLogger("tidegate.care")


async def fetched(fetch: Fetch, repository: str, digest: Digest, manifest: bool) -> bool:
    """Whether it could be; the log says."""
    try:
        await fetch(repository, digest, manifest)
    except (RegistryError, BodyBroken, OSError) as error:
        _log.warning("%s cannot be fetched again from %s: %s", digest.short, repository, error)
        return False
    _log.info("%s was fetched again from %s", digest.short, repository)
    return True


def needed_by(files: Files, catalogue: Catalogue, digest: Digest) -> tuple[str, bool] | None:
    """A repository one of whose images needs a blob, and whether it is a manifest there. Blocks. Raises OSError."""
    for named in catalogue.images():
        if (found := _need(files, named.digest, digest)) is not None:
            return named.repository, found
    return None


def _need(files: Files, root: str, digest: Digest) -> bool | None:
    """Whether the image below `root` needs a blob: as a manifest, as a layer or not at all (None)."""
    waiting, seen = [root], set[str]()
    while waiting:
        name = waiting.pop()
        if name == digest.text:
            return True
        seen.add(name)
        below = _children(files, name)
        if digest.text in below:
            return below[digest.text]
        waiting += [child for child, manifest in below.items() if manifest and child not in seen]
    return None


def _children(files: Files, name: str) -> dict[str, bool]:
    """What a manifest that is here points at, and whether those are manifests again."""
    try:
        with open(files.path(Digest.parse(name)), "rb") as file:
            content = file.read(MANIFEST_LIMIT)
    except (OSError, DigestInvalid):
        return {}
    return {child.digest.text: _is_manifest(child.media_type) for child in children(content)}


def _is_manifest(media_type: str) -> bool:
    return "manifest" in media_type or ".image.index." in media_type
