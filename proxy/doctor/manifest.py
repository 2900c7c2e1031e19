"""The manifest of the image, down to one platform's, and the layer to try the way of blobs with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.doctor.image import Image
from proxy.doctor.report import Problem, Report
from proxy.doctor.walk import Walk
from proxy.errors import DigestInvalid
from proxy.oci.digest import Digest
from proxy.oci.media import ACCEPT, MANIFEST_LIMIT


@dataclass(frozen=True, slots=True)
class Layer:
    """A blob as a manifest describes it; `size` bytes."""

    digest: Digest
    size: int


async def check(walk: Walk, image: Image, report: Report) -> Layer | None:
    """The largest layer of the image, None when it has none. Raises Problem."""
    document = await _fetch(walk, image, str(image.reference))
    listed, said = document.get("manifests"), str(image)
    if isinstance(listed, list) and listed:
        said += f", {len(listed)} platforms"
        document = await _fetch(walk, image, str(_digest(_linux(listed))))
    report.ok("manifest", f"{said}, as its digest says")
    described = [each for each in _list(document.get("layers")) if isinstance(each.get("size"), int)]
    largest = max(described, key=lambda each: int(each["size"]), default=None)
    return None if largest is None else Layer(_digest(largest), largest["size"])


async def _fetch(walk: Walk, image: Image, reference: str) -> Mapping[str, Any]:
    async with walk.to("manifest", f"{image.repo}/manifests/{reference}", {"Accept": ACCEPT}) as answered:
        content = await answered.read(walk.way.budget, "manifest", MANIFEST_LIMIT)
        said = answered.head.headers.get("Docker-Content-Digest", "")
        host = answered.url.raw_host
    for text in (said, reference):
        if ":" in text and not _digest({"digest": text}).matches(content):
            raise Problem(
                "manifest",
                f"{host}: sent a manifest that does not match its digest: something on the way changes it",
                nodes_see="unexpected digest: failed precondition",
                fix=f"ask the proxy's team to pass {host} through unchanged",
            )
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Problem("manifest", f"{host}: what it sent is no manifest", nodes_see="unexpected media type: not found")
    return document


def _linux(listed: list[Any]) -> Mapping[str, Any]:
    """The entry for most machines, else the first one."""
    entries = _list(listed)
    for entry in entries:
        platform = entry.get("platform")
        if isinstance(platform, dict) and (platform.get("os"), platform.get("architecture")) == ("linux", "amd64"):
            return entry
    return entries[0] if entries else {}


def _list(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _digest(entry: Mapping[str, Any]) -> Digest:
    try:
        return Digest.parse(str(entry.get("digest", "")))
    except DigestInvalid:
        raise Problem("manifest", "the manifest names something that is no digest") from None
