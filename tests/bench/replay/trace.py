"""A trace: who asked for what, when, how large it is. How it comes about is written in synthetic.py and log.py."""

from collections.abc import Sequence
from dataclasses import dataclass

BLOCK = 4096
GIB = 1 << 30
DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Request:
    """One GET of one object; `size` is in bytes on disk and the same whenever the object is asked for."""

    time: float
    key: str
    size: int
    manifest: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of time, and where they come from."""

    origin: str
    requests: Sequence[Request]

    @property
    def distinct(self) -> int:
        """Bytes of all objects, each once."""
        return sum({each.key: each.size for each in self.requests}.values())

    @property
    def asked(self) -> int:
        """Bytes of all requests."""
        return sum(each.size for each in self.requests)

    def __str__(self) -> str:
        objects = len({each.key for each in self.requests})
        days = (self.requests[-1].time - self.requests[0].time) / DAY if self.requests else 0
        return (
            f"{self.origin}: {len(self.requests)} requests for {objects} objects in {days:.1f} days, "
            f"{self.asked / GIB:.0f} GiB asked, {self.distinct / GIB:.0f} GiB distinct"
        )


def blocks(size: int) -> int:
    """Bytes on disk, whole blocks of 4 KiB."""
    return -(-size // BLOCK) * BLOCK


def next_uses(requests: Sequence[Request]) -> list[float]:
    """For each request the place of the next one for the same object; infinite where there is none."""
    found, later = [float("inf")] * len(requests), dict[str, int]()
    for place in range(len(requests) - 1, -1, -1):
        key = requests[place].key
        found[place] = later.get(key, float("inf"))
        later[key] = place
    return found
