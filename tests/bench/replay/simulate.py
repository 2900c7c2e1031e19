"""A cache of a given size under a policy, driven by the product's marks and choice of victims. No bytes are moved."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from proxy.care import plan
from tests.bench.replay.policies import Policy, Seen
from tests.bench.replay.trace import DAY, Request, Trace

_NO_FILE_SYSTEM = 1 << 62


@dataclass(slots=True)
class Score:
    """What came of a trace: counts of requests, and bytes. `thrash` is what was fetched again less than a day after
    it was evicted, `passed` what was fetched and could not be kept."""

    requests: int = 0
    asked: int = 0
    hits: int = 0
    hit_bytes: int = 0
    evicted: int = 0
    thrash: int = 0
    passed: int = 0

    def count(self, request: Request, hit: bool) -> None:
        """One request and whether it cost the upstream anything."""
        self.requests += 1
        self.asked += request.size
        if hit:
            self.hits += 1
            self.hit_bytes += request.size


class Cache:
    """Objects with ranks. The heap may hold an object several times; only the entry with its present rank counts."""

    def __init__(self, capacity: int, policy: Policy, marks: bool = True) -> None:
        self.score = Score()
        self._limits = plan.Limits(capacity, 0)
        self._policy = policy
        self._marks = marks
        self._held: dict[str, Seen] = {}
        self._ranks: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._gone: dict[str, float] = {}
        self._size = 0
        self._floor = 0.0

    def ask(self, request: Request) -> bool:
        """One request; whether it was a hit. A miss makes room first, as a fill does."""
        seen = self._held.get(request.key)
        self.score.count(request, seen is not None)
        if seen is None:
            if request.time - self._gone.pop(request.key, float("-inf")) < DAY:
                self.score.thrash += request.size
            if not self._room(request):
                self.score.passed += request.size
                return False
            self._held[request.key] = Seen(request.size, request.manifest, request.time)
            self._size += request.size
        self._use(request)
        return seen is not None

    def _use(self, request: Request) -> None:
        seen = self._held[request.key]
        seen.used, seen.uses, seen.floor = request.time, seen.uses + 1, self._floor
        rank = self._policy(seen)
        if self._ranks.get(request.key) != rank:
            self._ranks[request.key] = rank
            heapq.heappush(self._heap, (rank, request.key))

    def _room(self, request: Request) -> bool:
        """Whether there is room for what is asked now, after evicting what has to go for it."""
        need = plan.to_free(plan.Space(self._size, 0, _NO_FILE_SYSTEM), self._limits, request.size)
        if need.missing:
            return False  # larger than the cache
        size = need.size if self._marks else max(self._size + request.size - self._limits.max_size, 0)
        read: list[plan.Resident] = []
        for victim in plan.victims(self._lowest_first(read), size, request.time, lambda _: False):
            self._evict(victim, request.time)
        for each in read:
            if each.digest in self._held:
                heapq.heappush(self._heap, (self._ranks[each.digest], each.digest))
        return self._size + request.size <= self._limits.max_size

    def _lowest_first(self, read: list[plan.Resident]) -> Iterator[plan.Resident]:
        while self._heap:
            rank, key = heapq.heappop(self._heap)
            if self._ranks.get(key) == rank:
                read.append(plan.Resident(key, self._held[key].size, self._held[key].used))
                yield read[-1]

    def _evict(self, victim: plan.Resident, now: float) -> None:
        self._floor = self._ranks.pop(victim.digest)
        del self._held[victim.digest]
        self._gone[victim.digest] = now
        self._size -= victim.size
        self.score.evicted += victim.size


def replay(trace: Trace, capacity: int, policy: Policy, marks: bool = True) -> Score:
    """The whole trace against an empty cache. `marks` False evicts to the byte, to see what the low mark costs."""
    cache = Cache(capacity, policy, marks)
    for request in trace.requests:
        cache.ask(request)
    return cache.score
