"""What `tidegate legacy` says: who still asks by an old name, and for what. Pure: rows in, text out."""

import time
from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a client and image, who asked last first."""
    if not rows:
        return "nobody has asked by an old name"
    lines = [("CLIENT", "IMAGE", "COUNT", "LAST SEEN"), *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    seen = time.strftime("%Y-%m-%d %H:%M", time.gmtime(row["last"]))
    return row["client"], row["image"], str(row["count"]), seen
