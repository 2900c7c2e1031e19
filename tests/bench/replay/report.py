"""What a replay says: a table for people, the same as rows for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxy.config.quantities import format_size
from tests.bench.replay.simulate import Score
from tests.bench.replay.trace import GIB


@dataclass(frozen=True, slots=True)
class Result:
    """One policy (or bound) at one size of cache, in bytes; None is an infinite one."""

    capacity: int | None
    policy: str
    score: Score

    @property
    def objects(self) -> float:
        """Requests that cost the upstream nothing, in percent."""
        return 100 * self.score.hits / max(self.score.requests, 1)

    @property
    def bytes(self) -> float:
        """Bytes that cost the upstream nothing, in percent."""
        return 100 * self.score.hit_bytes / max(self.score.asked, 1)

    def row(self) -> Mapping[str, Any]:
        """For programs: percentages, bytes."""
        return {
            "cache": self.capacity,
            "policy": self.policy,
            "object_hit_percent": round(self.objects, 3),
            "byte_hit_percent": round(self.bytes, 3),
            "evicted_bytes": self.score.evicted,
            "fetched_again_within_a_day_bytes": self.score.thrash,
            "not_kept_bytes": self.score.passed,
        }


def table(results: Sequence[Result], distinct: int) -> Iterator[str]:
    """Lines, a block for each size. `again` is what was fetched again less than a day after its eviction."""
    yield f"{'cache':>17}  {'policy':<16} {'objects %':>9} {'bytes %':>8} {'evicted GiB':>12} {'again GiB':>10}"
    last: int | None = 0
    for each in results:
        name = "infinite" if each.capacity is None else _size(each.capacity, distinct)
        yield _line("" if each.capacity == last else name, each)
        last = each.capacity


def _size(capacity: int, distinct: int) -> str:
    return f"{format_size(capacity)} ({100 * capacity / max(distinct, 1):.0f} %)"


def _line(name: str, each: Result) -> str:
    line = f"{name:>17}  {each.policy:<16} {each.objects:9.2f} {each.bytes:8.2f}"
    if each.policy.startswith("no policy"):
        return line
    return f"{line} {each.score.evicted / GIB:12.1f} {each.score.thrash / GIB:10.2f}"
