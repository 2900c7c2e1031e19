"""The supervisor's loop: fork, wait, restart, replace, drain. It only waits for signals and does nothing else.

All its signals are blocked and taken with sigtimedwait, one after the other, so there are no handlers and no races:
what arrives while we act is pending when we look again.

A reload is a second crew beside the first one. Only when every one of the new workers accepts connections are the old
ones told to finish what they have, however long that takes them; a new one that dies before that is the end of the
reload and of nothing else. Slots are never shared: a worker's metrics are files of its slot.
"""

import itertools
import os
import signal
import struct
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from proxy.config import ConfigError
from proxy.errors import StartError
from proxy.worker.notify import notify

DEATHS, WITHIN = 5, 30.0
GRACE = 5.0  # on top of the drain: what closing takes
STARTING = 60.0  # seconds new workers may take until all of them serve
_ENDS = frozenset({signal.SIGTERM, signal.SIGINT})
_SIGNALS = _ENDS | {signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR1}
_PID = struct.Struct("i")


def say(line: str) -> None:
    """One line for whoever watches."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class Crew:
    """So many workers of the same settings, with their drain in seconds. `work(slot, ready)` is the life of one, in its
    own process; it calls `ready` when it serves, and returns after a drain."""

    workers: int
    drain: float
    work: Callable[[int, Callable[[], None]], None]


class Reloads(Protocol):
    """Where another crew comes from."""

    def begin(self) -> Crew | None:
        """The one to have from now on, or None. Raises nothing."""

    def done(self) -> None:
        """It serves."""

    def failed(self, why: str) -> None:
        """It does not, the old one goes on."""


@dataclass(slots=True)
class _Turnover:
    """A crew that is starting beside the one that serves: who is there, who of them does not serve yet, until when."""

    crew: Crew
    until: float
    pids: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)


class Supervisor:
    """One crew, for a moment two."""

    def __init__(self, crew: Crew, before: Callable[[int], None], died: Callable[[], None], reloads: Reloads) -> None:
        """`before(slot)` is called before a slot is used, and after its last use; `died` for every worker that is
        replaced because it has."""
        self._crew = crew
        self._before = before
        self._died = died
        self._reloads = reloads
        self._turnover: _Turnover | None = None
        self._asked_again = False
        self._slots: dict[int, int] = {}
        self._retired: set[int] = set()
        self._deaths: deque[float] = deque(maxlen=DEATHS)
        self._serving, self._tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._terminal = _has_terminal()

    def run(self, draining: Callable[[], str]) -> int:
        """Until a signal or too many deaths; `draining` stops listening and words who is waited for.

        Returns the exit status: 0 after a clean drain.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # SIG_IGN may be inherited and would reap for us
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and then nobody could ask for a reload
        for slot in range(self._crew.workers):
            self._fork(slot, self._crew)
        while (reason := self._wait()) is None:
            pass
        if reason:
            say(reason)
            draining()
            self._stop()
            return 1
        notify("STOPPING=1")
        say(f"draining: {draining()}, up to {self._crew.drain:g} s (again to stop now)")
        return 0 if self._stop() else 1

    def _wait(self) -> str | None:
        """Take one signal. None to go on; why to give up; "" to stop as told."""
        left = max(0.0, self._turnover.until - time.monotonic()) if self._turnover else 86400.0
        got = signal.sigtimedwait(_SIGNALS, left)
        if got is None:
            if self._turnover is not None:
                self._abandon(f"the new workers did not serve within {STARTING:g} s")
            return None
        match got.si_signo:
            case signal.SIGCHLD:
                return self._restart() or None
            case signal.SIGUSR1:
                self._count_ready()
            case signal.SIGHUP if not self._terminal or _has_terminal():
                self._reload()
            case _:
                return ""
        return None

    def _fork(self, slot: int, crew: Crew) -> int:
        """Raises OSError."""
        self._before(slot)
        pid = os.fork()
        if pid == 0:
            self._child(slot, crew)
        self._slots[pid] = slot
        return pid

    def _child(self, slot: int, crew: Crew) -> None:
        """Never returns: the supervisor's stack above us is not ours to unwind."""
        status, supervisor = 1, os.getppid()

        def ready() -> None:
            os.write(self._tell, _PID.pack(os.getpid()))
            os.kill(supervisor, signal.SIGUSR1)

        try:
            # What a terminal sends reaches the whole group, and the supervisor tells us what it is to mean.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            crew.work(slot, ready)
            status = 0
        except (ConfigError, StartError) as error:
            say(str(error))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _reload(self) -> None:
        """Begin another crew; while one begins, once more after it."""
        if self._turnover is not None:
            self._asked_again = True
            return
        crew = self._reloads.begin()
        if crew is None:
            return
        self._turnover = _Turnover(crew, time.monotonic() + STARTING)
        taken = set(self._slots.values())
        free = itertools.islice((slot for slot in itertools.count() if slot not in taken), crew.workers)
        try:
            for slot in list(free):
                self._turnover.pids.add(self._fork(slot, crew))
        except OSError as error:
            self._abandon(f"another worker cannot be started: {error.strerror}")
            return
        self._turnover.waiting |= self._turnover.pids

    def _count_ready(self) -> None:
        """Workers serve; when all of the new ones do, the old ones finish."""
        ready: set[int] = set()
        try:
            while content := os.read(self._serving, _PID.size * 64):
                ready |= {pid for (pid,) in _PID.iter_unpack(content)}
        except BlockingIOError:
            pass
        turnover = self._turnover
        if turnover is None:
            return
        turnover.waiting -= ready
        if turnover.waiting:
            return
        self._turnover = None
        old = [pid for pid in self._slots if pid not in turnover.pids and pid not in self._retired]
        self._retired.update(old)
        self._crew = turnover.crew
        for pid in old:
            os.kill(pid, signal.SIGUSR1)
        self._reloads.done()
        self._reload_again()

    def _abandon(self, why: str) -> None:
        """The new crew goes, the old one stays."""
        assert self._turnover is not None, "only what has begun can be abandoned"
        gone, self._turnover = self._turnover, None
        for pid in gone.pids & self._slots.keys():
            os.kill(pid, signal.SIGKILL)
        self._retired |= gone.pids & self._slots.keys()
        self._reloads.failed(why)
        self._reload_again()

    def _reload_again(self) -> None:
        if self._asked_again:
            self._asked_again = False
            self._reload()

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
            if pid in self._retired:
                self._retired.discard(pid)
                self._before(slot)
                continue
            if self._turnover is not None and pid in self._turnover.pids:
                self._before(slot)
                self._abandon(f"a new worker {_how(status)}")
                continue
            self._deaths.append(time.monotonic())
            how = _how(status)
            if len(self._deaths) == DEATHS and self._deaths[-1] - self._deaths[0] < WITHIN:
                return f"workers keep dying, {DEATHS} within {WITHIN:g} s, the last one {how}; giving up"
            say(f"worker {slot} (pid {pid}) {how}; starting another")
            self._died()
            self._fork(slot, self._crew)
        return ""

    def _stop(self) -> bool:
        """Drain every worker; True when all of them ended by themselves. A second signal ends it at once."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + self._crew.drain + GRACE
        self._reap()
        while self._slots:
            got = signal.sigtimedwait(_SIGNALS, max(0.0, deadline - time.monotonic()))
            if got is None or got.si_signo in _ENDS:
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


def _has_terminal() -> bool:
    """Whether somebody's terminal is our input: when it goes away, SIGHUP means the end and not a reload."""
    try:
        return os.isatty(0)
    except OSError:
        return False


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"ended with status {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"
