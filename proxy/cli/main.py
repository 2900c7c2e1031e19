"""The commands: read options, call one thing, print, exit with 0 (well), 1 (something is wrong) or 2 (wrong usage).

What must not live here: anything worth testing without a terminal. Whatever is slow to import (asyncio, aiohttp,
http.client) is imported inside the command that needs it, so that `tidegate -V` and mistakes answer at once. Every
error is one line on stderr; click's own several lines of usage are replaced in `main`.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn, cast

import click

from proxy import config
from proxy.cli import doctor, egress, keep, legacy, scrub
from proxy.cli import status as status_screen
from proxy.cli.client_config import client_config
from proxy.cli.gc import gc
from proxy.cli.options import any_command, load, place, that_asks, wants_json
from proxy.cli.talk import NotRunning, Place, WrongUsage, ask
from proxy.errors import StartError

_TOP = """\
One machine goes out for images; every node asks it.

Usage: tidegate COMMAND [OPTIONS]
"""
_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Run": ("serve", "config"),
    "Look": ("status", "ls", "egress", "doctor", "legacy"),
    "Keep": ("pin", "unpin", "rm", "scrub", "gc"),
    "Set up": ("client-config",),
}
_OPTIONS = """\
Options (any command)
  -c, --config FILE     [$TIDEGATE_CONFIG, else /etc/tidegate/tidegate.toml if it exists]
      --server URL      a tidegate elsewhere; needs --token-file [the local socket]
      --json            one JSON document instead of text
  -V, --version   -h, --help

First time: tidegate serve, then tidegate doctor in a second terminal.
"""

_WALK = 75.0  # seconds for a walk of the doctor, which ends by itself within a minute


def main() -> NoReturn:
    """The console script: run a command, turn every expected failure into one line and a status."""
    sys.exit(_guarded())


def _guarded() -> int:
    if sys.stdout is None:  # its number would be given to the next file, and what is printed written into that
        return _fail("standard output is closed; use >/dev/null", 1)
    try:
        status = tidegate.main(prog_name="tidegate", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        about = error.ctx.command_path if error.ctx else "tidegate"
        return _fail(f"{error.format_message().rstrip('.')}; see {about} --help", 2)
    except (config.WrongOption, WrongUsage) as error:
        return _fail(str(error), 2)
    except (config.ConfigError, StartError) as error:
        return _fail(str(error), 1)
    except (click.Abort, KeyboardInterrupt):
        return 1
    except BrokenPipeError:
        _abandon_stdout()  # the reader has gone
        return 1
    except OSError as error:
        _abandon_stdout()
        return _fail(f"{error.filename or 'standard output'}: {error.strerror or error}", 1)


def _abandon_stdout() -> None:
    """It must point somewhere, or the interpreter complains when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(line: str, status: int) -> int:
    click.echo(" ".join(line.split("\n")), err=True)
    return status


