"""How long an answer to a push may take; the calls themselves are tested against real servers."""

import asyncio
import errno
from types import SimpleNamespace

import pytest

from proxy.errors import Unavailable
from proxy.http import pushing
from proxy.http.pushing import Pushing


async def test_an_answer_waits_no_longer_than_clients_do(monkeypatch):
    """What takes longer goes on behind it, and whoever asks again finds it done."""

    class Slow:
        reading = asyncio.Event()

        async def matches(self, digest):
            await self.reading.wait()
            return True

        async def close(self):
            await self.reading.wait()
            closed.append(self)

    class Shelf:
        name = "local"

        class uploads:
            open = staticmethod(lambda repo, name: Slow())

    closed = []
    monkeypatch.setattr(pushing, "_PATIENCE", 0.01)
    monkeypatch.setattr(pushing, "_SETTLE", 0.01)
    pushes = Pushing(Shelf, None, None)
    with pytest.raises(Unavailable, match="still being read") as refused:
        async with pushes._writing("dev/app", "a" * 32) as upload:
            await pushes._matches(upload, None)
    assert refused.value.retry_after == 1
    assert not closed
    Slow.reading.set()
    async with asyncio.timeout(5):
        while not closed or pushes._reading:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ECONNRESET])
async def test_a_network_that_goes_away_is_no_disk_that_failed(number):
    """The upload stays, to be gone on from."""

    async def lost():
        yield b"abc"
        raise OSError(number, "gone")

    content = SimpleNamespace(iter_any=lost)
    exchange = SimpleNamespace(request=SimpleNamespace(headers={}, content=content))
    body = pushing._body(exchange)
    assert await anext(body) == b"abc"
    with pytest.raises(ConnectionError):
        await anext(body)
