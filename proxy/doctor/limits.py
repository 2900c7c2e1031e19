"""How long each step and the whole may take, and from where on a figure is a problem."""

import asyncio
import time
from dataclasses import dataclass

from proxy.doctor.report import Problem


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, but `free`, which is bytes. `first_byte` is longer than a step: a proxy that scans first is a thing to
    measure, and nodes give up at 30 s."""

    step: float = 10.0
    whole: float = 58.0
    first_byte: float = 45.0
    slow: float = 5.0
    clock: float = 300.0
    free: int = 256 << 20


class Budget:
    """What is left of the whole time."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._end = time.monotonic() + limits.whole

    def within(self, step: str, seconds: float) -> asyncio.Timeout:
        """A deadline for one thing to wait for. Raises Problem when the whole time is used up."""
        if self.left <= 0:
            raise Problem(step, f"no time left: everything together gets {self.limits.whole:g} s")
        return asyncio.timeout(min(seconds, self.left))

    @property
    def left(self) -> float:
        """Seconds until the end, negative after it."""
        return self._end - time.monotonic()
