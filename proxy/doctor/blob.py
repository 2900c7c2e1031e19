"""A layer: whether parts of it can be had, how soon it begins, and how fast it comes."""

import time

from proxy.config import format_size
from proxy.doctor.image import Image
from proxy.doctor.manifest import Layer
from proxy.doctor.report import Problem, plain
from proxy.doctor.walk import Walk

_ENOUGH = 1 << 20


async def check_range(walk: Walk, image: Image, layer: Layer) -> str:
    """Ask for the second byte alone. Raises Problem."""
    path = f"{image.repo}/blobs/{layer.digest}"
    async with walk.to("blob", path, {"Range": "bytes=1-1"}) as answered:
        head, host = answered.head, answered.url.raw_host
    if head.status == 206 and head.headers.get("Content-Range", "").startswith("bytes 1-1/"):
        return f"{host} sends the part that was asked for"
    if head.status == 206:
        what = f"answered {plain(head.headers.get('Content-Range', 'no Content-Range'))} when asked for bytes 1-1"
    else:
        what = "sent the whole blob when asked for a part: something on the way strips Range"
    raise Problem(
        "range",
        f"{host}: {what}",
        nodes_see="layers that start over whenever a connection breaks",
        fix=f"ask the proxy's team to pass Range and Content-Range for {host}; pulls work, broken ones begin again",
    )


async def check_throughput(walk: Walk, image: Image, layer: Layer) -> str:
    """The first MiB, asked for as a pull does. Raises Problem."""
    path, budget = f"{image.repo}/blobs/{layer.digest}", walk.way.budget
    async with walk.to("blob", path, {}, budget.limits.first_byte) as answered:
        host, asked = answered.url.raw_host or "?", time.monotonic()
        content = await answered.read(budget, "throughput", min(_ENOUGH, layer.size), budget.limits.first_byte)
    if len(content) == layer.size and not layer.digest.matches(content):
        raise Problem(
            "throughput",
            f"{host}: sent a blob that does not match its digest: something on the way changes it",
            nodes_see="unexpected commit digest: failed precondition",
            fix=f"ask the proxy's team to pass {host} through unchanged",
        )
    began = answered.began or asked
    waited = answered.head.seconds + began - asked
    if waited > budget.limits.slow:
        raise _slow(host, waited)
    took = max(time.monotonic() - began, 0.001)
    speed = format_size(len(content) / took)
    return f"{format_size(len(content))} from {host}, {speed}/s, first byte after {max(waited * 1000, 1):.0f} ms"


def _slow(host: str, waited: float) -> Problem:
    return Problem(
        "throughput",
        f"{host}: first byte after {waited:.0f} s: something on the way reads it all first, to scan it",
        nodes_see="timeout awaiting response headers, from 30 s on",
        fix=f"ask the proxy's team to take {host} out of scanning, or to pass it on while it scans",
    )
