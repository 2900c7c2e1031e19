"""The soak from start to end, and its report. What is counted and what is a problem is decided by the other files."""

import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import click

from tests.bench.soak import after
from tests.bench.soak.churn import Churn, Service
from tests.bench.soak.pulls import Puller
from tests.bench.soak.pushes import Pusher
from tests.bench.soak.wild import Wild
from tests.bench.soak.world import Report, Truth
from tests.fakes import in_thread
from tests.real.tidegate import upstream_config

_SETTLE = 20.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much. `pace` stretches the pauses between kills; `rate` is the share of faulty answers."""

    seconds: float
    seed: int
    workers: int = 3
    pullers: int = 16
    pushers: int = 3
    rate: float = 0.25
    pace: float = 1.0


def config(url: str) -> dict[str, object]:
    """Small and impatient: what is asked for is three times what fits."""
    return {
        "server": {"drain": "5s", "unqualified": ["local", "registry.k8s.io"]},
        "cache": {"max_size": "12MiB", "min_free": "0B"},
        "local": {"own": ["mine/*"]},
        "egress": {"stall_timeout": "1s", "first_byte_deadline": "3s", "connect_timeout": "1s"},
        **upstream_config(url, tag_ttl="2s"),
    }


class Soak:
    """One run of a plan in a folder."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder, self.report = plan, folder, Report()
        self.truth = Truth(self._rng("content"))

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self.plan.seed}/{name}")

    def run(self) -> Report:
        """Everything, to the end; what was started is ended."""
        with ExitStack() as stack:
            back = stack.enter_context(in_thread(Wild(self.truth, self._rng("back"), self.report)))
            front = stack.enter_context(in_thread(Wild(self.truth, self._rng("front"), self.report, back)))
            service = Service(config(front.url), self.folder, self.plan.workers)
            stack.callback(service.close)
            service.start()
            asyncio.run(self._run(service, [front, back]))
            self.report.asked = len(front.log) + len(back.log)
            self.report.upstream_bytes = front.log.sent() + back.log.sent()
        return self.report

    async def _run(self, service: Service, hosts: list[Wild]) -> None:
        pushers = [Pusher(service.url, f"p{n}", self.report, self._rng(f"push{n}")) for n in range(self.plan.pushers)]
        before = await self._warm(service, hosts, pushers)
        for host in hosts:
            host.rate = self.plan.rate
        churn = Churn(service, self.truth, self.report, self._rng("churn"), self.plan.pace)
        await self._clients(service, pushers, self.plan.seconds, churn)
        for host in hosts:
            host.rate = 0.0
            host.hang_up()  # a request that is met by silence may wait for a minute, with all who ask the same
        await self._afterwards(service, hosts, pushers, before)
        self.report.problems += after.unpinned(service, self.truth, churn.pinned)
        await asyncio.to_thread(service.stop)

    async def _clients(
        self, service: Service, pushers: list[Pusher], seconds: float, churn: Churn | None = None
    ) -> None:
        over = asyncio.Event()
        count = range(self.plan.pullers)
        pullers = [Puller(service.url, self.truth, self.report, self._rng(f"pull{n}")) for n in count]
        asyncio.get_running_loop().call_later(seconds, over.set)
        clients = [each.run(over) for each in (*pullers, *pushers)]
        await asyncio.gather(*clients, *(churn.tasks(over) if churn else ()))

    async def _warm(self, service: Service, hosts: list[Wild], pushers: list[Pusher]) -> list[after.Open]:
        """Some seconds without faults, so that everything that is opened once is open."""
        await self._clients(service, pushers, 3.0)
        return await self._quiet(service, hosts)

    async def _quiet(self, service: Service, hosts: list[Wild]) -> list[after.Open]:
        for host in hosts:
            host.hang_up()
        await asyncio.sleep(1.5)
        return await asyncio.to_thread(after.descriptors, service)

    async def _afterwards(
        self, service: Service, hosts: list[Wild], pushers: list[Pusher], before: list[after.Open]
    ) -> None:
        report = self.report
        puller = Puller(service.url, self.truth, report, self._rng("after"))
        with self._ageing(service):
            await after.all_right(self.truth, puller, report)
            await after.tags_follow(self.truth, service.url, report)
            await self._clients(service, pushers, 3.0)
        async with aiohttp.ClientSession() as session:
            for pusher in pushers:
                await pusher.look_at_all(session)
        for host in hosts:
            host.hang_up()
        report.peak = max(report.peak, service.peak())
        report.parts = await after.settled(lambda: after.parts(service), _SETTLE)
        report.leaked = await after.settled(lambda: after.leaks(before, after.descriptors(service)), _SETTLE)
        report.problems += await after.settled(lambda: after.disagreements(service), _SETTLE)
        report.problems += [*after.unsound(service), *after.noise(service)]
        report.problems += after.counted(service, *_since(hosts, service.started))

    @contextlib.contextmanager
    def _ageing(self, service: Service):  # type: ignore[no-untyped-def]
        async def on() -> None:
            while True:
                await asyncio.to_thread(service.age)
                await asyncio.sleep(1)

        task = asyncio.get_running_loop().create_task(on())
        try:
            yield
        finally:
            task.cancel()


def _since(hosts: list[Wild], began: float) -> tuple[int, int]:
    """Requests to these hosts since then, and the bytes of their bodies."""
    requests = [request for host in hosts for request in list(host.log) if request.at >= began]
    return len(requests), sum(request.sent for request in requests)


def lines(plan: Plan, report: Report, seconds: float) -> list[str]:
    """The report."""
    table: dict[str, list[str]] = defaultdict(list)
    for (kind, result), count in sorted(report.requests.items()):
        table[kind].append(f"{result} {count}")
    found = [f"soak, seed {plan.seed}: {seconds:.0f} s, {sum(report.requests.values())} requests"]
    found += [f"  {kind:20} {', '.join(results)}" for kind, results in table.items()]
    sums = f"{report.bytes >> 20} MiB to clients, {report.upstream_bytes >> 20} MiB from the upstream in {report.asked}"
    found += [f"  {'bytes':20} {sums} requests"]
    for name, counted in (("faults", report.faults), ("events", report.events)):
        found.append(f"  {name:20} {sum(counted.values())}: {', '.join(f'{k} {v}' for k, v in counted.most_common())}")
    found += [
        f"  {'wrong bodies':20} {report.wrong}",
        f"  {'leaked descriptors':20} {len(report.leaked)} {'; '.join(report.leaked)}",
        f"  {'partial files':20} {len(report.parts)} {' '.join(report.parts)}",
        f"  {'peak memory':20} {report.peak:.0f} MiB, the largest worker",
        f"  {'problems':20} {len(report.problems)}",
    ]
    return found + [f"    {problem[:300]}" for problem in report.problems[:40]]


@click.command()
@click.option("--seconds", default=600.0, show_default=True, help="of faults; warm-up and checks come on top")
@click.option("--seed", default=1, show_default=True)
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="leave data and logs in this folder")
def main(seconds: float, seed: int, keep: Path | None) -> None:
    """Mixed pulls, pushes, kills and faults; exit status 1 when anything was wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped soak ends its servers too
    began = time.monotonic()
    plan = Plan(seconds, seed, pace=2.0 if seconds > 60 else 1.0)
    with tempfile.TemporaryDirectory(prefix="tidegate-soak-") as name:
        report = Soak(plan, keep or Path(name)).run()
    click.echo("\n".join(lines(plan, report, time.monotonic() - began)))
    raise SystemExit(1 if report.problems or report.wrong or report.leaked or report.parts else 0)
