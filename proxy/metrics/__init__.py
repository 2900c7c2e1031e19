"""Every metric, declared once, and the ways of counting. PROMETHEUS_MULTIPROC_DIR must be set before this is imported.

Always the multiprocess mode of prometheus-client, with one worker too: files in a folder, one set per worker slot, so
that a restarted worker goes on where its predecessor's counters stood and any worker answers for the machine. The
slot stands in for the process id for that reason; gauges say how they add up over slots, and are `live` where they
speak of a process. Labels are bounded: never a repository, tag, digest or client address. Series exist at zero from
the start. Reading it all back is exposed.py's.
"""

import os
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, values

from proxy.metrics.exposed import exposition as exposition
from proxy.metrics.exposed import totals as totals

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
    for kind in ("counter", "histogram", "gauge_livesum", "gauge_livemax", "gauge_mostrecent", "gauge_max"):
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
STATUSES = ("200", "206", "301", "302", "307", "308", "401", "403", "404", "416", "429", "500", "502", "503", "504")
"""Answers of upstreams that are to be expected: their series stand at zero."""
_STATUSES = frozenset(int(status) for status in HTTPStatus)
_SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30)
_LONG = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
_IDLE = (60, 600, 3600, 6 * 3600, 86400, 3 * 86400, 7 * 86400, 30 * 86400, 90 * 86400)
_DELAY = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

REQUESTS = Counter("tidegate_requests", "Requests answered.", ("upstream", "kind", "method", "result"))
CLIENT_BYTES = Counter(
    "tidegate_client_bytes", "Bytes of content really written to clients.", ("upstream", "kind", "result")
)
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
UPSTREAM_PAUSED = Gauge(
    "tidegate_upstream_paused_seconds",
    "Seconds it still wants to be left alone: it has answered 429.",
    ("upstream",),
    multiprocess_mode="mostrecent",
)
FILLS = Gauge("tidegate_fills_in_flight", "Downloads under way.", multiprocess_mode="livesum")
FILL_READERS = Gauge(
    "tidegate_fill_readers", "Clients waiting for a download or reading one that is under way.",
    multiprocess_mode="livesum",
)  # fmt: skip
DOWNLOADS = Gauge(
    "tidegate_downloads", "Blobs arriving now, each once on this machine.", multiprocess_mode="mostrecent"
)
DOWNLOADED = Gauge("tidegate_downloads_bytes", "Bytes of them that are here.", multiprocess_mode="mostrecent")
DOWNLOADS_MISSING = Gauge(
    "tidegate_downloads_missing_bytes", "Bytes of them still to come, where the size is known.",
    multiprocess_mode="mostrecent",
)  # fmt: skip
FILL_SECONDS = Histogram("tidegate_fill_duration_seconds", "Time from claim to verified.", buckets=_LONG)
FIRST_BYTE = Histogram(
    "tidegate_first_byte_seconds", "Time to the first byte of an answer.", ("result",), buckets=_SECONDS
)
CACHE_SIZE = Gauge("tidegate_cache_size_bytes", "Bytes of finished blobs.", multiprocess_mode="mostrecent")
CACHE_LIMIT = Gauge("tidegate_cache_limit_bytes", "Size limit; 0: none.", multiprocess_mode="mostrecent")
CACHE_OBJECTS = Gauge("tidegate_cache_objects", "Finished blobs.", multiprocess_mode="mostrecent")
CACHE_EVICTED = Counter("tidegate_cache_evicted_bytes", "Bytes evicted.", ("reason",))
CACHE_IDLE = Gauge("tidegate_cache_oldest_idle_seconds", "Idle time of the least used.", multiprocess_mode="mostrecent")
EVICTED_IDLE = Histogram(
    "tidegate_evicted_idle_seconds", "How long each evicted blob had not been used.", buckets=_IDLE
)
UNKEPT = Counter("tidegate_unkept", "Answers passed through because the disk could not keep them.")
DISK_FREE = Gauge("tidegate_disk_free_bytes", "Free bytes where the data lies.", multiprocess_mode="mostrecent")
PINNED = Gauge("tidegate_pinned_bytes", "Bytes pinned.", multiprocess_mode="mostrecent")
SCRUBBED = Counter("tidegate_scrub_blobs", "Blobs read again and hashed.", ("result",))
SCRUBBED_BYTES = Counter("tidegate_scrub_bytes", "Bytes read again and hashed.")
CORRUPT = Counter("tidegate_corrupt_blobs", "Blobs found bad and taken out of the store.")
PUSHED = Counter("tidegate_pushed_bytes", "Bytes pushed here.")
LOCAL_SIZE = Gauge("tidegate_local_bytes", "Bytes of pushed content.", multiprocess_mode="mostrecent")
LOCAL_LIMIT = Gauge("tidegate_local_limit_bytes", "local.max_size; 0: none.", multiprocess_mode="mostrecent")
GC_REMOVED = Counter("tidegate_gc_removed_bytes", "Bytes of pushed content removed by gc.")
LEGACY = Counter("tidegate_legacy_requests", "Requests by an old name.", ("alias",))
TAGS_MOVED = Counter("tidegate_tags_moved", "Tags that read as a version and moved upstream.", ("upstream",))
ENDED = Counter("tidegate_connections_ended", "Connections ended before their client did, by why.", ("reason",))
BUILD_INFO = Gauge("tidegate_build_info", "1, with the version.", ("version",), multiprocess_mode="max")
CERTIFICATE = Gauge(
    "tidegate_certificate_not_after_seconds",
    "When our own certificate ends, seconds since 1970; 0 without TLS.",
    multiprocess_mode="mostrecent",
)
CONFIG_RELOADED = Gauge("tidegate_config_last_reload_successful", "1 when it was.", multiprocess_mode="mostrecent")
WORKERS = Gauge("tidegate_workers", "Workers that serve.", multiprocess_mode="livesum")
RESTARTS = Counter("tidegate_worker_restarts", "Workers started because one had died.")
CONNECTIONS = Gauge("tidegate_connections", "Clients' connections open now.", multiprocess_mode="livesum")
DESCRIPTORS = Gauge(
    "tidegate_open_descriptors", "Descriptors open in the worker that has most.", multiprocess_mode="livemax"
)
DESCRIPTORS_LIMIT = Gauge("tidegate_descriptors_limit", "Descriptors a worker may have.", multiprocess_mode="livemax")
LOOP_DELAY = Histogram(
    "tidegate_event_loop_delay_seconds", "How much later than due a worker's event loop ran a timer.", buckets=_DELAY
)
_hosts: set[str] = set()


