"""Runs the benches by name, all short ones without one; prints figures, ratios and the table for README.

`replay` as the first word hands over to the replay of traces, which measures policies and no servers; `soak` to the
soak, which measures nothing and compares every byte.
"""

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from tests.bench import blobs, manifests, memory, push, scale
from tests.bench.replay.__main__ import main as replay
from tests.bench.report import Row, as_json, machine, markdown
from tests.bench.soak.run import main as soak
from tests.bench.world import World, world

BENCHES: dict[str, Callable[[World], list[Row]]] = {
    "hit": blobs.hit,
    "cold": blobs.cold,
    "gigabit": blobs.gigabit,
    "many": blobs.many,
    "first-byte": blobs.first_byte,
    "manifest": manifests.manifest,
    "cold-pages": manifests.beside_cold_pages,
    "memory": memory.memory,
}
LONG: dict[str, Callable[[World], list[Row]]] = {"push": push.push, "scale": scale.scale}
"""Only by name: minutes."""


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*BENCHES, *LONG]))
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="also everything as JSON")
def main(names: tuple[str, ...], path: Path | None) -> None:
    """Each bench has an origin of its own and leaves nothing behind.

    None takes a minute but `push` and `scale`, which take minutes and run only when they are named. `replay ...` has
    options of its own.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a stopped bench ends its servers too
    where = machine()
    click.echo(", ".join(f"{key} {value}" for key, value in where.items()))
    rows: list[Row] = []
    for name in names or BENCHES:
        began = time.monotonic()
        with world() as servers:
            found = (BENCHES | LONG)[name](servers)
        click.echo(f"\n{name} ({time.monotonic() - began:.0f} s)")
        click.echo("\n".join(line for row in found for line in row.lines()))
        rows += found
    click.echo("\n" + markdown(rows, where))
    if path is not None:
        path.write_text(json.dumps(as_json(rows, where), indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["replay"]:
        replay(sys.argv[2:], prog_name="python -m tests.bench replay")
    elif sys.argv[1:2] == ["soak"]:
        soak(sys.argv[2:], prog_name="python -m tests.bench soak")
    else:
        main()
