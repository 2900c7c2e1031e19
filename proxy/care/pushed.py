"""The names of what was pushed here, as the inventory of images asks for them: tags, from their links.

What must not live here: what an image is made of; the inventory finds that out from manifests, as it does of what is
cached. Blocks.
"""

from collections.abc import Mapping, Sequence

from proxy.care.pins import Pin
from proxy.oci.digest import is_digest
from proxy.store.catalogue import Held, Named
from proxy.store.links import Links, parts_of

PREFIX = "local"


class PushedNames:
    """Every tag; its repository as `local/NAME`. Nothing of it is pinned, because nothing of it is ever evicted, and
    nobody writes down when it was used."""

    def __init__(self, links: Links) -> None:
        self._links = links

    def images(self, repository: str = "") -> list[Named]:
        """The images of a repository, or of all. Raises OSError."""
        found = []
        for name in self._links.repositories():
            if repository in ("", f"{PREFIX}/{name}"):
                found += self._tagged(name)
        return found

    def _tagged(self, name: str) -> list[Named]:
        tags = self._links.names(*parts_of(name), "_tags")
        meant = {tag: self._links.get(*parts_of(name), "_tags", tag) for tag in tags}
        return [Named(f"{PREFIX}/{name}", tag, text, 0.0) for tag, text in meant.items() if text and is_digest(text)]

    def get(self, digest: str) -> Held | None:
        """Nothing is known of a blob's use."""
        return None

    def sets(self) -> Mapping[str, Sequence[Pin]]:
        """No pins."""
        return {}