def prepare(upstreams: Iterable[str], aliases: Iterable[str], version: str) -> None:
    """Create every bounded series at zero, once for each worker.

    Hosts that a predecessor has counted bytes of are still in its files, and count towards the limit.
    """
    _hosts.update(totals("tidegate_upstream_bytes_total", "host"))
    BUILD_INFO.labels(version).set(1)
    CONFIG_RELOADED.set(1)
    for result in RESULTS:
        FIRST_BYTE.labels(result)
    for reason in ("max_size", "min_free"):
        CACHE_EVICTED.labels(reason)
    for result in ("ok", "bad"):
        SCRUBBED.labels(result)
    for reason in ("idle", "full", "header", "body", "write", "size"):
        ENDED.labels(reason)
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
    for reason in REASONS:
        UPSTREAM_ERRORS.labels(upstream, reason)
    for status in STATUSES:
        UPSTREAM_REQUESTS.labels(upstream, status)
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
    """Count one answer and the bytes of content really written; an error's body is none."""
    _requests[upstream, kind, method, result].inc()
    if sent:
        _client_bytes[upstream, kind, result].inc(sent)


def first_byte(result: str, seconds: float) -> None:
    _first_byte[(result,)].observe(seconds)


def asked(upstream: str, status: int) -> None:
    """Count one request that got an answer; a status nobody has defined counts as `other`."""
    UPSTREAM_REQUESTS.labels(upstream, str(status) if status in _STATUSES else "other").inc()


def received(upstream: str, kind: str, host: str, size: int) -> None:
    """Count body bytes that came from `host`; the hundred and first host is `other`."""
    if host not in _hosts:
        host = host if len(_hosts) < HOST_LIMIT else "other"
        _hosts.add(host)
    _upstream_bytes[upstream, host].inc(size)
    _received[upstream, kind].inc(size)
