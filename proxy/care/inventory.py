"""What is here, by image: the names somebody asked for, brought together with the files there are.

A name's parts are read from its manifests, as far as those are here. An index is whole when every platform that was
asked for is: a manifest of it that is not here is a platform nobody wanted, one that is here and lacks a layer makes
the image incomplete. A pinned image is whole when everything its pin lists is here.

Hidden are names that are part of another one in the same repository: manifests an index lists, what was said of them.
Everything here blocks; it is for a thread, or for a command that works alone.
"""

import json
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from proxy.care.closure import held_by_registries
from proxy.care.pins import Pin, Pins
from proxy.care.pushed import PushedNames
from proxy.errors import DigestInvalid
from proxy.oci.digest import Digest
from proxy.oci.media import MANIFEST_LIMIT, OCI_MANIFEST, Descriptor, children, manifest_type
from proxy.oci.platforms import entries
from proxy.store.catalogue import Catalogue, Named
from proxy.store.files import Files

_DEEP = 5


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of an image: `size` as it was said, or as it is; `manifest` where it lists others."""

    digest: str
    media_type: str
    platform: str
    size: int
    here: bool
    manifest: bool


@dataclass(slots=True)
class Image:
    """One image. `hidden` where it is part of another one, `attached` what others said of it; `sets` its content is
    pinned in, `held` those under this very name, `explicit` by its digest, `wanted` what its pins list; `used` in
    wall-clock seconds, 0: nobody knows."""

    repository: str
    reference: str
    digest: str
    used: float
    pieces: dict[str, Piece] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    subject: str = ""
    explicit: bool = False
    wanted: frozenset[str] = frozenset()
    attached: dict[str, Piece] = field(default_factory=dict)
    hidden: bool = False

    @property
    def name(self) -> str:
        return _name(self.repository, self.reference)

    @property
    def size(self) -> int:
        """Bytes of it that are here."""
        return sum(piece.size for piece in self.all if piece.here)

    @property
    def all(self) -> list[Piece]:
        """Its parts, and what is attached."""
        return [*self.pieces.values(), *self.attached.values()]

    @property
    def missing(self) -> list[Piece]:
        """Parts that make it incomplete."""
        needed = (piece for piece in self.pieces.values() if not piece.here)
        return [piece for piece in needed if piece.digest in self.wanted or not self._is_choice(piece)]

    def _is_choice(self, piece: Piece) -> bool:
        """A manifest of an index, while at least one of them is here: another platform's."""
        others = (each for each in self.pieces.values() if each.manifest and each.digest != self.digest)
        return piece.manifest and piece.digest != self.digest and any(each.here for each in others)

    @property
    def platforms(self) -> tuple[int, int]:
        """How many platforms are here, and how many there are; 0 of 0 where it is no index."""
        found = [piece.here for piece in self.pieces.values() if piece.manifest and piece.platform]
        return sum(found), len(found)


