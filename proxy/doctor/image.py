"""Which image is walked to: what a person wrote, or a small public one of the first upstream."""

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.config import Settings, Upstream
from proxy.doctor.report import Problem, plain
from proxy.errors import RegistryError
from proxy.oci.names import Reference, Repo, Tag, looks_like_host, parse_reference

_SMALL: Mapping[str, str] = {
    "registry.k8s.io": "pause:3.9",
    "docker.io": "library/hello-world:latest",
    "quay.io": "prometheus/busybox:latest",
    "gcr.io": "distroless/static:latest",
}
_DEFAULT = "registry.k8s.io"


@dataclass(frozen=True, slots=True)
class Image:
    """One image of one upstream."""

    upstream: Upstream
    repo: Repo
    reference: Reference

    def __str__(self) -> str:
        between = ":" if isinstance(self.reference, Tag) else "@"
        return f"{self.upstream.name}/{self.repo}{between}{self.reference}"


def choose(settings: Settings, text: str) -> Image:
    """The image of this text, "" for a default one. Raises Problem."""
    upstream, rest = _owner(settings, text) if text else _first(settings)
    name, reference = _split(rest)
    if upstream.name == "docker.io" and "/" not in name:
        name = f"library/{name}"
    try:
        return Image(upstream, Repo.parse(name), parse_reference(reference))
    except RegistryError as error:
        raise Problem("image", plain(error.message), fix="write it as NAME:TAG or NAME@DIGEST") from None


def _first(settings: Settings) -> tuple[Upstream, str]:
    name = _DEFAULT if _DEFAULT in settings.upstreams else next(iter(settings.upstreams))
    if name not in _SMALL:
        raise Problem("image", f"no image of {name} is known by heart", fix=f"tidegate doctor {name}/NAME:TAG")
    return settings.upstreams[name], _SMALL[name]


def _owner(settings: Settings, text: str) -> tuple[Upstream, str]:
    """The upstream a name belongs to, by its first segment as in routing, and the rest of it."""
    first, _, rest = text.partition("/")
    for upstream in settings.upstreams.values():
        if rest and first.lower() in (upstream.name, *upstream.aliases, upstream.prefix):
            return upstream, rest
    if rest and looks_like_host(first):
        known = ", ".join(settings.upstreams)
        raise Problem("image", f"no upstream is called {plain(first)}", fix=f"known are {known}; see [upstreams]")
    asked = [name for name in settings.server.unqualified if name in settings.upstreams]
    if not asked:
        known = ", ".join(settings.upstreams)
        what = f"{plain(text)} names no registry, and [server] unqualified names no upstream"
        raise Problem("image", what, fix=f"write REGISTRY/NAME:TAG; known are {known}")
    return settings.upstreams[asked[0]], text


def _split(text: str) -> tuple[str, str]:
    """Name and tag or digest."""
    name, at, digest = text.partition("@")
    bare, colon, tag = name.rpartition(":")
    if at:
        return (bare if colon and "/" not in tag else name), digest
    return (bare, tag) if colon and "/" not in tag else (name, "latest")
