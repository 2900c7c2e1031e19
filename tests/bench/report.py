"""What a bench found, as text, JSON and the Markdown table of README. No measuring here."""

import datetime
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("tidegate", "docker-registry", "nginx", "yardstick")
_DIGITS = {"s": 2, "ms": 1, "MiB": 0, "req/s": 0, "clients": 0, "open": 0}


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio or a figure and the bound it should keep: at least when `least`, else at most."""

    text: str
    value: float
    bound: float
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.least else self.value <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.least else "<="
        return f"{self.text} {self.value:.2f} (to reach {sign} {self.bound:g}){'' if self.met else ' MISSED'}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: `figures` by column in `unit`; `yardstick` says what that column means here."""

    situation: str
    unit: str
    figures: Mapping[str, float]
    targets: tuple[Target, ...] = ()
    yardstick: str = ""

    def lines(self) -> list[str]:
        """For the terminal."""
        shown = "  ".join(f"{name} {self.shown(name)}" for name in COLUMNS if name in self.figures)
        note = f"  (yardstick: {self.yardstick})" if self.yardstick else ""
        return [f"{self.situation}: {shown}{note}", *(f"    {target}" for target in self.targets)]

    def shown(self, name: str) -> str:
        """The figure of a column with its unit, empty when there is none."""
        value = self.figures.get(name)
        return "" if value is None else f"{value:,.{_DIGITS[self.unit]}f} {self.unit}"

    def cells(self) -> list[str]:
        """For the table."""
        yardstick = f"{self.yardstick}: {self.shown('yardstick')}" if self.yardstick else ""
        figures = [self.shown(name) for name in COLUMNS[:-1]]
        return [self.situation, *figures, yardstick, "; ".join(map(str, self.targets))]


def machine() -> dict[str, Any]:
    """What the figures depend on, the load by others included."""
    names = (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name"))  # fmt: skip
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": next(names, platform.machine()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def markdown(rows: Iterable[Row], where: Mapping[str, Any]) -> str:
    """The table for README, with its date and machine."""
    head = ["situation", "tidegate", "docker-registry 2.8", "nginx", "yardstick of the same run", "ratio"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    lines += ["", f"{where['date']}, {where['cores']} cores of {where['cpu']}, Python {where['python']}."]
    return "\n".join(lines) + "\n"


def as_json(rows: Iterable[Row], where: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for comparing two runs."""
    return {"machine": dict(where), "rows": [asdict(row) for row in rows]}
