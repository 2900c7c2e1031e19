"""What `tidegate egress` says: the ledger as a table, as a list for the firewall team, as an `allow =` to paste.

Pure: rows in, text out. The expected hosts are what is known of registry.k8s.io from outside; the project promises
none of them, and says so.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from proxy.config import format_size
from proxy.upstream.ledger import OTHERS

EXPECTED: Sequence[tuple[str, str]] = (
    ("registry.k8s.io", "the redirector itself"),
    ("*-docker.pkg.dev", "manifests, and blobs where no bucket is nearer"),
    ("prod-registry-k8s-io-*.s3.dualstack.*.amazonaws.com", "blobs, one bucket a region"),
    ("cdn.registry.k8s.io", "blobs"),
)
"""Host patterns and what comes from them. Source: the redirector's code, github.com/kubernetes/registry.k8s.io, and
runs of it."""
EXPECTED_SEEN = "2026-11"
_NOT_PROMISED = f"known {EXPECTED_SEEN} from github.com/kubernetes/registry.k8s.io, not promised by the project"

Row = Mapping[str, Any]


def since(rows: Iterable[Row], seconds: float, now: float) -> list[Row]:
    """The rows of hosts seen in the last `seconds`."""
    return [row for row in rows if now - row["last"] <= seconds]


def expected(rows: Iterable[Row]) -> list[Row]:
    """A row for each expected pattern that is not among these; `note` says where it comes from."""
    seen = {row["host"] for row in rows}
    blank = {"upstream": "registry.k8s.io", "hop": "expected", "count": 0, "failed": 0, "bytes": 0, "status": 0}
    return [
        {**blank, "host": host, "error": "", "first": 0.0, "last": 0.0, "note": f"{what}; {_NOT_PROMISED}"}
        for host, what in EXPECTED
        if not any(fnmatch(name, host) for name in seen)
    ]


def notice(missing: Sequence[Row]) -> str:
    """What is to be known of expected hosts where only their names are printed."""
    return f"{', '.join(row['host'] for row in missing)}: not seen yet; {_NOT_PROMISED}"


def hosts(rows: Iterable[Row]) -> list[str]:
    """Every host once, those that were only ever refused left out: they are not needed, they are not allowed. So is
    the row of those the ledger had no room for, which is no host."""
    wanted = (row for row in rows if row["count"] or row["hop"] == "expected" or not _refused(row))
    return sorted({row["host"] for row in wanted if row["host"] != OTHERS})


def _refused(row: Row) -> bool:
    return str(row["error"]).startswith("not allowed by")


def table(rows: Sequence[Row]) -> str:
    """One line a host and kind of hop."""
    if not rows:
        return "no host has been asked yet; tidegate egress --expected lists what registry.k8s.io is known to need"
    head = ("HOST", "HOP", "UPSTREAM", "COUNT", "FAILED", "BYTES", "LAST SEEN", "LAST ANSWER")
    lines = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    seen = time.strftime("%Y-%m-%d %H:%M", time.gmtime(row["last"])) if row["last"] else "never"
    answer = row.get("note") or row["error"] or str(row["status"])
    count, failed = str(row["count"]), str(row["failed"])
    return row["host"], row["hop"], row["upstream"], count, failed, format_size(row["bytes"]), seen, answer


def toml(rows: Sequence[Row]) -> str:
    """An `allow =` for [egress], with what each host is for."""
    notes = {row["host"]: row.get("note") or f"{row['upstream']}, {row['hop']}" for row in rows}
    lines = [f"    {json.dumps(host)},  # {notes[host]}" for host in hosts(rows)]
    return "[egress]\nallow = [\n" + "\n".join(lines) + "\n]"
