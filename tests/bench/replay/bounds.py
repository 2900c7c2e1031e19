"""What a policy is compared with: a cache that is infinite, one that knows the future, and what no cache can pass."""

import heapq
from collections.abc import Iterator

from tests.bench.replay.simulate import Score
from tests.bench.replay.trace import DAY, Trace, next_uses


def infinite(trace: Trace) -> Score:
    """Everything is kept: only what was never asked before is fetched."""
    score, known = Score(), set[str]()
    for request in trace.requests:
        score.count(request, request.key in known)
        known.add(request.key)
    return score


def belady(trace: Trace, capacity: int) -> Score:
    """Belady's MIN: who is needed farthest in the future goes, the newcomer itself included, to the byte.

    The optimum for objects hit where all sizes are equal. Where they differ (always, here) it is a very good policy
    that knows the future, no bound: `most` is that.
    """
    score, held, gone = Score(), set[str](), dict[str, float]()
    heap: list[tuple[float, str, int]] = []
    size = 0
    for request, following in zip(trace.requests, next_uses(trace.requests), strict=True):
        newcomer = request.key not in held
        score.count(request, not newcomer)
        if newcomer:
            if request.time - gone.pop(request.key, float("-inf")) < DAY:
                score.thrash += request.size
            size += request.size
        held.add(request.key)
        heapq.heappush(heap, (-following, request.key, request.size))
        while size > capacity:
            # The farthest entry is never out of date: those of earlier uses name places that have passed.
            _, key, bytes_ = heapq.heappop(heap)
            held.remove(key)
            size -= bytes_
            if not newcomer or key != request.key:
                gone[key] = request.time
                score.evicted += bytes_
    return score


def most(trace: Trace, capacity: int) -> Score:
    """What no policy can pass, for objects and for bytes each by itself (PFOO-U: Berger, Beckmann, Harchol-Balter,
    "Practical Bounds on Optimal Caching with Variable Object Sizes", 2018).

    A hit occupies its size from the request before it until itself. Over the whole trace there is capacity x requests
    of that; the cheapest hits first is the best one can do when only the sum is limited and not every moment.
    """
    score = Score(requests=len(trace.requests), asked=trace.asked)
    budget = capacity * len(trace.requests)
    spans = list(_spans(trace, capacity))
    spent = 0
    for length, size in sorted(spans, key=lambda span: span[0] * span[1]):
        spent += length * size
        score.hits += spent <= budget
    spent = 0
    for length, size in sorted(spans):
        room = max(budget - spent, 0)
        score.hit_bytes += min(size, -(-room // length))
        spent += length * size
    return score


def _spans(trace: Trace, capacity: int) -> Iterator[tuple[int, int]]:
    """Of each request that an infinite cache would hit: how many requests ago it was last asked, and its size."""
    for place, following in enumerate(next_uses(trace.requests)):
        if following < float("inf") and trace.requests[place].size <= capacity:
            yield int(following) - place, trace.requests[place].size
