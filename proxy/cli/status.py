"""What `tidegate status` says: the service on one screen, once or again and again. `screen` is pure: the document in,
text out.

On a terminal the screen is as large as that is and has colours, unless NO_COLOR is set; in a pipe nothing is cut off
and there are no control characters.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from proxy import config
from proxy.cli.talk import Place, ask
from proxy.errors import StartError

_AGAIN = 2.0
_HEIGHT = 24
_FEW = 4
"""Upstreams, and fills, that are shown; of problems and days so many as there is room for."""
_HOME, _CLEAR, _REST, _END = "\x1b[H", "\x1b[2J", "\x1b[K", "\x1b[J"


def run(place: Place, *, watch: bool, as_json: bool) -> int:
    """0 when it is well, 1 when it is not; watching ends with Ctrl-C and 0. Raises StartError."""
    found = ask(place, "/api/status")
    if not watch:
        click.echo(json.dumps(found, indent=2) if as_json else _fitted(found))
        return 0 if found["health"] == "ok" else 1
    try:
        _watch(place, as_json)
    except KeyboardInterrupt:
        click.echo()
    return 0


def _watch(place: Place, as_json: bool) -> None:
    """Ends with KeyboardInterrupt. A service that goes away is shown as that, and may come back."""
    drawn = sys.stdout.isatty() and not as_json
    click.echo(_CLEAR if drawn else "", nl=False, color=True)
    while True:
        text = _seen(place, as_json)
        if drawn:
            text = _HOME + "".join(f"{line}{_REST}\n" for line in text.split("\n")) + _END
        click.echo(text, nl=not drawn, color=drawn or None)
        sys.stdout.flush()
        time.sleep(_AGAIN)


def _seen(place: Place, as_json: bool) -> str:
    try:
        found = ask(place, "/api/status")
    except StartError as error:
        return json.dumps({"error": str(error)}) if as_json else f"{error}\n"
    return json.dumps(found) if as_json else _fitted(found) + ("" if sys.stdout.isatty() else "\n")


def _fitted(found: Any) -> str:
    """As large as the terminal is."""
    if not sys.stdout.isatty():
        return screen(found, _HEIGHT)
    size = shutil.get_terminal_size()
    lines = (line[: size.columns] for line in screen(found, max(size.lines - 1, 12)).split("\n"))
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return "\n".join(line if plain else _coloured(line) for line in lines)


def _coloured(line: str) -> str:
    for words, colour in (("   ok   ", "green"), ("degraded: ", "red"), ("DOWN", "red"), ("PROBLEMS", "yellow")):
        line = line.replace(words, click.style(words, fg=colour, bold=True))
    return line


def screen(found: Any, height: int = _HEIGHT) -> str:
    """The status on one screen of so many lines: what there is no room for is counted."""
    top = [*_head(found), *_first([_upstream(each) for each in found["upstreams"]], _FEW, "upstreams")]
    top += _first([_fill(fill) for fill in found["fills"]], _FEW, "downloads")
    totals = [_TOTALS, _totals("today", found["today"]), _totals("since start", found["since_start"])]
    days = [_totals(day["date"], day) for day in found["days"][1:]]
    problems = [_problem(each) for each in found["problems"]]
    room = max(height - len(top) - len(totals), 0)
    shown = min(len(problems), max(room - min(len(days), 7) - 1, 2))
    lines = [*top, *totals, *days[: max(0, room - shown - bool(shown))]]
    if shown:
        lines += [f"PROBLEMS, the last {shown} of {len(problems)}", *problems[:shown]]
    return "\n".join("".join(each if each.isprintable() else "?" for each in line) for line in lines)


def _head(found: Any) -> Iterator[str]:
    size, disk = config.format_size, found["disk"]
    up = _ago(found["uptime"])
    yield f"tidegate {found['version']}   {found['health']}   up {up}   workers {found['workers']}"
    if found["config"]["refused"]:
        yield f"reload    refused: {found['config']['refused']}"
    yield f"serving   {found['listen']}   data {found['data']}   instance {found['instance']}"
    cached = f"{size(disk['cache_bytes'])} of {size(disk['max_size'])} in {disk['cache_objects']} objects"
    idle = "" if disk["oldest_idle"] is None else f"   oldest unused for {_ago(disk['oldest_idle'])}"
    evicted = sum(disk["evicted_bytes"].values())
    gone = f"   {size(evicted)} evicted" if evicted else ""
    yield f"cache     {cached}   {size(disk['pinned_bytes'])} pinned{idle}{gone}"
    if (pushed := disk.get("pushed")) is not None:  # an earlier release elsewhere does not say
        limit = f" of {size(pushed['max_size'])}" if pushed["max_size"] else ""
        yield f"pushed    {size(pushed['bytes'])}{limit}"
    yield f"disk      {size(disk['free'])} free of {size(disk['total'])}"


def _first(lines: Sequence[str], most: int, what: str) -> Iterator[str]:
    yield from lines[:most]
    if len(lines) > most:
        yield f"          {len(lines) - most} more {what}"


def _upstream(upstream: Any) -> str:
    words = ["up" if upstream["up"] else "DOWN"]
    words += ["offline"] if upstream["offline"] else []
    words += [f"circuit {upstream['circuit']}"] if upstream["circuit"] != "closed" else []
    words += [f"throttled for {upstream['paused']} s"] if upstream["paused"] else []
    said = upstream["last_error"]
    last = f"   {said['error']}" if said and not upstream["up"] else ""
    return f"upstream  {upstream['name']}   {', '.join(words)}   {' '.join(upstream['urls'])}{last}"


def _fill(fill: Any) -> str:
    size = config.format_size
    total = "an unknown size" if fill["size"] is None else size(fill["size"])
    readers = f"{fill['readers']} reader{'' if fill['readers'] == 1 else 's'}"
    name = f"{fill['image']} {fill['digest'][:19]}".strip()
    return f"fill      {name}   {size(fill['bytes'])} of {total}   {size(fill['rate'])}/s   {readers}"


_TOTALS = f"{'':12}{'requests':>10}{'hits':>7}{'to clients':>13}{'from upstream':>15}{'saved':>12}{'of bytes':>10}"


def _totals(name: str, totals: Any) -> str:
    size = config.format_size
    requests = sum(totals["requests"].values())
    return (
        f"{name:12}{requests:>10}{_rate(totals['request_hit_rate']):>7}{size(totals['client_bytes']):>13}"
        f"{size(totals['upstream_bytes']):>15}{size(totals['saved_bytes']):>12}{_rate(totals['byte_hit_rate']):>10}"
    )


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0%}"


def _problem(problem: Any) -> str:
    at = time.strftime("%m-%d %H:%M", time.localtime(problem["last"]))
    times = f" {problem['count']} times" if problem["count"] > 1 else ""
    status = "cut" if problem["status"] < 400 else problem["status"]
    return f"{at} {problem['client']} {problem['image']}{times}: {status} {problem['sentence']}"


def _ago(seconds: float) -> str:
    whole = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if whole >= 2 * length:
            return f"{whole // length} {unit}"
    return f"{whole} s"
