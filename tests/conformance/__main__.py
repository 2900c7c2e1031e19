"""`python -m tests.conformance`: every end-N, its tests, and how each target does, as a table.

Runs the suite in this process and reads the reports; the status is 1 when a test failed that no table expects to.
Arguments are passed on to pytest, `-k referrers` for one.
"""

import contextlib
import io
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conformance.listing import ENDPOINTS, endpoints, key
from tests.conformance.targets import TARGETS

WIDTH = 58


@dataclass
class Results:
    """What a run showed; pytest calls the methods by their names."""

    tests: dict[str, pytest.Item] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, set[str]] = field(default_factory=dict)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tests = {item.nodeid: item for item in session.items if key(item)[0]}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid not in self.tests or (report.when != "call" and report.passed):
            return
        outcome = {"passed": "ok", "skipped": "skipped"}.get(report.outcome, "FAILED")
        if report.outcome == "skipped" and (why := getattr(report, "wasxfail", "")):
            outcome = "differs"
            self.reasons.setdefault(why, set()).add(_function(self.tests[report.nodeid]))
        self.outcomes[report.nodeid] = outcome

    def of(self, endpoint: str) -> dict[str, dict[str, Counter[str]]]:
        """Test function -> target -> how many of its cases ended how."""
        table: dict[str, dict[str, Counter[str]]] = {}
        for nodeid, item in self.tests.items():
            if endpoint in endpoints(getattr(item, "function").__doc__):  # noqa: B009 - Item itself has none
                row = table.setdefault(_function(item), {target: Counter() for target in TARGETS})
                row[key(item)[0]][self.outcomes.get(nodeid, "not run")] += 1
        return table


def _function(item: pytest.Item) -> str:
    return key(item)[1].partition("[")[0]


def _cell(counted: Counter[str]) -> str:
    if not counted:
        return "-"
    if list(counted) == ["ok"]:
        return f"ok {counted.total()}"
    return ", ".join(f"{outcome} {count}" for outcome, count in sorted(counted.items()))


def lines(results: Results) -> Iterator[str]:
    """The table, then every difference with the tests that show it."""
    yield f"{'':{WIDTH}}  " + "  ".join(f"{target:20}" for target in TARGETS)
    for endpoint, path in ENDPOINTS.items():
        rows = results.of(endpoint)
        sums = {target: sum((row[target] for row in rows.values()), Counter()) for target in TARGETS}
        yield from ("", _row(f"{endpoint:8} {path}", sums))
        yield from (_row(f"  {name}", row) for name, row in rows.items())
    for why, tests in results.reasons.items():
        yield from ("", f"differs: {why}", *(f"  {name}" for name in sorted(tests)))


def _row(name: str, cells: dict[str, Counter[str]]) -> str:
    return f"{name:{WIDTH}}  " + "  ".join(f"{_cell(cells[target]):20}" for target in TARGETS).rstrip()


def main(arguments: list[str]) -> int:
    results, output = Results(), io.StringIO()
    with contextlib.redirect_stdout(output):
        status = pytest.main([str(Path(__file__).parent), "-q", *arguments], plugins=[results])
    sys.stdout.writelines(f"{line}\n" for line in lines(results))
    if status:
        sys.stdout.write(f"\n{output.getvalue()}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
