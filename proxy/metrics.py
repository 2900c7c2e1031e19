"""Every metric, declared once. PROMETHEUS_MULTIPROC_DIR must be set before this is imported.

Always the multiprocess mode of prometheus-client, with one worker too: files in a folder, one set per worker slot, so
that a restarted worker goes on where its predecessor's counters stood and any worker answers for the machine. The
slot stands in for the process id for that reason; gauges say how they add up over slots. Labels are bounded: never a
repository, tag, digest or client address. Series exist at zero from the start.
"""

import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics import exposition as openmetrics

T = TypeVar("T")
_ATTEMPTS = 10
_FILE = 1 << 20
"""Bytes prometheus-client gives a file at first: 8,000 series."""
_slot = "supervisor"
values.ValueClass = values.MultiProcessValue(lambda: _slot)  # type: ignore[no-untyped-call]


def use_slot(slot: int) -> None:
    """Write to the files of this worker slot from now on; to be called right after the fork.

    The files are mapped, and a write to a page that a full disk has no block for is the end of the process: so they
    get their blocks now. Raises OSError.
    """
    global _slot
    _slot = str(slot)
    for kind in ("counter", "histogram", "gauge_livesum", "gauge_mostrecent", "gauge_max"):
        path = os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], f"{kind}_{_slot}.db")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _FILE)
        finally:
            os.close(fd)


RESULTS = ("hit", "miss", "coalesced", "revalidated", "stale", "not_found", "denied", "bypass", "error")
KINDS = ("blob", "manifest", "tag", "tags", "referrers")
METHODS = ("GET", "HEAD")
REASONS = (
    "timeout", "connect", "tls", "dns", "status", "answer", "body", "throttled", "circuit", "refused", "other",
)  # fmt: skip
"""Labels of errors.Unavailable."""
HOST_LIMIT = 100
_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30)
_LONG = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)

REQUESTS = Counter("tidegate_requests", "Requests answered.", ("upstream", "kind", "method", "result"))
CLIENT_BYTES = Counter("tidegate_client_bytes", "Body bytes really written to clients.", ("upstream", "kind", "result"))
UPSTREAM_BYTES = Counter(
    "tidegate_upstream_bytes", "Body bytes received, by the host they came from.", ("upstream", "host")
)
RECEIVED = Counter("tidegate_upstream_kind_bytes", "Body bytes received, by what they were.", ("upstream", "kind"))
UPSTREAM_REQUESTS = Counter("tidegate_upstream_requests", "Requests sent, every hop counted.", ("upstream", "status"))
UPSTREAM_ERRORS = Counter("tidegate_upstream_errors", "Requests that failed, by reason.", ("upstream", "reason"))
UPSTREAM_UP = Gauge(
    "tidegate_upstream_up", "1 when the last request got an answer.", ("upstream",), multiprocess_mode="mostrecent"
)
UPSTREAM_CIRCUIT = Gauge(
    "tidegate_upstream_circuit",
    "0 closed, 1 half-open, 2 open: left alone after failures.",
    ("upstream",),
    multiprocess_mode="mostrecent",
)
FILLS = Gauge("tidegate_fills_in_flight", "Downloads under way.", multiprocess_mode="livesum")
FILL_SECONDS = Histogram("tidegate_fill_duration_seconds", "Time from claim to verified.", buckets=_LONG)
FIRST_BYTE = Histogram(
    "tidegate_first_byte_seconds", "Time to the first byte of an answer.", ("result",), buckets=_SECONDS
)
CACHE_SIZE = Gauge("tidegate_cache_size_bytes", "Bytes of finished blobs.", multiprocess_mode="mostrecent")
CACHE_LIMIT = Gauge("tidegate_cache_limit_bytes", "Size limit; 0: none.", multiprocess_mode="mostrecent")
CACHE_OBJECTS = Gauge("tidegate_cache_objects", "Finished blobs.", multiprocess_mode="mostrecent")
CACHE_EVICTED = Counter("tidegate_cache_evicted_bytes", "Bytes evicted.", ("reason",))
CACHE_IDLE = Gauge("tidegate_cache_oldest_idle_seconds", "Idle time of the least used.", multiprocess_mode="mostrecent")
UNKEPT = Counter("tidegate_unkept", "Answers passed through because the disk could not keep them.")
DISK_FREE = Gauge("tidegate_disk_free_bytes", "Free bytes where the data lies.", multiprocess_mode="mostrecent")
PINNED = Gauge("tidegate_pinned_bytes", "Bytes pinned.", multiprocess_mode="mostrecent")
SCRUBBED = Counter("tidegate_scrub_blobs", "Blobs read again and hashed.", ("result",))
SCRUBBED_BYTES = Counter("tidegate_scrub_bytes", "Bytes read again and hashed.")
CORRUPT = Counter("tidegate_corrupt_blobs", "Blobs found bad and taken out of the store.")
PUSHED = Counter("tidegate_pushed_bytes", "Bytes pushed here.")
LEGACY = Counter("tidegate_legacy_requests", "Requests by an old name.", ("alias",))
TAGS_MOVED = Counter("tidegate_tags_moved", "Tags that read as a version and moved upstream.", ("upstream",))
BUILD_INFO = Gauge("tidegate_build_info", "1, with the version.", ("version",), multiprocess_mode="max")
CONFIG_RELOADED = Gauge("tidegate_config_last_reload_successful", "1 when it was.", multiprocess_mode="mostrecent")
_hosts: set[str] = set()


