"""A worker's door under TLS: clients that do not get through the handshake cost neither places nor time."""

import asyncio
import contextlib
import socket
import ssl

import pytest

from proxy.config import Tls
from proxy.http.tls import read
from proxy.worker import child
from tests.real.certificates import authority


class Greeter(asyncio.Protocol):
    """Says so and closes."""

    def connection_made(self, transport):
        transport.write(b"hello")
        transport.close()


@pytest.fixture
def made(tmp_path):
    return authority(tmp_path)


@pytest.fixture
async def place(made):
    """(host, port) of an open door."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    address = listener.getsockname()
    context = made.context()
    door = child._Door(listener, Greeter, lambda: context)
    door.open()
    yield address
    await door.close()


async def greeted(place, made):
    reader, writer = await asyncio.open_connection(*place, ssl=made.trust())
    try:
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_handshake_that_stalls_is_ended(monkeypatch, place, made):
    monkeypatch.setattr(child, "HANDSHAKE", 0.2)
    for begun in (b"", b"\x16\x03\x01\x02\x00"):
        reader, writer = await asyncio.open_connection(*place)
        writer.write(begun)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    assert await greeted(place, made) == b"hello"


async def test_the_oldest_of_too_many_goes(monkeypatch, place, made):
    monkeypatch.setattr(child, "SHAKES", 3)
    silent = [await asyncio.open_connection(*place) for _ in range(6)]
    async with asyncio.timeout(5):
        for reader, _ in silent[:3]:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
    assert await greeted(place, made) == b"hello"
    assert not silent[-1][0].at_eof(), "the newest is still waited for"
    for _, writer in silent:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_leaving_does_not_wait_for_who_says_nothing(monkeypatch, made):
    monkeypatch.setattr(child, "SHAKING", 0.1)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    address, context = listener.getsockname(), made.context()
    door = child._Door(listener, Greeter, lambda: context)
    door.open()
    reader, writer = await asyncio.open_connection(*address)
    await asyncio.sleep(0.05)
    await asyncio.wait_for(door.close(), 5)
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_plain_http_gets_a_sentence(place):
    reader, writer = await asyncio.open_connection(*place)
    writer.write(b"GET /v2/ HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 400 tidegate: this port speaks https")
    writer.close()
    await writer.wait_closed()


def test_a_context_never_asks_for_less_than_1_2(made):
    context = read(Tls(str(made.certificate), str(made.key), "")).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_NONE
