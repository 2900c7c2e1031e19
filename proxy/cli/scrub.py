"""`tidegate scrub`: read everything again now. How it goes is the service's to say; here it becomes a bar on a terminal
and plain lines in a pipe. With no service running it is done from here, under the data folder's lock.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from proxy import config
from proxy.cli.talk import NotRunning, Place, stream

_LINE_EVERY = 5.0


def run(service: Place, full: bool, as_json: bool) -> int:
    """1 when something bad was found in this pass. Raises StartError."""
    show = _quietly if as_json else _on_a_bar if sys.stderr.isatty() else _in_lines
    *_, last = show(_reports(service, full))
    click.echo(json.dumps(last, indent=2) if as_json else _summary(last))
    return 1 if last["bad"] else 0


def _reports(service: Place, full: bool) -> Iterator[dict[str, Any]]:
    try:
        yield from stream(service, "/api/scrub", {"full": full})
    except NotRunning:
        from proxy.cli import alone  # slow: diskcache

        yield from alone.scrub(service.data, full)


def _quietly(reports: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return reports


def _on_a_bar(reports: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    with click.progressbar(length=1, label="reading", file=sys.stderr) as bar:
        for report in reports:
            bar.length = max(1, report["of_bytes"])
            bar.update(report["bytes"] - bar.pos)
            yield report


def _in_lines(reports: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    said = time.monotonic()
    for report in reports:
        if "bad_blob" in report:
            click.echo(f"bad: {report['bad_blob']}")
        elif time.monotonic() - said > _LINE_EVERY and not report.get("done"):
            said = time.monotonic()
            click.echo(f"{report['checked']} of {report['of']} blobs, {config.format_size(report['bytes'])}")
        yield report


def _summary(report: dict[str, Any]) -> str:
    began = time.strftime("%Y-%m-%d %H:%M", time.gmtime(report["began"]))
    blobs = f"{report['checked']} blob{'' if report['checked'] == 1 else 's'}"
    lines = [f"{blobs}, {config.format_size(report['bytes'])} read since {began} UTC, {report['bad']} bad"]
    if report["bad"] or report["again"]:
        lines.append(f"{report['again']} fetched again now, others when somebody asks for them")
    lines += [f"missing and needed: {digest}" for digest in report["lost"]]
    return "\n".join(lines)
