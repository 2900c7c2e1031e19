"""What `tidegate status` says: the service on one screen. Pure: the document in, text out."""

import time
from typing import Any

from proxy import config


def screen(found: Any) -> str:
    """The status on one screen."""
    size, disk = config.format_size, found["disk"]
    lines = [
        f"tidegate {found['version']}   {found['health']}   up {_since(found['started'])}   workers {found['workers']}",
        f"serving   {found['listen']}   data {found['data']}   instance {found['instance']}",
        f"cache     {size(disk['cache_bytes'])} of {size(disk['max_size'])} in {disk['cache_objects']} objects   "
        f"{size(disk['pinned_bytes'])} pinned   "
        f"disk {size(disk['free'])} free of {size(disk['total'])}",
        f"bytes     {size(found['client_bytes'])} to clients   {size(found['upstream_bytes'])} from upstream   "
        f"{size(found['saved_bytes'])} saved",
        "requests  " + ("   ".join(f"{name} {count}" for name, count in found["requests"].items() if count) or "none"),
    ]
    lines += [f"reload    refused: {found['reload_refused']}"] if found["reload_refused"] else []
    lines += [f"upstream  {each['name']}   {_up(each)}   {' '.join(each['urls'])}" for each in found["upstreams"]]
    lines += [f"fill      {fill['digest'][:19]}   {_progress(fill)}" for fill in found["fills"]]
    return "\n".join(lines)


def _up(upstream: Any) -> str:
    words = ["up" if upstream["up"] else "DOWN"]
    words += [f"circuit {upstream['circuit']}"] if upstream["circuit"] != "closed" else []
    words += [f"throttled for {upstream['paused']} s"] if upstream["paused"] else []
    return ", ".join(words)


def _progress(fill: Any) -> str:
    total = "an unknown size" if fill["size"] is None else config.format_size(fill["size"])
    return f"{config.format_size(fill['bytes'])} of {total}"


def _since(started: float) -> str:
    seconds = max(0, int(time.time() - started))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
