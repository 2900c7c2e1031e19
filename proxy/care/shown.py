"""Images as documents: what `tidegate ls` and programs get, of a running service or of a data folder alone. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from proxy.care.inventory import Image


def shown(images: Iterable[Image], names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every image that is not part of another; where `names` are given, those they mean, hidden ones too: a repository
    or an upstream (each image of it), or one image, which then has its `parts`. A name may leave out what it begins
    with."""
    if not names:
        return [_row(image) for image in images if not image.hidden]
    everything = list(images)
    exact = [image for image in everything if any(_ends(image.name, name) for name in names)]
    if exact:
        return [_row(image) | {"parts": [asdict(piece) for piece in image.all]} for image in exact]
    of = (image for image in everything if any(_within(image.repository, name) for name in names))
    return [_row(image) for image in of if not image.hidden]


def _within(repository: str, wanted: str) -> bool:
    return _ends(repository, wanted) or repository.startswith(f"{wanted}/")


def _ends(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f"/{wanted}")


def _row(image: Image) -> dict[str, Any]:
    here, platforms = image.platforms
    return {
        "repository": image.repository,
        "reference": image.reference,
        "digest": image.digest,
        "size": image.size,
        "used": image.used,
        "complete": not image.missing,
        "missing": len(image.missing),
        "parts_here": sum(piece.here for piece in image.all),
        "platforms_here": here,
        "platforms": platforms,
        "pinned": list(image.sets),
    }
