"""Clients that take the time: curl for one download, curl times N for a crowd, wrk for small answers; and rounds.

Clients are programs, not coroutines of the bench, so that what they cost is the same whoever serves.
"""

import re
import statistics
import subprocess
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.real.images import ACCEPT
from tests.real.tools import curl

ROUNDS = 3
SECONDS = 2  # one run of wrk


@dataclass(frozen=True, slots=True)
class Download:
    """One body: seconds to its first byte and to its last one, connecting not counted."""

    first: float
    total: float


def download(url: str, size: int, timeout: float = 120) -> Download:
    """GET without keeping the body. Raises AssertionError when it is not 200 with `size` bytes."""
    said = curl("-o", "/dev/null", "-w", "%{http_code} %{size_download} %{time_connect} %{time_starttransfer} "
                "%{time_total}", "-H", f"Accept: {ACCEPT['Accept']}", url, timeout=timeout)  # fmt: skip
    status, got, connected, first, total = said.stdout.decode().split()
    assert (status, got) == ("200", str(size)), f"{url}: {status}, {got} of {size} bytes {said.stderr.decode()}"
    return Download(float(first) - float(connected), float(total) - float(connected))


def crowd(url: str, size: int, clients: int) -> tuple[float, int]:
    """Seconds until the last of so many clients, all started at once, has ended; and how many got no whole body."""

    def failed(_: int) -> bool:
        try:
            download(url, size)
        except AssertionError:
            return True
        return False

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        failures = sum(pool.map(failed, range(clients)))
    return time.perf_counter() - began, failures


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: requests per second, and the 99th percentile in ms."""

    rate: float
    p99: float


_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def wrk(url: str, connections: int = 32, seconds: int = SECONDS, script: Path | None = None) -> Load:
    """One thread of wrk: with two cores a second one would only take time from the server. `script` is Lua.

    Raises AssertionError when an answer was not 2xx.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-H", f"Accept: {ACCEPT['Accept']}", url]
    command[1:1] = ["-s", str(script)] if script else []
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30).stdout
    assert "Non-2xx" not in text and "Socket errors" not in text, text
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)\b", text)
    assert rate and p99, text
    return Load(float(rate[1]), float(p99[1]) * _UNITS[p99[2]])


Key = TypeVar("Key", bound=Hashable)


def interleaved(runs: Mapping[Key, Callable[[], float]], rounds: int = ROUNDS) -> dict[Key, float]:
    """The median of each run; a, b, c, a, b, c ... so that what the machine does meanwhile meets them all."""
    found: dict[Key, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(run())
    return {name: statistics.median(values) for name, values in found.items()}


def peak_memory(pid: int) -> float:
    """The most memory a process ever had resident, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kib) / 1024
