"""What is left when it is over and the upstream behaves again: content, files, rows, descriptors, the log.

By design a part without a leader stays for a day, since whoever asks next goes on from it; so everything is asked for
once more, and then no part has a reason to be there.
"""

import asyncio
import hashlib
import json
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import aiohttp

from proxy.store.parts import BLOCK
from tests.bench.soak.churn import Service
from tests.bench.soak.pulls import PREFIX, Ask, Puller
from tests.bench.soak.world import Report, Truth

Open = dict[str, int]
"""How many descriptors of each kind a process has: sockets, pipes, files by their names in the data folder."""

_LONG = 60.0
_EXPECTED = "the cache is full of what may not be evicted"
"""The store is small and what is younger than a minute stays, so that happens, and clients are served all the same."""
_NOISE = re.compile(r"Traceback|Unclosed|never retrieved|never awaited|\b(ERROR|CRITICAL)\b|Error:")


async def all_right(truth: Truth, puller: Puller, report: Report, seconds: float = _LONG) -> None:
    """Every image there is, whole, until it was right once; circuits and stale marks get their time."""
    async with aiohttp.ClientSession() as session:
        for ask in _everything(truth, puller):
            deadline = time.monotonic() + seconds
            while (result := await puller.pull(session, ask)) != "200" and time.monotonic() < deadline:
                await asyncio.sleep(0.2)
            if result != "200":
                report.problem(f"{ask.name} {ask.path} is {result} although all faults are over")


def _everything(truth: Truth, puller: Puller) -> list[Ask]:
    asks = []
    for name, repo in truth.repos.items():
        asks += [puller.tagged(name, tag) for tag in repo.tags]
        asks += [Ask("manifest", name, digest, [content]) for digest, (content, _) in repo.manifests.items()]
        asks += [Ask("blob", name, digest, [content]) for digest, content in repo.blobs.items()]
    return asks


async def tags_follow(truth: Truth, url: str, report: Report, seconds: float = _LONG) -> None:
    """Every tag becomes what it is now."""
    async with aiohttp.ClientSession() as session:
        for name, repo in truth.repos.items():
            for tag, digest in repo.tags.items():
                deadline, told = time.monotonic() + seconds, None
                while told != digest and time.monotonic() < deadline:
                    async with session.head(f"{url}/v2/{name}/manifests/{tag}") as response:
                        told = response.headers.get("Docker-Content-Digest")
                    await asyncio.sleep(0.0 if told == digest else 0.2)
                if told != digest:
                    report.problem(f"{name}:{tag} is still {told}, not {digest}")


def descriptors(service: Service) -> list[Open]:
    """What each worker holds open now."""
    assert service.server is not None
    return [_open(pid, str(service.data)) for pid in service.server.worker_pids()]


def _open(pid: int, data: str) -> Open:
    found: Counter[str] = Counter()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{number}")
        except OSError:
            continue
        found[re.sub(r":\[\d+\]|.*/start\d+", "", target.removeprefix(data))] += 1
    return found


def leaks(before: list[Open], now: list[Open]) -> list[str]:
    """What a worker has more of than any worker had after the warm-up. Each thread that read a database has a
    connection of its own to it, and keeps it: those may be as many as there are threads."""
    most: Counter[str] = Counter()
    for each in before:
        most |= Counter(each)
    found = []
    for number, each in enumerate(now):
        more = {kind: count - most[kind] for kind, count in each.items() if count > most[kind]}
        found += [f"worker {number}: {count} more {kind}" for kind, count in more.items() if "index/" not in kind]
    return found


async def settled(look: Callable[[], list[str]], seconds: float) -> list[str]:
    """What `look` still finds after that time, or nothing as soon as it finds nothing."""
    deadline = time.monotonic() + seconds
    while (found := await asyncio.to_thread(look)) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    return found


def parts(service: Service) -> list[str]:
    """Files in ingest/, whatever they are."""
    return sorted(os.listdir(service.data / "ingest"))


def files(service: Service) -> dict[str, int]:
    """Digest and bytes on disk of every finished file."""
    found = {}
    for folder, _, names in os.walk(service.data / "blobs/sha256"):
        found.update({f"sha256:{name}": os.stat(os.path.join(folder, name)).st_blocks * BLOCK for name in names})
    return found


def unpinned(service: Service, truth: Truth, pinned: set[str]) -> list[str]:
    """Blobs of pinned images that are not here."""
    here, missing = files(service), []
    for name in pinned:
        repo, _, tag = name.removeprefix(PREFIX).rpartition(":")
        digest = truth.repos[repo].tags[tag]
        document = json.loads(truth.repos[repo].manifests[digest][0])
        wanted = [digest, document["config"]["digest"], *(layer["digest"] for layer in document["layers"])]
        missing += [f"{name} is pinned, and {each} is not here" for each in wanted if each not in here]
    return missing


def counted(service: Service, seen: int, sent: int) -> list[str]:
    """What the service counted of the upstream since it was started, where the upstream knows better: `seen` requests
    and `sent` bytes of bodies."""
    assert service.server is not None
    metrics = service.server.metrics()
    requests = metrics.total("tidegate_upstream_requests_total")
    received = metrics.total("tidegate_upstream_bytes_total")
    if 0.5 * seen <= requests <= seen + 1 and received <= sent:
        return []
    return [f"the service counted {requests:.0f} requests and {received:.0f} bytes, the upstream {seen} and {sent}"]


def unsound(service: Service) -> list[str]:
    """Finished files, cached or pushed, that are not what their names say."""
    found = []
    for place in ("blobs", "local/blobs"):
        for folder, _, names in os.walk(service.data / place / "sha256"):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != name:
                        found.append(f"{folder}/{name} is not what its name says")
    return found


def disagreements(service: Service) -> list[str]:
    """Files without a row, rows without a file, and sums that are not the sum of the rows."""
    with closing(sqlite3.connect(service.data / "catalogue/catalogue.db", timeout=10)) as books:
        rows = dict(books.execute("SELECT digest, size FROM objects"))
        (summed,) = books.execute("SELECT bytes FROM sums").fetchone()
        checks = [books.execute("PRAGMA quick_check").fetchone()[0]]
    with closing(sqlite3.connect(service.data / "index/cache.db", timeout=10)) as index:
        checks.append(index.execute("PRAGMA quick_check").fetchone()[0])
    here = files(service)
    found = [f"{digest} has no row" for digest in here.keys() - rows.keys()]
    found += [f"{digest} has a row and no file" for digest in rows.keys() - here.keys()]
    found += [f"{digest} has {here[digest]} bytes, not {rows[digest]}" for digest in here.keys() & rows.keys()
              if here[digest] != rows[digest]]  # fmt: skip
    found += [f"the sum is {summed}"] if summed != sum(rows.values()) else []
    return found + [f"database: {check}" for check in checks if check != "ok"]


def noise(service: Service) -> list[str]:
    """Lines of the log that no fault of an upstream explains."""
    lines = (line for line in service.output() if _EXPECTED not in line)
    return [f"log: {line}" for line in lines if _NOISE.search(line)]
