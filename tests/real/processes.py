"""Starting, awaiting and ending one process of our own. Everything else in this folder stands on it.

A process leads its own group, so that its children end with it even when it is already gone; nothing is ever ended by
name.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

_SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"


class NotStarted(Exception):
    """A program ended or did not become ready in time; its last lines are in the message."""


def program(name: str) -> str | None:
    """Where `name` is installed; system folders count although they are not on everybody's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":" + _SYSTEM)


def free_port() -> int:
    """A port nobody listens on. Below the kernel's ephemeral range and apart for each test worker, so none takes it."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
    while True:
        port = 12000 + worker * 2500 + random.randrange(2500)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def fetch(
    url: str, headers: Mapping[str, str] | None = None, timeout: float = 5, trust: ssl.SSLContext | None = None
) -> tuple[int, bytes]:
    """Status and body of one GET, redirects followed; raises OSError when nothing answers."""
    # A proxy in the environment must not see what stays on this machine.
    direct = build_opener(ProxyHandler({}), HTTPSHandler(context=trust))
    try:
        with direct.open(Request(url, headers=dict(headers or {})), timeout=timeout) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


@dataclass(frozen=True, slots=True)
class Running:
    """A process that is alive; zombies are not."""

    pid: int
    parent: int
    group: int


def processes() -> Iterator[Running]:
    """Everything that runs on this machine."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, group = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # gone meanwhile
        if state not in "ZX":
            yield Running(int(path.parent.name), int(parent), int(group))


class Process:
    """A running program, its output in `<folder>/<name>.out` and `.err`."""

    def __init__(self, command: Sequence[str], folder: Path, name: str, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.out_path, self.err_path = folder / f"{name}.out", folder / f"{name}.err"
        with self.out_path.open("wb") as out, self.err_path.open("wb") as err:
            self._popen = subprocess.Popen(
                [program(command[0]) or command[0], *command[1:]],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=env, start_new_session=True,
            )  # fmt: skip
        self.pid = self._popen.pid

    @property
    def stdout(self) -> str:
        return self.out_path.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self.err_path.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    def wait_ready(self, url: str, seconds: float = 20, trust: ssl.SSLContext | None = None) -> None:
        """Returns when `url` answers 200; raises NotStarted."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                if fetch(url, trust=trust)[0] == 200:
                    return
            self.check()
            time.sleep(0.03)
        raise NotStarted(f"{self.name} is not ready after {seconds} s:\n{self._last_words()}")

    def wait_listening(self, address: str, port: int, seconds: float = 20) -> None:
        """Returns when a connection is accepted there; raises NotStarted."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
                return
            self.check()
            time.sleep(0.03)
        raise NotStarted(f"{self.name} does not listen after {seconds} s:\n{self._last_words()}")

    def check(self) -> None:
        """Raises NotStarted when the process has ended."""
        if not self.running:
            raise NotStarted(f"{self.name} ended with {self._popen.returncode}:\n{self._last_words()}")

    def signal(self, number: int) -> None:
        """Sends a signal to the process itself, not to its children."""
        self._popen.send_signal(number)

    def wait(self, seconds: float = 30) -> int:
        """The exit status; raises subprocess.TimeoutExpired."""
        return self._popen.wait(seconds)

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM, then the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """SIGKILL to the process and all its children at once; returns when none of them runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        while any(each.group == self.pid for each in processes()):
            time.sleep(0.01)

    def end(self, seconds: float = 5) -> None:
        """Whatever state it is in: asked first, then killed with everything it started."""
        if self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop(seconds)
        self.kill()

    def _last_words(self) -> str:
        return "\n".join((self.stdout + self.stderr).splitlines()[-20:])


@contextmanager
def running(
    command: Sequence[str], folder: Path, name: str, ready: str | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """The process until the block ends; with `ready`, entered when that URL answers 200."""
    process = Process(command, folder, name, env)
    try:
        if ready is not None:
            process.wait_ready(ready)
        yield process
    finally:
        process.end()
