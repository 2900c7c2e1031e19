"""The supervisor's loop: fork, wait, restart, drain. It only waits for signals and does nothing else.

All its signals are blocked and taken with sigtimedwait, one after the other, so there are no handlers and no races:
what arrives while we act is pending when we look again.
"""

import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable

from proxy.errors import StartError
from proxy.worker.notify import notify

DEATHS, WITHIN = 5, 30.0
GRACE = 5.0  # on top of the drain: what closing takes
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGCHLD})


def say(line: str) -> None:
    """One line for whoever watches."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Supervisor:
    """`work(slot)` is the life of one worker, in its own process; it returns after a drain."""

    def __init__(self, workers: int, drain: float, work: Callable[[int], None], before: Callable[[int], None]) -> None:
        self._count = workers
        self._drain = drain
        self._work = work
        self._before = before
        self._slots: dict[int, int] = {}
        self._deaths: deque[float] = deque(maxlen=DEATHS)

    def run(self, draining: Callable[[], str]) -> int:
        """Until a signal or too many deaths; `draining` stops listening and words who is waited for.

        Returns the exit status: 0 after a clean drain.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # SIG_IGN may be inherited and would reap for us
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for slot in range(self._count):
            self._fork(slot)
        while signal.sigwait(_SIGNALS) == signal.SIGCHLD:
            reason = self._restart()
            if reason:
                say(reason)
                draining()
                self._stop()
                return 1
        notify("STOPPING=1")
        say(f"draining: {draining()}, up to {self._drain:g} s (again to stop now)")
        return 0 if self._stop() else 1

    def _fork(self, slot: int) -> None:
        self._before(slot)
        pid = os.fork()
        if pid == 0:
            self._child(slot)
        self._slots[pid] = slot

    def _child(self, slot: int) -> None:
        """Never returns: the supervisor's stack above us is not ours to unwind."""
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor tells us
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._work(slot)
            status = 0
        except StartError as error:
            say(str(error))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> list[tuple[int, int, int]]:
        """(slot, pid, wait status) of every worker that has ended; as pid 1 also reaps what others left."""
        ended: list[tuple[int, int, int]] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            if pid in self._slots:
                ended.append((self._slots.pop(pid), pid, status))

    def _restart(self) -> str:
        """Replace every worker that died; the reason to give up, or ""."""
        for slot, pid, status in self._reap():
            self._deaths.append(time.monotonic())
            how = _how(status)
            if len(self._deaths) == DEATHS and self._deaths[-1] - self._deaths[0] < WITHIN:
                return f"workers keep dying, {DEATHS} within {WITHIN:g} s, the last one {how}; giving up"
            say(f"worker {slot} (pid {pid}) {how}; starting another")
            self._fork(slot)
        return ""

    def _stop(self) -> bool:
        """Drain every worker; True when all of them ended by themselves. A second signal ends it at once."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self._drain + GRACE
        self._reap()
        while self._slots:
            got = signal.sigtimedwait(_SIGNALS, max(0.0, deadline - time.monotonic()))
            if got is None or got.si_signo != signal.SIGCHLD:
                why = "not all workers ended in time" if got is None else "not waiting for the workers"
                say(f"stopping now: {why}, killed {len(self._slots)}")
                self._kill()
                return False
            self._reap()
        return True

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        for pid in self._slots:
            os.waitpid(pid, 0)
        self._slots.clear()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._slots:
            os.kill(pid, number)  # not reaped yet, so the number is still theirs


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"ended with status {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
