"""What goes wrong with the service itself meanwhile: workers die, all of it is stopped and started, time passes for
the cache, tags move, pins come and go, everything is read again.

Only processes of this very service are ended, each by the pid its supervisor has as a child.
"""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench.measure import peak_memory
from tests.bench.soak.world import KIB, Report, Truth, digest_of, image
from tests.fakes.origin import OCI_MANIFEST
from tests.real.processes import free_port
from tests.real.tidegate import ROOT, Tidegate, tidegate

_DEATHS, _WITHIN = 4, 31.0
"""One worker more within that time and the supervisor gives up, as it should."""


class Service:
    """One tidegate that comes and goes at one address with one data folder; each start has a folder for its output."""

    def __init__(self, config: dict[str, Any], folder: Path, workers: int) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = folder / "data"
        self.folder = folder
        self.server: Tidegate | None = None
        self.starts = 0
        self.started = 0.0  # when, the last time, as time.monotonic() says
        self.deaths: list[float] = []
        self._config, self._workers = config, workers
        self._open = ExitStack()

    def start(self) -> None:
        """Raises NotStarted."""
        self.starts += 1
        place = self.folder / f"start{self.starts}"
        started = tidegate(self._config, self.data, self._workers, folder=place, port=self.port)
        self.deaths.clear()
        self.started = time.monotonic()
        self.server = self._open.enter_context(started)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.server is not None
        server, self.server = self.server, None
        status = server.stop()
        self._open.close()
        return status

    def kill(self) -> None:
        """SIGKILL to all of it at once."""
        assert self.server is not None
        server, self.server = self.server, None
        server.kill()
        self._open.close()

    def close(self) -> None:
        self._open.close()

    def kill_worker(self, rng: random.Random) -> bool:
        """SIGKILL to one worker, where the supervisor will still replace it."""
        now = time.monotonic()
        self.deaths = [each for each in self.deaths if now - each < _WITHIN]
        pids = self.server.worker_pids() if self.server is not None else []
        if not pids or len(self.deaths) >= _DEATHS:
            return False
        os.kill(rng.choice(pids), signal.SIGKILL)
        self.deaths.append(now)
        return True

    def peak(self) -> float:
        """MiB of the largest worker there is."""
        peaks = [0.0]
        for pid in self.server.worker_pids() if self.server is not None else ():
            with contextlib.suppress(OSError, StopIteration):
                peaks.append(peak_memory(pid))
        return max(peaks)

    def output(self) -> list[str]:
        """Lines of standard error of all starts."""
        return [line for path in self.folder.glob("start*/tidegate.err") for line in path.read_text().splitlines()]

    def age(self) -> None:
        """As if an hour had passed since anything was used, in the same order: what is young is never evicted."""
        books = sqlite3.connect(self.data / "catalogue/catalogue.db", timeout=2)
        with contextlib.closing(books), contextlib.suppress(sqlite3.OperationalError):
            books.execute("UPDATE objects SET used = used - 3600, rank = rank - 3600")
            books.commit()


class Churn:
    """Everything that happens to the service, each at its own pace."""

    def __init__(self, service: Service, truth: Truth, report: Report, rng: random.Random, pace: float) -> None:
        self._service, self._truth, self._report, self._rng, self._pace = service, truth, report, rng, pace
        self._starting = asyncio.Lock()
        self.pinned: set[str] = set()

    def tasks(self, over: asyncio.Event) -> list[Awaitable[None]]:
        """Run them all; they end with `over`, and the service runs then."""
        jobs: tuple[tuple[float, Callable[[], Awaitable[None]]], ...] = (
            (1.5, self._age),
            (1.0, self._move),
            (0.5, self._weigh),
            (3.0 * self._pace, self._kill_worker),
            (9.0 * self._pace, self._restart),
            (4.0 * self._pace, self._keep),
        )
        return [self._every(pause, job, over) for pause, job in jobs]

    async def _every(self, pause: float, job: Callable[[], Awaitable[None]], over: asyncio.Event) -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), pause * self._rng.uniform(0.6, 1.4))
                return
            await job()

    async def _age(self) -> None:
        await asyncio.to_thread(self._service.age)

    async def _move(self) -> None:
        """A tag of the upstream becomes another image, sometimes a new one."""
        name = self._rng.choice(list(self._truth.repos))
        repo = self._truth.repos[name]
        if self._rng.random() < 0.3 and len(repo.manifests) < 12:
            manifest, blobs = image(self._rng, [self._rng.randbytes(200 * KIB)])
            repo.blobs.update(blobs)
            repo.manifests[digest_of(manifest)] = manifest, OCI_MANIFEST
        self._truth.move(name, "latest", self._rng.choice(list(repo.manifests)))
        self._report.events["tags moved"] += 1

    async def _weigh(self) -> None:
        self._report.peak = max(self._report.peak, await asyncio.to_thread(self._service.peak))

    async def _kill_worker(self) -> None:
        async with self._starting:
            if await asyncio.to_thread(self._service.kill_worker, self._rng):
                self._report.events["workers killed"] += 1

    async def _restart(self) -> None:
        async with self._starting:
            if self._rng.random() < 0.5:
                await asyncio.to_thread(self._service.kill)
                self._report.events["services killed"] += 1
            else:
                status = await asyncio.to_thread(self._service.stop)
                self._report.events["services stopped"] += 1
                if status != 0:
                    self._report.problem(f"exit status {status} after SIGTERM")
            await asyncio.sleep(self._rng.random() * 0.5)
            await asyncio.to_thread(self._service.start)

    async def _keep(self) -> None:
        """One command an operator might give. Exit status 1 is an answer too, while the upstream is wild."""
        name = self._rng.choice(list(self._truth.repos))
        image_name = f"registry.k8s.io/{name}:{self._rng.choice(('v1', 'v2'))}"
        match self._rng.randrange(3):
            case 0 if len(self.pinned) < 2:
                if await self._command("pin", image_name) == 0:
                    self.pinned.add(image_name)
            case 1 if self.pinned:
                image_name = self._rng.choice(sorted(self.pinned))
                self.pinned.discard(image_name)
                await self._command("unpin", image_name)
            case _:
                await self._command("scrub")

    async def _command(self, *words: str) -> int:
        command = (sys.executable, "-m", "proxy", words[0], "--data", str(self._service.data), *words[1:])
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        try:
            _, errors = await asyncio.wait_for(process.communicate(), 90)
        except TimeoutError:
            self._report.problem(f"{words} did not end within 90 s")
            process.kill()
            await process.wait()
            return -1
        self._report.events[words[0]] += 1
        if process.returncode not in (0, 1) or b"Traceback" in errors:
            self._report.problem(f"{words}: exit status {process.returncode}: {errors[-600:]!r}")
        return process.returncode or 0
