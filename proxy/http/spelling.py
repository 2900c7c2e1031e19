"""What the name of an image means on this tidegate: which registry has it, and under which one name it goes here.

The same names as a pull's, so what is pinned is what is pulled: the registry first, an alias or a prefix of it, our own
name before any of these (lists from clusters that pull through us say so), or no registry at all, which means the
unqualified ones in order, where only a clean 404 moves on to the next.
"""

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

from proxy.care.closure import Target
from proxy.errors import ManifestUnknown, NameInvalid, NameUnknown
from proxy.oci.images import ImageName
from proxy.oci.names import looks_like_host, registry_name
from proxy.ports import Ask
from proxy.registry.forget import Forget
from proxy.registry.route import Route, Router


@dataclass(frozen=True, slots=True)
class Spelled:
    """An image under its one name here: upstream, repository as the upstream knows it, tag or digest."""

    route: Route
    image: ImageName

    @property
    def repository(self) -> str:
        return f"{self.route.registry.name}/{self.route.repo}"

    @property
    def name(self) -> str:
        """With `latest` where nothing was said."""
        return f"{self.repository}{self.image.suffix}"


class Spelling:
    """The names of one tidegate. Satisfies care.pinning.Names."""

    def __init__(
        self,
        router: Router,
        unqualified: Sequence[str],
        own: Container[str],
        forget: Forget,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._router = router
        self._unqualified = unqualified
        self._own = own
        self._forget = forget
        self._clock = clock

    def read(self, text: str) -> list[Spelled]:
        """What `text` may mean, in order, at least one. Raises NameInvalid, DigestInvalid, NameUnknown, Denied."""
        image = ImageName.parse(text)
        name = self._without_us(image.name)
        names = [name] if self._says_registry(name) else [f"{each}/{name}" for each in self._unqualified] or [name]
        return [Spelled(self._router.route("", None, each), image) for each in names]

    def _without_us(self, name: str) -> str:
        first, slash, rest = name.partition("/")
        return rest if slash and looks_like_host(first) and registry_name(first) in self._own else name

    def _says_registry(self, name: str) -> bool:
        """Whether the first segment decides; routing refuses the ones that look like a registry and are none."""
        first, slash, _ = name.partition("/")
        return bool(slash) and (looks_like_host(first) or self._router.leads(first))

    async def find(self, text: str) -> Target:
        """The image and its first manifest, fetched like a pull would. Raises RegistryError."""
        refusal: ManifestUnknown | NameUnknown | None = None
        for spelled in self.read(text):
            route = spelled.route
            try:
                answer = await route.registry.manifest(Ask(route.repo, self._clock()), spelled.image.reference)
            except (ManifestUnknown, NameUnknown) as error:
                refusal = refusal or error
                continue
            return Target(spelled.name, spelled.repository, route.registry, route.repo, answer.value)
        raise refusal or NameInvalid(f"{text[:80]!r} means nothing here")

    def forget_answer(self, target: Target, digest: str) -> None:
        self._forget.answer(target.repository, digest)
