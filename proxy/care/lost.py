"""What was found bad, fetched again: whoever asks for it next would do it too, but what is pinned, or is asked for when
the upstream is away, must not wait for that.

Which image needs a blob is looked up when one is bad, in the manifests that are here. What no image needs is left to
whoever asks.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from proxy.care.pins import Pins
from proxy.errors import BodyBroken, DigestInvalid, RegistryError
from proxy.oci.digest import Digest
from proxy.oci.media import MANIFEST_LIMIT, children
from proxy.store.catalogue import Catalogue
from proxy.store.files import Files

Fetch = Callable[[str, Digest, bool], Awaitable[None]]
"""Fetch a blob again: the repository with its upstream, the digest, whether it is a manifest there. Raises
RegistryError, BodyBroken, OSError."""
Images = Callable[[], Iterable[tuple[str, str]]]
"""The images that should be whole: repository with its upstream, digest of the first manifest. Blocks. Raises
OSError."""
_log = logging.getLogger("tidegate.care")


def images_to_keep(catalogue: Catalogue, pins: Pins) -> Images:
    """What is pinned, then what was asked for."""

    def images() -> Iterator[tuple[str, str]]:
        for pinned in pins.sets().values():
            yield from ((pin.repository, pin.digest) for pin in pinned)
        yield from ((named.repository, named.digest) for named in catalogue.images())

    return images


class Lost:
    """Looks for images that need a blob, and fetches it for one of them."""

    def __init__(self, files: Files, images: Images) -> None:
        self._files = files
        self._images = images

    async def recover(self, lost: Sequence[Digest], fetch: Fetch) -> tuple[int, list[Digest]]:
        """How many are here again, and what an image still lacks. Raises OSError.

        A manifest that is back tells what it needs, so those nobody seemed to need are looked at once more; while one
        cannot be fetched nobody knows what it would tell.
        """
        waiting, failed, again = list(lost), list[Digest](), 0
        while True:
            unneeded = []
            for digest in waiting:
                need = await asyncio.to_thread(self._needed_by, digest)
                if need is None:
                    unneeded.append(digest)
                elif not await _fetched(fetch, need[0], digest, need[1]):
                    failed.append(digest)
            here = len(waiting) - len(unneeded)
            again, waiting = again + here, unneeded
            if not here or not waiting:
                return again - len(failed), failed + (waiting if failed else [])

    def _needed_by(self, digest: Digest) -> tuple[str, bool] | None:
        """A repository one of whose images needs a blob, and whether it is a manifest there. Blocks. Raises OSError."""
        for repository, root in self._images():
            if (found := _need(self._files, root, digest)) is not None:
                return repository, found
        return None


async def _fetched(fetch: Fetch, repository: str, digest: Digest, manifest: bool) -> bool:
    """Whether it could be; the log says."""
    try:
        await fetch(repository, digest, manifest)
    except (RegistryError, BodyBroken, OSError) as error:
        _log.warning("%s cannot be fetched again from %s: %s", digest.short, repository, error)
        return False
    _log.info("%s was fetched again from %s", digest.short, repository)
    return True


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
