"""Removing images because somebody said so: which names and which blobs go with one, and what stays for others.

A blob goes when no other image that is known here, in any repository, and no pin needs it. The names go first and
every worker forgets them, so that the next pull asks the upstream; then the files, one by one, and what is being read
stays where it is: whoever reads it needs it, and it may be evicted like anything else later.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.care.evict import Janitor
from proxy.care.inventory import Image, Inventory
from proxy.errors import Denied, NameUnknown
from proxy.store.catalogue import Catalogue


class Forget(Protocol):
    """Makes every worker forget names."""

    async def __call__(self, repository: str, references: Iterable[str]) -> None:
        """Tags and digests of one repository. Raises OSError."""
        ...


@dataclass(frozen=True, slots=True)
class Doomed:
    """What goes with one image: its names within the repository, digests nobody else needs, manifests among those."""

    names: tuple[str, ...]
    manifests: tuple[str, ...]
    digests: tuple[str, ...]


def plan(images: Sequence[Image], image: Image) -> Doomed:
    """What goes when `image` goes. No I/O."""
    others = [each for each in images if each is not image and not each.hidden]
    kept = {piece.digest for each in others for piece in each.all}
    kept |= {digest for each in images for digest in each.wanted}
    digests = tuple(piece.digest for piece in image.all if piece.digest not in kept)
    within = (each for each in images if each.hidden and each.repository == image.repository)
    names = (image.reference, *(each.reference for each in within if each.digest in digests))
    manifests = tuple(piece.digest for piece in image.all if piece.manifest and piece.digest in digests)
    return Doomed(names, manifests, digests)


def check_unpinned(image: Image) -> None:
    """Raises Denied, naming the sets."""
    if image.held:
        raise Denied(f"{image.name} is pinned in {', '.join(image.held)}; let it go first: tidegate unpin {image.name}")


class Remover:
    """Removes images of one data folder."""

    def __init__(self, inventory: Inventory, catalogue: Catalogue, janitor: Janitor, forget: Forget) -> None:
        self._inventory = inventory
        self._catalogue = catalogue
        self._janitor = janitor
        self._forget = forget

    async def remove(self, names: Sequence[str]) -> dict[str, Any]:
        """Remove the one image that goes by one of `names`; what went. Raises NameUnknown, Denied, OSError."""
        images = await asyncio.to_thread(self._inventory.images)
        image = next((each for each in images if each.name in names), None)
        if image is None:
            raise NameUnknown(f"{names[0]} is not here; tidegate ls says what is")
        check_unpinned(image)
        doomed = plan(images, image)
        await self._forget(image.repository, {*doomed.names, *doomed.manifests})
        for name in doomed.names:
            await asyncio.to_thread(self._catalogue.unname, image.repository, name)
        gone, reading = await self._janitor.take_out(doomed.digests)
        freed = sum(each.size for each in gone)
        kept = len({piece.digest for piece in image.all if piece.here}) - len(gone) - len(reading)
        return {"image": image.name, "removed": len(gone), "bytes": freed, "kept": kept, "reading": reading}
