"""Small servers that say what this machine can do at all; each is a process: `python -m tests.bench.yardsticks KIND`.

`floor PORT ORIGIN FILE` is the least a verifying cache can do for one cold blob: receive, hash, write, sendfile.
`slow PORT FILE RATE` sends one file at RATE bytes a second. nginx's limit_rate counts in whole seconds, so its total
varies by one; a comparison within 2 % needs a steadier hand.
`aiohttp PORT FILE` answers every request with one small body out of two processes, aiohttp's own access log on.
"""

import asyncio
import hashlib
import logging
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web

from tests.real.processes import free_port, running
from tests.real.tidegate import ROOT

MIB = 1 << 20


@contextmanager
def yardstick(folder: Path, kind: str, *args: str) -> Iterator[str]:
    """Its base URL, until the block ends; ready when GET /up answers 200."""
    folder.mkdir(parents=True, exist_ok=True)
    port = str(free_port())
    command = [sys.executable, "-m", "tests.bench.yardsticks", kind, port, *args]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with running(command, folder, kind, f"http://127.0.0.1:{port}/up", env):
        yield f"http://127.0.0.1:{port}"


Answer = Callable[[socket.socket, bytes], Awaitable[None]]


async def _serve(port: int, answer: Answer) -> None:
    """One request per connection, by `answer`; /up is answered here."""
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)

    async def handle(client: socket.socket) -> None:
        client.setblocking(False)
        with client:
            request = await loop.sock_recv(client, 4096)
            if request.startswith((b"GET /up", b"GET /v2/ ")):
                await loop.sock_sendall(client, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nup")
            else:
                await answer(client, request)

    running: set[asyncio.Task[None]] = set()
    while True:
        client, _ = await loop.sock_accept(listener)
        task = asyncio.create_task(handle(client))
        running.add(task)
        task.add_done_callback(running.discard)


async def floor(port: int, origin: str, path: str) -> None:
    """A thread receives, hashes and writes; the loop sends what is in the file."""
    loop = asyncio.get_running_loop()

    async def answer(client: socket.socket, request: bytes) -> None:
        host, _, number = origin.removeprefix("http://").partition(":")
        upstream = socket.create_connection((host, int(number)))
        upstream.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        buffer = bytearray(MIB)
        got = upstream.recv_into(buffer)
        head, _, first = bytes(buffer[:got]).partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length:")[2].split()[0])
        await loop.sock_sendall(client, head + b"\r\n\r\n")
        sent = 0
        with upstream, open(path, "w+b", buffering=0) as file:
            hasher = hashlib.sha256(first)
            file.write(first)

            def piece() -> int:
                filled = 0
                while filled < MIB and (more := upstream.recv_into(memoryview(buffer)[filled:])):
                    filled += more
                view = memoryview(buffer)[:filled]
                hasher.update(view)
                file.write(view)
                return filled

            written = len(first)
            with open(path, "rb", buffering=0) as source:
                while sent < size:
                    hop = loop.run_in_executor(None, piece)
                    if written > sent:
                        sent += await loop.sock_sendfile(client, source, sent, written - sent)
                    written += await hop
        os.unlink(path)

    await _serve(port, answer)


async def slow(port: int, path: str, rate: float) -> None:
    """Pieces of 128 KiB, each when it is due; 404 where the file's name is not in the request."""
    loop = asyncio.get_running_loop()

    async def answer(client: socket.socket, request: bytes) -> None:
        if os.path.basename(path).encode() not in request:
            await loop.sock_sendall(client, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        size, sent, began = os.stat(path).st_size, 0, loop.time()
        await loop.sock_sendall(client, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size)
        with open(path, "rb", buffering=0) as file:
            while sent < size:
                sent += await loop.sock_sendfile(client, file, sent, min(128 << 10, size - sent))
                await asyncio.sleep(began + sent / rate - loop.time())

    await _serve(port, answer)


def bare_aiohttp(port: int, path: str) -> None:
    """What an aiohttp user writes: Application, one route, run_app; here in two processes on one port."""
    body = Path(path).read_bytes()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/vnd.oci.image.manifest.v1+json")

    logging.basicConfig(level=logging.INFO)
    os.fork()
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    web.run_app(app, host="127.0.0.1", port=port, reuse_port=True, print=None)


def main(kind: str, port: str, *args: str) -> None:
    match kind:
        case "floor":
            asyncio.run(floor(int(port), args[0], args[1]))
        case "slow":
            asyncio.run(slow(int(port), args[0], float(args[1])))
        case "aiohttp":
            bare_aiohttp(int(port), args[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
