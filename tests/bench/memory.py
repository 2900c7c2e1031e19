"""Bench of memory: the most a worker ever had, after a large cold blob and under many slow clients."""

import socket
import time
from contextlib import ExitStack

from tests.bench.blobs import GIB
from tests.bench.measure import download, peak_memory
from tests.bench.origin import Blob
from tests.bench.report import Row, Target
from tests.bench.world import World
from tests.real.tidegate import Tidegate

_LIMIT = 120
_CLIENTS = 500
_SECONDS = 6


def memory(world: World) -> list[Row]:
    """VmHWM of the largest worker: one cold client; 500 slow ones on a hit; 500 slow ones from the first byte on."""
    blob = world.origin.add(GIB, seed=1)
    with world.tidegate() as server:
        start = _peak(server)
        download(server.url + blob.path, blob.size)
        cold = _peak(server)
        _slow_clients(server, blob)
        hit = _peak(server)
    with world.tidegate() as server:
        _slow_clients(server, blob)
        filling = _peak(server)
    situations = {
        "just started": start,
        "after a cold blob of 1 GiB": cold,
        f"and {_CLIENTS} slow clients reading it": hit,
        f"{_CLIENTS} slow clients on a cold one": filling,
    }
    return [
        Row(f"peak memory of a worker, {name}", "MiB", {"tidegate": peak}, (Target("MiB", peak, _LIMIT),))
        for name, peak in situations.items()
    ]


def _peak(server: Tidegate) -> float:
    return max(peak_memory(pid) for pid in server.worker_pids())


def _slow_clients(server: Tidegate, blob: Blob) -> None:
    """Each takes 4 KiB every 50 ms out of a small receive buffer, for some seconds, and then leaves."""
    host, _, port = server.host.partition(":")
    with ExitStack() as stack:
        clients = [stack.enter_context(_client(host, int(port), blob)) for _ in range(_CLIENTS)]
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until:
            for client in clients:
                assert client.recv(4096), "a slow client was cut"
            time.sleep(0.05)


def _client(host: str, port: int, blob: Blob) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    client.settimeout(20)
    client.connect((host, port))
    client.sendall(f"GET {blob.path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return client
