"""Ranks to compare: who goes first is who has the lowest. The product's own is the one in proxy/care/plan.py.

What a catalogue of the product could give a rank is its first three arguments (last use, size, uses), and `lru`,
`once-first`, `uses-hours` and `size` need no more. The others show what more knowledge would bring.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.care import plan
from tests.bench.replay.trace import DAY


@dataclass(slots=True)
class Seen:
    """What is known of a cached object. `floor` is the rank of the last one evicted before this use (the "age of the
    cache" of GreedyDual); `added` when it came; both are rows the product does not keep."""

    size: int
    manifest: bool
    added: float
    used: float = 0.0
    uses: int = 0
    floor: float = 0.0


Policy = Callable[[Seen], float]


def lru(seen: Seen) -> float:
    """The product's."""
    return plan.rank(seen.used, seen.size, seen.uses)


def fifo(seen: Seen) -> float:
    """Who came first goes first."""
    return seen.added


def lfu(seen: Seen) -> float:
    """Least often used, the longest unused of those first."""
    return seen.uses * 1e6 * DAY + seen.used


def once_first(seen: Seen) -> float:
    """LRU, but what was used only once counts as a week older: meant against scans."""
    return seen.used - (7 * DAY if seen.uses == 1 else 0)


def uses_hours(seen: Seen) -> float:
    """LRU, and each doubling of the uses counts for 12 hours, up to 4 days."""
    return seen.used + DAY / 2 * min(math.log2(seen.uses), 8)


def size_first(seen: Seen) -> float:
    """The largest goes first."""
    return -seen.size


def gdsf(seen: Seen) -> float:
    """GreedyDual-Size-Frequency: uses per byte, aged; for objects, not bytes."""
    return seen.floor + seen.uses / seen.size


def lfu_aged(seen: Seen) -> float:
    """LFU with dynamic aging, which is GDSF with bytes as the cost: for bytes."""
    return seen.floor + seen.uses


def manifests_last(seen: Seen) -> float:
    """LRU, and a manifest counts as 30 days younger: they are small, and an image without one cannot be started."""
    return seen.used + (30 * DAY if seen.manifest else 0)


POLICIES: Mapping[str, Policy] = {
    "lru": lru,
    "manifests-last": manifests_last,
    "once-first": once_first,
    "uses-hours": uses_hours,
    "lfu": lfu,
    "lfu-aged": lfu_aged,
    "gdsf": gdsf,
    "fifo": fifo,
    "size": size_first,
}
