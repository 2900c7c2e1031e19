"""The upstream of the soak: a host that redirects blobs to a second one, and both misbehave at random.

Which faults fit which request stands in tables here; what a fault does is tests/fakes/faults.py's. A fault nobody can
see (a wrong byte in a list of tags, a HEAD with the wrong length) is not in them.
"""

import random
from collections.abc import Callable
from typing import Self

from tests.bench.soak.world import Report, Truth
from tests.fakes import (
    CloseDelimited,
    Cut,
    Delay,
    Drip,
    Fault,
    Flip,
    GzipRange,
    Hangup,
    Html,
    IgnoreRange,
    NoLength,
    Origin,
    Silence,
    Stall,
    Status,
    WrongLength,
    WrongRangeStart,
    WrongRangeTotal,
)
from tests.fakes.faults import Answer
from tests.fakes.log import Request

_CLOSED = "http://127.0.0.1:1"
"""Nobody listens there: a refused connection."""

Maker = Callable[[random.Random, int], Fault]  # gets how many bytes the right body has

_ANY: tuple[Maker, ...] = (
    lambda rng, size: Status(rng.choice((404, 429, 500, 502, 503)), {"Retry-After": "1"}),
    lambda rng, size: Status(rng.choice((500, 503, 403))),
    lambda rng, size: Delay(rng.uniform(0.1, 1.0)),
    lambda rng, size: Hangup(),
)
_BODY: tuple[Maker, ...] = (
    lambda rng, size: Cut(rng.randrange(size + 1)),
    lambda rng, size: Cut(rng.randrange(size + 1)),
    lambda rng, size: Stall(rng.randrange(size + 1)),
    lambda rng, size: NoLength(),
    lambda rng, size: CloseDelimited(),
)
_CONTENT: tuple[Maker, ...] = (
    lambda rng, size: Flip(rng.randrange(size + 1)),
    lambda rng, size: WrongLength(rng.choice((-1, 1, 1000))),
    lambda rng, size: Html(),
)
_BLOB: tuple[Maker, ...] = (
    lambda rng, size: IgnoreRange(),
    lambda rng, size: Drip(64 << 10, 0.03),
    lambda rng, size: Drip(128 << 10, 0.03),
    lambda rng, size: WrongRangeStart(),
    lambda rng, size: WrongRangeTotal(),
    lambda rng, size: GzipRange(),
)
_LIES = (Flip, WrongLength, Html, WrongRangeStart, WrongRangeTotal, GzipRange)
_RARE: tuple[Maker, ...] = (lambda rng, size: Silence(),)


class Wild(Origin):
    """One host. With `second` it sends most blobs there. `rate` is the share of requests that meet a fault."""

    def __init__(self, truth: Truth, rng: random.Random, report: Report, second: Self | None = None) -> None:
        super().__init__()
        self.repos = truth.repos
        self.rate = 0.0
        self._truth, self._rng, self._report, self._second = truth, rng, report, second

    def hang_up(self) -> None:
        """Ends every connection, idle ones too; called in the thread this runs in or through its loop."""
        for task in list(self._serving):
            task.get_loop().call_soon_threadsafe(task.cancel)

    def _decide(self, request: Request) -> Answer:
        _, _, *names, kind, reference = request.path.split("/") if request.path.count("/") > 3 else [""] * 5
        blob = kind == "blobs"
        fault = self._fault(request, kind) if self._rng.random() < self.rate else None
        if blob and self._second is not None and (fault is None or fault.keeps_range):
            if fault is None and self._rng.random() < 0.9:
                fault = Status(307, {"Location": self._second.url + request.path})
            elif self._rng.random() < 0.1 * bool(self.rate):
                fault = Status(307, {"Location": _CLOSED + request.path})
        answer = self._answer(request, ranged=fault is None or fault.keeps_range)
        if fault is not None:
            fault.bend(answer)
            self._count(fault)
        if isinstance(fault, _LIES):
            self._truth.lie(reference)
        if answer.status in (403, 404):
            self._truth.note("/".join(names), reference, answer.status)
        return answer

    def _fault(self, request: Request, kind: str) -> Fault:
        choices = _ANY
        if request.method == "GET" and kind in ("blobs", "manifests", "tags"):
            choices += _BODY
        if request.method == "GET" and kind in ("blobs", "manifests"):
            choices += _CONTENT
        if request.method == "GET" and kind == "blobs":
            choices += _BLOB
        if self._rng.random() < 0.02:
            choices = _RARE
        return self._rng.choice(choices)(self._rng, len(self._answer(request, ranged=True).body))

    def _count(self, fault: Fault) -> None:
        match fault:
            case Status(code=307, headers=headers) if not headers["Location"].startswith(_CLOSED):
                return
            case Status(code=code):
                self._report.faults["refused connection" if code == 307 else str(code)] += 1
            case _:
                self._report.faults[type(fault).__name__.lower()] += 1
