"""What the workers of this machine have counted, added up and put into a scraper's words.

Only reading: the files are written through the package's own module, which nothing here imports. Derived names of
other programs stand here too, because they cost nothing until somebody looks.
"""

import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics

T = TypeVar("T")
_ATTEMPTS = 10


class _Distribution:
    """The names of CNCF Distribution's pull-through cache, for dashboards that come from there.

    Derived from ours when somebody looks: five more counters on the path of every hit would cost 12 us.
    """

    def __init__(self, ours: MultiProcessCollector) -> None:
        self._ours = ours

    def collect(self) -> Iterator[Metric]:
        sums: dict[str, dict[tuple[str, str], float]] = {name: {} for name in _ALIASES}
        for family in self._ours.collect():  # type: ignore[no-untyped-call]
            for sample in family.samples:
                for name in _aliases(sample.name, sample.labels):
                    kind = "manifest" if sample.labels["kind"] in ("manifest", "tag") else "blob"
                    key = (sample.labels["upstream"], kind)
                    sums[name][key] = sums[name].get(key, 0.0) + sample.value
        for name, rows in sums.items():
            text = f"As CNCF Distribution counts {name.replace('_', ' ')}."
            metric = CounterMetricFamily(f"registry_proxy_{name}", text, labels=("upstream", "type"))
            for (upstream, kind), value in rows.items():
                metric.add_metric([upstream, kind], value)
            yield metric


_ALIASES = ("requests", "hits", "misses", "pulled_bytes", "pushed_bytes")


def _aliases(name: str, labels: Mapping[str, str]) -> Iterator[str]:
    """Which of Distribution's counters one of our samples belongs to."""
    if labels.get("kind") not in ("blob", "manifest", "tag"):
        return
    if name == "tidegate_requests_total":
        yield "requests"
        if labels["result"] in ("hit", "coalesced", "revalidated", "stale"):
            yield "hits"
        elif labels["result"] in ("miss", "bypass"):
            yield "misses"
    elif name == "tidegate_client_bytes_total":
        yield "pushed_bytes"
    elif name == "tidegate_upstream_kind_bytes_total":
        yield "pulled_bytes"


def _collect() -> CollectorRegistry:
    """A registry that adds up what all workers of this machine wrote."""
    registry = CollectorRegistry()
    ours = MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_Distribution(ours))
    return registry


def exposition(accept: str) -> tuple[bytes, str]:
    """The text a scraper asked for, and its content type. Blocks for 10-80 ms: call it in a thread."""
    with _exposing:
        if "application/openmetrics-text" in accept:
            openmetrics_text: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest
            return _patiently(openmetrics_text), openmetrics.CONTENT_TYPE_LATEST
        return _patiently(generate_latest), "text/plain; version=0.0.4; charset=utf-8"


def _patiently(read: Callable[[CollectorRegistry], T]) -> T:
    """What `read` makes of the machine's files. A worker that starts or has just died changes them under us: a gauge's
    file goes between the listing and the reading, a new one is empty for a moment."""
    for _ in range(_ATTEMPTS):
        try:
            return read(_collect())
        except (OSError, ValueError, struct.error):
            time.sleep(0.02)
    return read(_collect())


_exposing = threading.Lock()


def totals(name: str, label: str) -> Mapping[str, float]:
    """A counter summed over the machine, by one label. Blocks like `exposition`."""
    sums: dict[str, float] = {}
    for family in _patiently(lambda registry: list(registry.collect())):
        for sample in family.samples:
            if sample.name == name:
                key = sample.labels.get(label, "")
                sums[key] = sums.get(key, 0.0) + sample.value
    return sums
