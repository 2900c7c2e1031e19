"""What `tidegate doctor` prints, and the walk made by the command itself where no service runs.

`render` is pure: a report in, text out. `alone` imports what only a service needs, so it does that when it is called.
"""

import os
import tempfile
from collections.abc import Mapping
from typing import Any

from proxy import config

_MARKS: Mapping[str, str] = {"ok": "ok", "fail": "FAIL", "skipped": "-"}
_INDENT = " " * 15


def alone(settings: config.Settings, image: str) -> Mapping[str, Any]:
    """The report from here, with this process's environment. Counts nothing: metrics go into a folder that is gone
    afterwards."""
    with tempfile.TemporaryDirectory(prefix="tidegate-doctor-") as scratch:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = scratch
        import asyncio  # slow

        from proxy import doctor  # slow: aiohttp

        return asyncio.run(doctor.examine(settings, image, inside=False))


def misconfigured(image: str, mistake: str) -> Mapping[str, Any]:
    """The report when the configuration cannot be read: nothing else is tried."""
    step = {"name": "config", "state": "fail", "text": mistake, "host": "", "nodes_see": "connection refused"}
    rest = {
        "name": "everything else",
        "state": "skipped",
        "text": "not reached",
        "host": "",
        "nodes_see": "",
        "fix": "",
    }
    steps = [{**step, "fix": "correct it; tidegate config checks it"}, rest]
    return {"image": image, "inside": False, "problems": 1, "steps": steps}


def render(report: Mapping[str, Any]) -> str:
    """The report line by line, what nodes see and what to do under each problem, the sum at the end."""
    steps = report["steps"]
    named = max((len(step["name"]) for step in steps if step["state"] != "skipped"), default=0)
    widths = max(named, 8), min(max((len(step["host"]) for step in steps), default=0), 60)
    lines = [line for step in steps for line in _lines(step, *widths)]
    count = report["problems"]
    end = "All well." if not count else "1 problem." if count == 1 else f"{count} problems."
    return "\n".join([*lines, end])


def _lines(step: Mapping[str, Any], named: int, widest: int) -> list[str]:
    mark = _MARKS[step["state"]]
    if step["state"] == "skipped":
        return [f"{mark:<5} {step['name']} {step['text']}"]
    host = f"{step['host']:<{widest}}  " if step["host"] else ""
    lines = [f"{mark:<5} {step['name']:<{named}} {host}{step['text']}"]
    lines += [f"{_INDENT}Nodes see: {step['nodes_see']}"] if step["nodes_see"] else []
    return lines + ([f"{_INDENT}Fix: {step['fix']}"] if step["fix"] else [])
