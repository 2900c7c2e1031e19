"""What somebody who pushes was told is here, they may lean on for a while: the link keeps the time of the question.

A client asks for every layer before it sends it, and sends the manifest when all are there; so a blob that was
answered for stays for `ttl` seconds even where no manifest reaches it yet. The time is written at most once in
`lately(ttl)`, and whoever collects adds that to the age (care/collect.py). Links that are fresh cost one stat.
"""

import asyncio
import time

from proxy.oci.digest import Digest
from proxy.store.links import Links, file_of, parts_of
from proxy.store.yard import Yard


def lately(ttl: float) -> float:
    """Seconds within which a link's time is not written again, where what was told is to stay true for `ttl`."""
    return min(600.0, ttl / 10)


class Asked:
    """The times of one folder of links."""

    def __init__(self, links: Links, yard: Yard, ttl: float) -> None:
        self._links = links
        self._yard = yard
        self._lately = lately(ttl)

    async def note(self, repository: str, kind: str, digest: Digest) -> bool:
        """Somebody is about to be told of it; False where it is not there, or was collected just now."""
        parts = *parts_of(repository), kind, file_of(digest)
        at = self._links.time(*parts)
        if at is None or abs(time.time() - at) < self._lately:
            return at is not None
        return await asyncio.to_thread(self._touch, digest, parts)

    def _touch(self, digest: Digest, parts: tuple[str, ...]) -> bool:
        """A disk that cannot be written is not collected from either."""
        try:
            with self._yard.keeping(digest):
                return self._links.touch(*parts)
        except OSError:
            return True
