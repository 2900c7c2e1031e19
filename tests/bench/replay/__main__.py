"""`python -m tests.bench.replay [TRACE]`: replays a trace under policies and sizes, prints the table."""

import json
import re
import sys
from pathlib import Path

import click

from tests.bench.replay import synthetic
from tests.bench.replay.bounds import belady, infinite, most
from tests.bench.replay.log import convert
from tests.bench.replay.policies import POLICIES
from tests.bench.replay.report import Result, table
from tests.bench.replay.simulate import replay
from tests.bench.replay.trace import Trace

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(%|B|KiB|MiB|GiB|TiB)\Z")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


class Size(click.ParamType[str]):
    """50GiB, or 10%: of the bytes of all objects of the trace."""

    name = "size"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if _SIZE.match(value) is None:
            self.fail(f"{value!r} is not a size such as 50GiB or 10%", param, ctx)
        return value


def capacity(text: str, distinct: int) -> int:
    """Bytes of a size as it is given on the command line."""
    found = _SIZE.match(text)
    assert found is not None
    number, unit = float(found[1]), found[2]
    return int(number * (distinct / 100 if unit == "%" else _UNITS[unit]))


def results(trace: Trace, capacities: list[int], policies: list[str]) -> list[Result]:
    """All of them: for each size the policies, LRU without a low mark, and the bounds; at last the infinite cache."""
    found = []
    for size in capacities:
        found += [Result(size, name, replay(trace, size, POLICIES[name])) for name in policies]
        if "lru" in policies:
            found.append(Result(size, "lru to the byte", replay(trace, size, POLICIES["lru"], marks=False)))
        found.append(Result(size, "Belady", belady(trace, size)))
        found.append(Result(size, "no policy passes", most(trace, size)))
    return [*found, Result(None, "infinite", infinite(trace))]


@click.command()
@click.argument("log", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--policy", "policies", multiple=True, type=click.Choice(list(POLICIES)), help="[default: all]")
@click.option("--cache", "sizes", multiple=True, type=Size(), default=("5%", "10%", "25%", "50%"), show_default=True,
              help="50GiB, or a share of the bytes of all objects")  # fmt: skip
@click.option("--load", "loads", multiple=True, type=click.Choice(list(synthetic.LOADS)), help="[default: all]")
@click.option("--seed", default=1, show_default=True, help="of the synthetic trace")
@click.option("--days", default=synthetic.DAYS, show_default=True, type=click.IntRange(1, 365))
@click.option("--pulls", default=synthetic.PULLS_A_DAY, show_default=True, type=click.IntRange(1), help="a day")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="also everything as JSON")
def main(
    log: Path | None, policies: tuple[str, ...], sizes: tuple[str, ...], loads: tuple[str, ...], seed: int, days: int,
    pulls: int, path: Path | None,
) -> None:  # fmt: skip
    """What a policy of eviction is worth on LOG, an access log of tidegate's, or on a synthetic trace.

    "lru" is the product's; all but the last rows of a block evict by the product's marks. "Belady" knows the future
    and, sizes being unequal, is a very good policy and no bound; "no policy passes" is one (PFOO-U), for objects and
    for bytes each by itself.
    """
    trace = _trace(log, seed, days, pulls, loads or tuple(synthetic.LOADS))
    if not trace.requests:
        sys.exit(f"{log}: no line of an access log with content in it")
    click.echo(f"{trace}\n")
    found = results(trace, [capacity(size, trace.distinct) for size in sizes], list(policies or POLICIES))
    click.echo("\n".join(table(found, trace.distinct)))
    if path is not None:
        path.write_text(json.dumps({"trace": str(trace), "results": [each.row() for each in found]}, indent=1) + "\n")


def _trace(log: Path | None, seed: int, days: int, pulls: int, loads: tuple[str, ...]) -> Trace:
    if log is None:
        return synthetic.generate(seed, days, pulls, loads)
    with log.open(encoding="utf-8", errors="replace") as lines:
        return convert(str(log), lines)


if __name__ == "__main__":
    main()
