"""What the machine knows of each upstream's ways out, one a URL, and how fast those may be that have a limit."""

import os
from collections.abc import Iterable, Mapping

from yarl import URL

from proxy.config import Upstream
from proxy.http.state import Ways
from proxy.store.board import Board, Pace
from proxy.store.circuit import Circuit


def out(upstreams: Iterable[Upstream], board: Board, folder: str) -> tuple[Ways, Mapping[str, Pace]]:
    """Ways and paces by the upstream's name. `folder` of their locks. Raises OSError."""
    os.makedirs(folder, exist_ok=True)
    numbers = os.path.join(folder, "numbers")
    ways: dict[str, list[Circuit]] = {}
    paces: dict[str, Pace] = {}
    for upstream in upstreams:
        name = upstream.name
        numbered = [(board.number(f"{name} {url}", numbers), url) for url in upstream.urls]
        ways[name] = [Circuit(board, number, URL(url).raw_host or name, folder) for number, url in numbered]
        if upstream.max_bandwidth:
            first = numbered[0][0]
            paces[name] = Pace(board, first, os.path.join(folder, f"{first}.pace"), upstream.max_bandwidth)
    return ways, paces