class Inventory:
    """What one data folder holds."""

    def __init__(self, files: Files, catalogue: Catalogue | PushedNames, pins: Pins | PushedNames) -> None:
        self._files = files
        self._catalogue = catalogue
        self._pins = pins

    def images(self) -> list[Image]:
        """Every image that is known by a name, hidden ones too, by name. Raises OSError."""
        return self._made()

    def search(self, text: str, within: Collection[str] | None, limit: int) -> list[Image]:
        """Images that are no part of others and have `text` (lower case) in their name, by name; `within` these
        upstreams only. Repositories are read until `limit` images are found, 0: all of them. Raises OSError."""
        found: list[Image] = []
        for repository in self._matching(text, within):
            images = self._made(repository)
            found += [image for image in images if text in image.name.lower() and not image.hidden]
            if limit and len(found) >= limit:
                break
        return found

    def _matching(self, text: str, within: Collection[str] | None) -> list[str]:
        """Repositories with such a name in them."""
        rows = _named(self._catalogue.images(), self._pins.sets())
        seen = (row for row in rows if within is None or row.repository.partition("/")[0] in within)
        return sorted({row.repository for row in seen if text in _name(row.repository, row.reference).lower()})

    def _made(self, repository: str = "") -> list[Image]:
        """Every image, or those of one repository. Raises OSError."""
        sets = self._pins.sets()
        named = _named(self._catalogue.images(repository), sets)
        rows = {(row.repository, row.reference): row for row in named if repository in ("", row.repository)}
        made = {name: self._image(row) for name, row in rows.items()}
        for each in made.values():
            self._pin(each, sets)
        by_repository: defaultdict[str, list[Image]] = defaultdict(list)
        for each in made.values():
            by_repository[each.repository].append(each)
        for images in by_repository.values():
            _hide(images)
        return sorted(made.values(), key=lambda image: (image.repository, image.reference))

    def _image(self, row: Named) -> Image:
        image = Image(row.repository, row.reference, row.digest, 0.0)
        self._walk(image, Descriptor(Digest.parse(row.digest), 0, ""), "", 0)
        return image

    def _walk(self, image: Image, said: Descriptor, platform: str, depth: int) -> None:
        """Note a manifest and everything it lists."""
        content = self._read(said.digest)
        text = str(said.digest)
        media_type = manifest_type(content or b"", said.media_type) or said.media_type or OCI_MANIFEST
        size = said.size or 0 if content is None else len(content)
        image.pieces[text] = Piece(text, media_type, platform, size, content is not None, True)
        if content is None or depth > _DEEP:
            return
        self._use(image, text)
        if depth == 0:
            image.subject = _subject(content)
        listed = entries(content)
        for entry in listed:
            if str(entry.said.digest) not in image.pieces:
                self._walk(image, entry.said, str(entry.platform or ""), depth + 1)
        for child in () if listed else children(content):
            if held_by_registries(child.media_type):
                self._note(image, child, platform)

    def _note(self, image: Image, child: Descriptor, platform: str) -> None:
        """A blob."""
        text = str(child.digest)
        size = self._files.size(child.digest)
        said = child.size or 0 if size is None else size
        image.pieces.setdefault(text, Piece(text, child.media_type, platform, said, size is not None, False))
        if size is not None:
            self._use(image, text)

    def _use(self, image: Image, digest: str) -> None:
        row = self._catalogue.get(digest)
        image.used = max(image.used, row.used if row is not None else 0.0)

    def _pin(self, image: Image, sets: Mapping[str, Sequence[Pin]]) -> None:
        """Whether this is what some set pins, and all that the pin wants of it."""
        found = [(name, pin) for name, pins in sets.items() for pin in pins if _pins(pin, image)]
        image.sets = tuple(sorted({name for name, _ in found}))
        image.held = tuple(sorted({name for name, pin in found if image.name in pin.names}))
        image.explicit = any("@" in pin.reference for _, pin in found) and ":" in image.reference
        image.wanted = frozenset(digest for _, pin in found for digest in pin.blobs)
        for _, pin in found:
            for digest, size in pin.blobs.items():
                if digest not in image.pieces:
                    self._note(image, Descriptor(Digest.parse(digest), size), "")

    def _read(self, digest: Digest) -> bytes | None:
        """A manifest's bytes; None when it is not here, or is too large to be one."""
        blob = self._files.open(digest)
        if blob is None:
            return None
        try:
            return os.pread(blob.fd, blob.size, 0) if blob.size <= MANIFEST_LIMIT else None
        finally:
            blob.close()


def _name(repository: str, reference: str) -> str:
    between = "@" if ":" in reference else ":"
    return f"{repository}{between}{reference}"


def _named(rows: Sequence[Named], sets: Mapping[str, Sequence[Pin]]) -> Iterator[Named]:
    """The catalogue's names, and those of pins: the catalogue may have been lost, the pins are not. What was pinned by
    a tag that means something else by now goes by its digest."""
    digests = {(row.repository, row.reference): row.digest for row in rows}
    yield from rows
    for pin in (pin for pins in sets.values() for pin in pins):
        same = not pin.tag or digests.setdefault((pin.repository, pin.tag), pin.digest) == pin.digest
        by_tag = pin.tag if same and "@" not in pin.reference else ""
        yield Named(pin.repository, by_tag or pin.digest, pin.digest, 0.0)


def _pins(pin: Pin, image: Image) -> bool:
    return pin.repository == image.repository and pin.digest == image.digest


def _hide(images: Sequence[Image]) -> None:
    """Within one repository: hide what is part of another image, and count it among what that has."""
    holders: defaultdict[str, list[Image]] = defaultdict(list)
    for image in images:
        for digest in (piece.digest for piece in image.pieces.values() if piece.manifest):
            holders[digest].append(image)
    for image in images:
        owners = [each for name in _stands_under(image) for each in holders[name] if _owns(each, image)]
        image.hidden = bool(owners) and not image.explicit
        for owner in owners:
            owner.attached |= {name: piece for name, piece in image.pieces.items() if name not in owner.pieces}


def _stands_under(image: Image) -> Iterator[str]:
    """The manifests whose images this may be part of."""
    if ":" in image.reference:
        yield image.digest
        yield image.subject
    algorithm, dash, rest = image.reference.partition("-")
    if dash:
        yield f"{algorithm}:{rest.partition('.')[0]}"  # cosign's tags, and the tag that stands for a referrers list


def _owns(owner: Image, image: Image) -> bool:
    """A tag owns the same image under its digest, never the other way round."""
    return owner is not image and (owner.digest != image.digest or ":" not in owner.reference)


def _subject(content: bytes) -> str:
    """The digest of what a manifest says something of."""
    try:
        document = json.loads(content)
        return str(Digest.parse(str(document["subject"]["digest"])))
    except (ValueError, LookupError, TypeError, RecursionError, DigestInvalid):
        return ""
