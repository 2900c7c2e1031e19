"""An upstream shaped like registry.k8s.io: redirector -> pkg.dev front -> docker-registry, or redirector -> nginx.

What a test wants to know of it is how often and how much it was asked, so each hop's log stands here side by side.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.log import Log, Request
from tests.fakes.pkgdev import PkgDev
from tests.fakes.redirector import Redirector
from tests.fakes.thread import in_thread
from tests.real import images
from tests.real.processes import fetch
from tests.real.servers import Served, docker_registry, nginx


@dataclass(frozen=True, slots=True)
class Upstream:
    """`url` is what a client takes for registry.k8s.io. `image` is multi-arch OCI, `schema2` an old docker image."""

    redirector: Redirector
    pkgdev: PkgDev
    cdn: Served
    registry: Served
    image: images.Built
    schema2: images.Built

    @property
    def url(self) -> str:
        return self.redirector.url

    @property
    def host(self) -> str:
        return self.url.removeprefix("http://")

    @property
    def log(self) -> Mapping[str, Log]:
        """The requests each hop got since the last clear()."""
        return {"redirector": self.redirector.log, "pkgdev": self.pkgdev.log, "cdn": self._cdn_log()}

    def count(self, method: str | None = None, contains: str | None = None) -> int:
        """Requests to the redirector, which every request passes first."""
        return self.redirector.log.count(method, contains)

    def sent(self, contains: str | None = None) -> int:
        """Body bytes that left the two hosts that hold content. A pkg.dev blob is found only without `contains`."""
        return sum(self.log[hop].sent(contains) for hop in ("pkgdev", "cdn"))

    def clear(self) -> None:
        """Forgets all requests so far; to be called where a test begins to count."""
        self.redirector.log.clear()
        self.pkgdev.log.clear()
        fetch(f"{self.cdn.url}/up")
        (self.cdn.folder / "access.log").write_bytes(b"")

    def add(self, image: images.Built) -> images.Built:
        """Puts one more image into the registry and its blobs behind the CDN."""
        images.push(self.registry.url, image)
        for digest, content in image.blobs.items():
            (static_folder(self.cdn.folder) / digest).write_bytes(content)
        return image

    def _cdn_log(self) -> Log:
        fetch(f"{self.cdn.url}/up")  # one process, one event at a time: once this is answered the log is complete
        rows = (line.split() for line in (self.cdn.folder / "access.log").read_text().splitlines())
        return Log(Request(method, uri, status=int(status), sent=int(sent)) for method, uri, status, sent in rows)


def static_folder(folder: Path) -> Path:
    """Where the CDN's blobs lie, each under its whole digest."""
    return folder / "static/containers/images"


@contextmanager
def upstream_world(folder: Path) -> Iterator[Upstream]:
    """The four servers with two images in them, until the block ends."""
    static_folder(folder / "cdn").mkdir(parents=True)
    with ExitStack() as stack:
        registry = stack.enter_context(docker_registry(folder / "registry"))
        cdn = stack.enter_context(nginx(folder / "cdn", folder / "cdn/static"))
        pkgdev = stack.enter_context(in_thread(PkgDev(registry.url)))
        redirector = stack.enter_context(in_thread(Redirector(pkgdev.url, [cdn.url])))
        image = images.multi_arch("kube-proxy", "v1.31.0")
        old = images.schema2("coredns/coredns", "v1.11.3")
        world = Upstream(redirector, pkgdev, cdn, registry, image, old)
        world.add(image)
        world.add(old)
        yield world
