"""All checks in the order a pull would meet them; the first thing wrong on the way ends the way, not the report."""

import asyncio
from collections.abc import Sequence
from typing import Any

from yarl import URL

from proxy.config import Settings
from proxy.doctor import blob, clock, folder, manifest
from proxy.doctor.image import Image, choose
from proxy.doctor.limits import Budget, Limits
from proxy.doctor.report import Problem, Report, plain
from proxy.doctor.walk import Walk
from proxy.doctor.way import Way

_ON_A_LAYER = ("throughput", "range")


async def examine(settings: Settings, text: str, inside: bool, limits: Limits | None = None) -> dict[str, Any]:
    """The report on the image `text` names ("" for a default one), as JSON holds it; ends within a minute.

    `inside`: this is the running service, so what it finds is what its pulls meet.
    """
    limits = limits or Limits()
    report, budget = Report(plain(text, 300), inside), Budget(limits)
    report.ok("config", f"{settings.file or 'no file, defaults'}, {_where(settings, inside)}")
    try:
        report.ok("data", await asyncio.to_thread(folder.check, settings.server.data, limits))
    except Problem as problem:
        report.fail(problem)
    try:
        image = choose(settings, text)
    except Problem as problem:
        report.fail(problem)
    else:
        report.image = str(image)
        await _sources(settings, image, report, budget)
    return report.document()


def _where(settings: Settings, inside: bool) -> str:
    if inside:
        return "asked inside the running service"
    return f"no tidegate is running for {settings.server.data}: asked with this command's own environment"


async def _sources(settings: Settings, image: Image, report: Report, budget: Budget) -> None:
    """Every URL of the upstream, as if it were the only one."""
    if image.upstream.offline:
        report.skip(["the way out"], f"{image.upstream.name} is offline by configuration: nothing is asked")
        return
    for base in image.upstream.urls:
        if len(image.upstream.urls) > 1:
            report.ok("source", base)
        await _source(Way(image.upstream, budget, settings.origins), image, base, report)


async def _source(way: Way, image: Image, base: str, report: Report) -> None:
    before, walk = len(report.steps), Walk(way, image, base, report)
    try:
        await way.start()
        await _pull(walk, image, report)
    except Problem as problem:
        report.fail(problem)
        if way.dated is not None and not _made(report, before, "clock"):
            _clock(way, report)
    reached = {name for step in report.steps[before:] for name in step.name.split(", ")}
    report.skip(name for name in _expected(way, base) if name not in reached)


def _made(report: Report, before: int, name: str) -> bool:
    return any(step.name == name for step in report.steps[before:])


def _expected(way: Way, base: str) -> Sequence[str]:
    url = URL(base)
    proxied = ["proxy"] if way.egress.proxy_for(url.host or "") else []
    return ["tcp", *proxied, *(["tls"] if url.scheme == "https" else []), "clock", "api", "manifest", *_ON_A_LAYER]


async def _pull(walk: Walk, image: Image, report: Report) -> None:
    """What a pull asks, one after the other. Raises Problem."""
    async with walk.to("api", "", {}) as answered:
        status, seconds = answered.head.status, answered.head.seconds
    _clock(walk.way, report)
    report.ok("api", f"/v2/ answers {status} in {max(seconds * 1000, 1):.0f} ms")
    layer = await manifest.check(walk, image, report)
    if layer is None or layer.size < 2:
        report.skip(_ON_A_LAYER, "the image has no layer to try")
        return
    started = walk.way.budget.left
    try:
        report.ok("throughput", await blob.check_throughput(walk, image, layer))
    except Problem as problem:
        if problem.step != "throughput":
            raise
        report.fail(problem)
    if started - walk.way.budget.left < walk.way.budget.left:
        report.ok("range", await blob.check_range(walk, image, layer))


def _clock(way: Way, report: Report) -> None:
    try:
        if way.dated is None:
            report.skip(["clock"], "nobody has sent a Date")
        else:
            report.ok("clock", clock.check(way.dated, way.budget.limits.clock))
    except Problem as problem:
        report.fail(problem)
    except ValueError:
        report.skip(["clock"], "the Date that was sent cannot be read")
