"""registry.k8s.io as a firewall sees it: https, manifests at one host, and each blob at another one it redirects to.

Both names exist only where a test makes them: with a name server of its own, or in the map of a proxy.
"""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes import Origin, Status, origin_in_thread
from tests.real import images

REGISTRY, CDN = "registry.test", "cdn.test"


@dataclass(frozen=True, slots=True)
class TwoHosts:
    """Both listen on 127.0.0.1, on ports that their URLs name."""

    registry: Origin
    cdn: Origin
    image: images.Built

    @property
    def url(self) -> str:
        """What a client takes for registry.k8s.io."""
        return f"https://{self.registry_at}"

    @property
    def registry_at(self) -> str:
        """host:port, as in a CONNECT."""
        return self.registry.host.replace("127.0.0.1", REGISTRY)

    @property
    def cdn_at(self) -> str:
        return self.cdn.host.replace("127.0.0.1", CDN)

    @property
    def names(self) -> dict[str, str]:
        """Where the two really are."""
        return {self.registry_at: self.registry.host, self.cdn_at: self.cdn.host}

    @property
    def content(self) -> set[str]:
        """The digests of all the image consists of."""
        return {manifest.digest for manifest in self.image.manifests} | set(self.image.blobs)


@contextmanager
def two_hosts(context: ssl.SSLContext, image: images.Built) -> Iterator[TwoHosts]:
    """Both in threads, with that certificate and `image`, until the block ends."""
    with origin_in_thread(context) as registry, origin_in_thread(context) as cdn:
        made = TwoHosts(registry, cdn, image)
        for manifest in image.manifests:
            registry.add_manifest(image.name, image.tag, manifest.content, manifest.media_type)
        for digest, content in image.blobs.items():
            cdn.add_blob(image.name, content)
            location = f"https://{made.cdn_at}/v2/{image.name}/blobs/{digest}"
            registry.fault(digest, Status(307, {"Location": location}))
        # The child manifests of an index are asked for by a digest that no blob has.
        yield made


def digests_in(folder: Path, but: Sequence[str] = ("version",)) -> set[str]:
    """The digests of what skopeo wrote, by content: its file names prove nothing."""
    return {images.digest_of(path.read_bytes()) for path in folder.iterdir() if path.name not in but}
