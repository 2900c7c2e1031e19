"""Images of this machine's own files: real gzip layers, two platforms, the same bytes each time; and their push.

Pushed by plain HTTP, so that the tests need no image tool to fill a registry.
"""

import gzip
import hashlib
import http.client
import io
import json
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
Kinds = tuple[str, str, str]  # media types of config, layer and manifest
OCI_KINDS: Kinds = (f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar+gzip", f"{OCI}.manifest.v1+json")
DOCKER_KINDS: Kinds = (
    f"{DOCKER}.container.image.v1+json",
    f"{DOCKER}.image.rootfs.diff.tar.gzip",
    f"{DOCKER}.distribution.manifest.v2+json",
)


# Distribution answers 404 for an OCI manifest to whoever does not name its type.
ACCEPT = {"Accept": ", ".join((OCI_KINDS[2], f"{OCI}.index.v1+json", DOCKER_KINDS[2]))}


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it goes over the wire; an untagged one is pushed by digest."""

    digest: str
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Built:
    """An image ready to be pushed: `manifests` children first, the last one is what the tag means."""

    name: str
    tag: str
    manifests: tuple[Manifest, ...]
    blobs: dict[str, bytes] = field(repr=False)

    @property
    def digest(self) -> str:
        return self.manifests[-1].digest

    @property
    def layers(self) -> list[str]:
        """Digests of the blobs that are layers, largest first."""
        return sorted((digest for digest, blob in self.blobs.items() if blob[:2] == b"\x1f\x8b"), key=self.size)[::-1]

    def size(self, digest: str) -> int:
        return len(self.blobs[digest])

    def ref(self, host: str, prefix: str = "") -> str:
        """`host/prefix/name:tag`, as tools write it."""
        return f"{host}/{prefix + '/' if prefix else ''}{self.name}:{self.tag}"


def multi_arch(name: str, tag: str) -> Built:
    """An OCI index for amd64 and arm64 that share one of their two layers; about 10 MiB."""
    sources = Path(sysconfig.get_paths()["stdlib"])
    shared = layer(sources, 8 << 20)
    own = {"amd64": layer(Path("/usr/bin"), 12 << 20), "arm64": layer(Path("/usr/share/doc"), 6 << 20)}
    blobs: dict[str, bytes] = {}
    children = [_image(OCI_KINDS, arch, (shared, top), blobs) for arch, top in own.items()]
    rows = [
        {"mediaType": child.media_type, "digest": child.digest, "size": len(child.content),
         "platform": {"architecture": arch, "os": "linux"}}
        for arch, child in zip(own, children, strict=True)
    ]  # fmt: skip
    index = _manifest(f"{OCI}.index.v1+json", {"manifests": rows})
    return Built(name, tag, (*children, index), blobs)


def schema2(name: str, tag: str) -> Built:
    """A docker schema 2 image for one platform, with one layer of a few MiB."""
    blobs: dict[str, bytes] = {}
    content = layer(Path("/usr/share/doc"), 3 << 20)
    return Built(name, tag, (_image(DOCKER_KINDS, "amd64", (content,), blobs),), blobs)


def small(name: str, tag: str, *layers: bytes) -> Built:
    """An OCI image whose layers are gzip of what is given: one for each test that needs its own cold blobs."""
    blobs: dict[str, bytes] = {}
    packed = tuple(gzip.compress(content, 1, mtime=0) for content in layers)
    return Built(name, tag, (_image(OCI_KINDS, "amd64", packed, blobs),), blobs)


def layer(root: Path, budget: int) -> bytes:
    """A gzipped tar of the regular files below `root`, in order, up to `budget` bytes before compression."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in _within(root, budget):
            content = path.read_bytes()
            entry = tarfile.TarInfo(str(path).lstrip("/"))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _within(root: Path, budget: int) -> Iterator[Path]:
    """Small files only: one huge program would be the whole layer."""
    for path in sorted(root.glob("**/*")):
        if "__pycache__" in path.parts or path.is_symlink() or not path.is_file() or path.stat().st_size > 2 << 20:
            continue
        budget -= path.stat().st_size
        if budget < 0:
            return
        yield path


def _image(kinds: Kinds, arch: str, layers: Iterable[bytes], blobs: dict[str, bytes]) -> Manifest:
    """The manifest of an image for one platform; its config and layers are put into `blobs`."""
    config_type, layer_type, own_type = kinds
    packed = list(layers)
    plain = [digest_of(gzip.decompress(content)) for content in packed]
    config = json.dumps({"architecture": arch, "os": "linux", "config": {"Cmd": ["/bin/true"]},
                         "rootfs": {"type": "layers", "diff_ids": plain}}).encode()  # fmt: skip
    blobs.update({digest_of(content): content for content in (config, *packed)})
    described = [_descriptor(layer_type, content) for content in packed]
    return _manifest(own_type, {"config": _descriptor(config_type, config), "layers": described})


def _manifest(media_type: str, rest: dict[str, Any]) -> Manifest:
    content = json.dumps({"schemaVersion": 2, "mediaType": media_type} | rest, indent=2).encode()
    return Manifest(digest_of(content), media_type, content)


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def push(url: str, image: Built) -> None:
    """Puts every blob, every manifest by digest, and the last one under the tag. Raises AssertionError when refused."""
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        for digest, content in image.blobs.items():
            location = _ask(connection, "POST", f"/v2/{image.name}/blobs/uploads/", 202)
            split = urlsplit(location)
            target = f"{split.path}?{split.query}&digest={digest}" if split.query else f"{split.path}?digest={digest}"
            _ask(connection, "PUT", target, 201, content, "application/octet-stream")
        references = [*(manifest.digest for manifest in image.manifests[:-1]), image.tag]
        for reference, manifest in zip(references, image.manifests, strict=True):
            target = f"/v2/{image.name}/manifests/{reference}"
            _ask(connection, "PUT", target, 201, manifest.content, manifest.media_type)


def _ask(
    connection: http.client.HTTPConnection, method: str, target: str, expected: int, body: bytes = b"", kind: str = ""
) -> str:
    """The Location of an answer with the `expected` status."""
    connection.request(method, target, body, {"Content-Type": kind} if kind else {})
    answer = connection.getresponse()
    text = answer.read()
    assert answer.status == expected, f"{method} {target}: {answer.status} {text[:500]!r}"
    return answer.getheader("Location", "")
