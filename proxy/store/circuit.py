"""The circuit of one way to an upstream: what any worker has learned, every worker goes by.

Four words on the board: failures in a row, until when it is left alone, until when it asked to be left alone, and
whether the last request failed. Reading them costs nothing; they are written under a lock that is held for
microseconds, and only when something failed or came back. The sentence of the failure that opened the circuit lies
beside the lock, because whoever is sent away wants the cause and not "circuit open". What the figures are for is
policy.py's.

Half-open: the first asker after the wait moves the end of the wait on by a few seconds, under the lock, and goes; the
others are still sent away. A prober that is killed costs those seconds and nothing else.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable

from proxy import policy
from proxy.errors import Unavailable
from proxy.policy import CircuitState
from proxy.store.board import Board
from proxy.store.lock import briefly

_FAILURES, _OPEN_UNTIL, _PAUSED_UNTIL, _DOWN = range(4)
_SENTENCE = 1000


class Circuit:
    """One way to one upstream. Satisfies ports.Gate."""

    def __init__(
        self, board: Board, number: int, host: str, folder: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        os.makedirs(folder, exist_ok=True)
        self._words = board.words
        self._slot = board.way(number)
        self._host = host
        self._lock = os.path.join(folder, f"{number}.lock")
        self._last = os.path.join(folder, f"{number}.last")
        self._clock = clock

    def enter(self) -> None:
        if paused := self.paused:
            message = f"{self._host} is throttling (429), asked again in {paused} s"
            raise Unavailable(message, retry_after=paused, label="throttled", pause=paused)
        if self._get(_FAILURES) >= policy.FAILURES_TO_OPEN and not self._may_probe():
            left = max(1, math.ceil(self._seconds(_OPEN_UNTIL) - self._clock()))
            raise Unavailable(f"{self._cause()} (asked again in {left} s)", retry_after=left, label="circuit")

    def _may_probe(self) -> bool:
        """Under the lock: one asker gets to see whether the upstream is back."""
        with briefly(self._lock):
            state = self.state
            if state is CircuitState.HALF_OPEN:
                self._set(_OPEN_UNTIL, self._clock() + policy.PROBE)
        return state is not CircuitState.OPEN

    def heard(self) -> None:
        if self._get(_FAILURES) or self._get(_DOWN):
            with briefly(self._lock):
                self._words[self._slot + _FAILURES] = self._words[self._slot + _DOWN] = 0

    def failed(self, error: Unavailable) -> None:
        if error.label in ("circuit", "refused"):
            return  # nobody was asked
        with briefly(self._lock):
            self._words[self._slot + _DOWN] = 1
            if error.label == "throttled" and error.pause:
                self._set(_PAUSED_UNTIL, self._clock() + error.pause)
            if policy.says_down(error.label):
                failures = self._words[self._slot + _FAILURES] = self._get(_FAILURES) + 1
                if wait := policy.circuit_wait(failures):
                    self._set(_OPEN_UNTIL, self._clock() + wait)
                    self._keep(error.message)

    @property
    def up(self) -> bool:
        """Whether the last request got an answer."""
        return not self._get(_DOWN)

    @property
    def state(self) -> CircuitState:
        return policy.circuit_state(self._get(_FAILURES), self._seconds(_OPEN_UNTIL), self._clock())

    @property
    def paused(self) -> int:
        """Seconds the upstream still wants to be left alone, 0 when it does not."""
        return max(0, math.ceil(self._seconds(_PAUSED_UNTIL) - self._clock()))

    def _get(self, word: int) -> int:
        return self._words[self._slot + word]

    def _seconds(self, word: int) -> float:
        return self._words[self._slot + word] / 1e9

    def _set(self, word: int, seconds: float) -> None:
        self._words[self._slot + word] = int(seconds * 1e9)

    def _keep(self, sentence: str) -> None:
        """What opened the circuit; a full disk costs the sentence, nothing else."""
        with contextlib.suppress(OSError), open(self._last, "w", encoding="utf-8") as file:
            file.write(sentence[:_SENTENCE])

    def _cause(self) -> str:
        try:
            with open(self._last, encoding="utf-8") as file:
                return file.read() or f"{self._host} does not answer"
        except (OSError, UnicodeDecodeError):
            return f"{self._host} does not answer"

    def __repr__(self) -> str:
        return f"<Circuit {self._host} {self.state.name.lower()} after {self._get(_FAILURES)} failures>"
