"""What a client of a TLS port says first. A handshake begins with one certain byte (RFC 8446 section 5.1); a request
in plain HTTP, the usual mistake, is told so instead of being cut off without a word.
"""

import asyncio
import socket

from proxy.errors import RequestInvalid

HANDSHAKE = 0x16
_LOOK = 64 << 10


async def first_byte(connection: socket.socket) -> int | None:
    """What the client's first byte is, left where it is; None when it has gone. Raises OSError."""
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()
    loop.add_reader(connection, arrived.set)
    try:
        await arrived.wait()
    finally:
        loop.remove_reader(connection)
    found = connection.recv(1, socket.MSG_PEEK)
    return found[0] if found else None


def refuse_plain(connection: socket.socket) -> None:
    """Answer in plain HTTP and close. Raises OSError."""
    problem = RequestInvalid("this port speaks https; begin the URL with https://")
    body = problem.body()
    head = (
        f"HTTP/1.1 {problem.status} {problem.reason()}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    connection.recv(_LOOK)  # unread bytes at the close would make the kernel throw the answer away
    connection.send(head.encode() + body)
    connection.shutdown(socket.SHUT_WR)