class _Top(click.Group):
    """The group whose help is grouped by what people want to do."""

    def format_help(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(_TOP)
        for title, names in _GROUPS.items():
            rows = "".join(f"  {name:<14} {self.commands[name].help}\n" for name in names)
            formatter.write(f"\n{title}\n{rows}")
        formatter.write(f"\n{_OPTIONS}")


@click.group(cls=_Top, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@any_command
@click.pass_context
def tidegate(context: click.Context) -> None:
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@tidegate.command(help="answer pulls and pushes; needs no configuration")
@click.option("--listen", metavar="HOST:PORT", help="where clients connect  [127.0.0.1:5000]")
@click.option("--data", metavar="DIR", help="where everything is kept")
@click.option("--offline", is_flag=True, help="ask no upstream; answer what is here")
@any_command
@click.pass_context
def serve(context: click.Context, listen: str | None, data: str | None, offline: bool) -> int:
    def read() -> config.Settings:
        return load(context, listen=listen, data=data, offline="true" if offline else None)

    settings = read()
    from proxy import worker  # slow: asyncio

    return worker.serve(settings, read)


@tidegate.command("config", help="print every setting and where it came from, or the first mistake")
@any_command
@click.pass_context
def config_(context: click.Context) -> int:
    settings = load(context)
    from proxy.cli import alone  # slow: diskcache

    if warning := alone.check(settings):
        click.echo(warning, err=True)
    click.echo(config.as_json(settings) if context.obj.get("json") else config.render(settings))
    return 0


@tidegate.command(help="health, bytes saved, live fills, disk, recent problems")
@click.option("--watch", is_flag=True, help="again every two seconds, until Ctrl-C")
@that_asks
@click.pass_context
def status(context: click.Context, watch: bool) -> int:
    return status_screen.run(place(context), watch=watch, as_json=wants_json(context))


@tidegate.command("egress", help="hosts this cache needs, also as the list for a firewall team")
@click.option("--list", "form", flag_value="list", help="one host a line")
@click.option("--toml", "form", flag_value="toml", help="an allow = to paste into [egress]")
@click.option("--since", metavar="DURATION", default="", help="only hosts seen lately, such as 30d")
@click.option("--expected", is_flag=True, help="add the hosts registry.k8s.io is known to need")
@that_asks
@click.pass_context
def egress_(context: click.Context, form: str | None, since: str, expected: bool) -> int:
    service = place(context)
    try:
        seconds = config.parse_duration(since) if since else float("inf")
    except ValueError as error:
        raise click.UsageError(f"--since {error}", context) from None
    if form and wants_json(context):
        raise click.UsageError(f"--{form} and --json are two forms of one answer: choose one", context)
    rows = _ledger(service, expected)
    # What is expected and not seen yet is decided by the whole ledger: a host seen last month is no surprise.
    missing = egress.expected(rows) if expected else []
    rows = [*egress.since(rows, seconds, time.time()), *missing]
    if wants_json(context):
        click.echo(json.dumps(rows, indent=2))
        return 0
    text = {"list": lambda: "\n".join(egress.hosts(rows)), "toml": lambda: egress.toml(rows)}
    click.echo(text.get(form or "", lambda: egress.table(rows))())
    if form == "list" and missing:
        click.echo(egress.notice(missing), err=True)  # beside the list: what reads the list reads host names alone
    return 0


def _ledger(service: Place, expected: bool) -> Any:
    """What a running service answers, else what its data folder holds, which is nothing before the first start: the
    firewall team asks first. Raises StartError."""
    try:
        return ask(service, "/api/egress")
    except NotRunning:
        from proxy.cli import alone  # slow: diskcache

        return [] if expected and not alone.has_run(service.data) else alone.hosts(service.data)


@tidegate.command("doctor", help="walk the way out step by step and say what to change")
@click.argument("image", default="")
@that_asks
@click.pass_context
def doctor_(context: click.Context, image: str) -> int:
    if not image.isprintable():
        raise click.UsageError("IMAGE is not text", context)
    try:
        report = _examined(context, image)
    except config.ConfigError as error:
        report = doctor.misconfigured(image, str(error))
    click.echo(json.dumps(report, indent=2) if context.obj.get("json") else doctor.render(report))
    return 1 if report["problems"] else 0


def _examined(context: click.Context, image: str) -> Mapping[str, Any]:
    """By the running service, whose environment is what counts, else from here. Raises StartError."""
    try:
        return cast(Mapping[str, Any], ask(place(context), "/api/doctor", seconds=_WALK, image=image))
    except NotRunning:
        return doctor.alone(load(context, data=context.obj.get("data")), image)


@tidegate.command("legacy", help="who still asks for k8s.gcr.io")
@that_asks
@click.pass_context
def legacy_(context: click.Context) -> int:
    service = place(context)
    try:
        rows = ask(service, "/api/legacy")
    except NotRunning:
        from proxy.cli import alone  # slow: diskcache

        rows = alone.old_names(service.data)
    click.echo(json.dumps(rows, indent=2) if context.obj.get("json") else legacy.table(rows))
    return 0


@tidegate.command("scrub", help="re-hash what is stored, fetch again what is bad")
@click.option("--full", is_flag=True, help="from the beginning, not from where the last one was cut off")
@that_asks
@click.pass_context
def scrub_(context: click.Context, full: bool) -> int:
    return scrub.run(place(context), full, wants_json(context))


for each in (*keep.COMMANDS, gc, client_config):
    tidegate.add_command(each)
