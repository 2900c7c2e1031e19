"""`tidegate gc`: what was pushed and no manifest reaches. What goes is the service's to say; here it becomes a bar on a
terminal, plain lines in a pipe, and a table. With no service running it is done from here, under the data folder's
lock.
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from proxy import config
from proxy.cli.options import load, place, that_asks, wants_json
from proxy.cli.talk import NotRunning, Place, stream

_LINE_EVERY = 5.0
_STEPS = 1000


@click.command("gc", help="what was pushed and no manifest reaches: show it, or remove it")
@click.option("--dry-run", "delete", flag_value="", default=True, help="only show what would go  [so without options]")
@click.option("--delete", "delete", flag_value="yes", help="remove it")
@click.option("--untagged", is_flag=True, help="also manifests that no tag, index or subject leads to")
@that_asks
@click.pass_context
def gc(context: click.Context, delete: str, untagged: bool) -> int:
    as_json = wants_json(context)
    show = iter if as_json else _on_a_bar if sys.stderr.isatty() else _in_lines
    *_, last = show(_reports(context, place(context), {"delete": delete == "yes", "untagged": untagged}))
    click.echo(json.dumps(last, indent=2) if as_json else _summary(last))
    return 1 if any(each["unreadable"] for each in last["repositories"]) else 0


def _reports(context: click.Context, service: Place, order: dict[str, bool]) -> Iterator[dict[str, Any]]:
    try:
        yield from stream(service, "/api/gc", order)
    except NotRunning:
        from proxy.cli import alone  # slow: diskcache

        yield from alone.collect(load(context, data=service.data), **order)


def _on_a_bar(reports: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    with click.progressbar(length=_STEPS, label="looking", file=sys.stderr) as bar:
        for report in reports:
            bar.label = f"looking, {_found(report)}"
            bar.update(int(report["progress"] * _STEPS) - bar.pos)
            yield report


def _in_lines(reports: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    said = time.monotonic()
    for report in reports:
        if time.monotonic() - said > _LINE_EVERY and not report.get("done"):
            said = time.monotonic()
            click.echo(f"{report['progress']:.0%}, {_found(report)}", err=True)
        yield report


def _found(report: dict[str, Any]) -> str:
    return f"{_counted(report['files'], 'file')}, {config.format_size(report['bytes'])}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _summary(report: dict[str, Any]) -> str:
    rows = [each for each in report["repositories"] if not each["unreadable"]]
    lines = [_row(each) for each in rows]
    if report["deleted"]:
        lines.append(f"removed: {_found(report)}")
    elif report["files"] or rows:
        lines.append(f"would free {_found(report)}; nothing was removed. To remove it: {_command(report)}")
    else:
        lines.append("nothing to remove")
    lines += [
        f"{each['repository']}: {each['unreadable']} cannot be read, so everything stays; push it again"
        for each in report["repositories"]
        if each["unreadable"]
    ]
    return "\n".join(lines)


def _row(each: dict[str, Any]) -> str:
    parts = [_counted(each["manifests"], "manifest")] if each["manifests"] else []
    parts += [_counted(each["blobs"], "blob")] if each["blobs"] else []
    return f"{each['repository']}  {', '.join(parts)}, {config.format_size(each['bytes'])}"


def _command(report: dict[str, Any]) -> str:
    return f"tidegate gc --delete{' --untagged' if report['untagged'] else ''}"
