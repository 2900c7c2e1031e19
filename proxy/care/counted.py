"""What all workers have counted in one run, read from their metrics files: the numbers daily totals are made of.

The files outlive a worker that is killed, and a successor counts on in them, so nothing is lost between two looks. A
whole exposition takes ten times as long; here only four metrics are looked at, and a series' name is understood once.
"""

import glob
import json
import os
import struct
import time
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from prometheus_client.mmap_dict import MmapedDict

from proxy import metrics

_ATTEMPTS = 10
HIT, MISSED = frozenset({"hit", "revalidated", "stale", "coalesced"}), frozenset({"miss", "bypass"})
Counts = Mapping[str, int]
"""`requests.RESULT` (all nine), `hits` and `misses` (GET alone), `client_bytes`, `upstream_bytes`; read from files
also `evicted.REASON`."""
NAMES = (*(f"requests.{result}" for result in metrics.RESULTS), "hits", "misses", "client_bytes", "upstream_bytes")


def read(folder: str) -> Counts:
    """The counters of the run whose metrics lie in `folder`. Blocks for some ms."""
    for _ in range(_ATTEMPTS):
        try:
            return _read(folder)
        except (OSError, ValueError, RuntimeError, struct.error):
            time.sleep(0.02)  # a worker is just making its file
    return {}


def _read(folder: str) -> Counts:
    sums: Counter[str] = Counter()
    for path in glob.glob(os.path.join(glob.escape(folder), "counter_*.db")):
        for key, value, *_ in MmapedDict.read_all_values_from_file(path):  # type: ignore[no-untyped-call]
            for name in _names(key):
                sums[name] += int(value)
    return sums


@lru_cache(16384)
def _names(key: str) -> tuple[str, ...]:
    """Which of our sums a series belongs to."""
    _, sample, labels, *_ = json.loads(key)
    match sample:
        case "tidegate_requests_total":
            result = labels["result"]
            asked = "hits" if result in HIT else "misses" if result in MISSED else ""
            return (f"requests.{result}", asked) if asked and labels["method"] == "GET" else (f"requests.{result}",)
        case "tidegate_client_bytes_total":
            return ("client_bytes",)
        case "tidegate_upstream_bytes_total":
            return ("upstream_bytes",)
        case "tidegate_cache_evicted_bytes_total":
            return (f"evicted.{labels['reason']}",)
    return ()


def since(now: Counts, before: Counts) -> dict[str, int]:
    """What has been counted since; counters never go back, so what seems to was torn by a power cut."""
    found = {name: now.get(name, 0) - before.get(name, 0) for name in NAMES}
    return {name: count for name, count in found.items() if count > 0}


def told(counts: Counts) -> dict[str, object]:
    """As the status says it: with what follows from the counters. A rate is None where nothing was asked."""
    asked, to_clients, received = (
        counts.get("hits", 0) + counts.get("misses", 0),
        counts.get("client_bytes", 0),
        counts.get("upstream_bytes", 0),
    )
    return {
        "requests": {result: counts.get(f"requests.{result}", 0) for result in metrics.RESULTS},
        "client_bytes": to_clients,
        "upstream_bytes": received,
        "saved_bytes": to_clients - received,
        "request_hit_rate": counts.get("hits", 0) / asked if asked else None,
        "byte_hit_rate": 1 - received / to_clients if to_clients else None,
    }
