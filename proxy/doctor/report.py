"""What the checks found, in order. Words for people stand where they are found; how they are printed, in cli/."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

State = Literal["ok", "fail", "skipped"]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the report. `nodes_see` is the error a node would show for it, `fix` what to change."""

    name: str
    state: State
    text: str
    host: str = ""
    nodes_see: str = ""
    fix: str = ""


class Problem(Exception):
    """Something on the way is wrong. `step` names the check that found it, `host` where, for a hop."""

    def __init__(self, step: str, text: str, *, nodes_see: str = "", fix: str = "") -> None:
        super().__init__(text)
        self.step = step
        self.host = ""
        self.text = text
        self.nodes_see = nodes_see
        self.fix = fix


@dataclass(slots=True)
class Report:
    """All steps so far. `inside`: found out in the running service, with its environment."""

    image: str
    inside: bool
    steps: list[Step] = field(default_factory=list)

    def ok(self, name: str, text: str, host: str = "") -> None:
        self.steps.append(Step(name, "ok", text, host))

    def fail(self, problem: Problem) -> None:
        self.steps.append(Step(problem.step, "fail", problem.text, problem.host, problem.nodes_see, problem.fix))

    def skip(self, names: Iterable[str], why: str = "not reached") -> None:
        """Checks that were not made, in one line; nothing when there are none."""
        if joined := ", ".join(names):
            self.steps.append(Step(joined, "skipped", why))

    @property
    def problems(self) -> int:
        return sum(step.state == "fail" for step in self.steps)

    def document(self) -> dict[str, Any]:
        """The report as JSON holds it."""
        steps = [asdict(step) for step in self.steps]
        return {"image": self.image, "inside": self.inside, "problems": self.problems, "steps": steps}


def plain(text: str, limit: int = 80) -> str:
    """Text that somebody outside wrote, fit for a terminal: one line, printable, short."""
    return "".join(c if c.isprintable() else "?" for c in text)[:limit]