def prepare(upstreams: Iterable[str], aliases: Iterable[str], version: str) -> None:
    """Create every bounded series at zero."""
    BUILD_INFO.labels(version).set(1)
    CONFIG_RELOADED.set(1)
    for result in RESULTS:
        FIRST_BYTE.labels(result)
    for reason in ("max_size", "min_free"):
        CACHE_EVICTED.labels(reason)
    for result in ("ok", "bad"):
        SCRUBBED.labels(result)
    for alias in aliases:
        LEGACY.labels(alias)
    for upstream in upstreams:
        _prepare_upstream(upstream)


def _prepare_upstream(upstream: str) -> None:
    for kind in KINDS:
        for result in RESULTS:
            CLIENT_BYTES.labels(upstream, kind, result)
            for method in METHODS:
                REQUESTS.labels(upstream, kind, method, result)
    TAGS_MOVED.labels(upstream)
    for reason in (
        "timeout",
        "connect",
        "tls",
        "dns",
        "status",
        "answer",
        "body",
        "throttled",
        "circuit",
        "refused",
        "other",
    ):
        UPSTREAM_ERRORS.labels(upstream, reason)
    for kind in ("blob", "manifest"):
        RECEIVED.labels(upstream, kind)


class Cache(dict[tuple[str, ...], Any]):
    """Bound label sets: `labels()` costs 2.5 us a call, a dictionary 0.1. Bounded because labels are."""

    def __init__(self, make: Callable[..., Any]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: tuple[str, ...]) -> Any:
        child = self[key] = self._make(*key)
        return child


_requests = Cache(REQUESTS.labels)
_client_bytes = Cache(CLIENT_BYTES.labels)
_first_byte = Cache(FIRST_BYTE.labels)
_upstream_bytes = Cache(UPSTREAM_BYTES.labels)
_received = Cache(RECEIVED.labels)


def answered(upstream: str, kind: str, method: str, result: str, sent: int) -> None:
    """Count one answer and the body bytes really written."""
    _requests[upstream, kind, method, result].inc()
    if sent:
        _client_bytes[upstream, kind, result].inc(sent)


def first_byte(result: str, seconds: float) -> None:
    _first_byte[(result,)].observe(seconds)


def received(upstream: str, kind: str, host: str, size: int) -> None:
    """Count body bytes that came from `host`; the hundred and first host is `other`."""
    if host not in _hosts:
        host = host if len(_hosts) < HOST_LIMIT else "other"
        _hosts.add(host)
    _upstream_bytes[upstream, host].inc(size)
    _received[upstream, kind].inc(size)


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


def collect() -> CollectorRegistry:
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
            return read(collect())
        except (OSError, ValueError, struct.error):
            time.sleep(0.02)
    return read(collect())


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
