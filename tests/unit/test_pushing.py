"""How long an answer to a push may take; the calls themselves are tested against real servers."""

import asyncio
import errno
from types import SimpleNamespace

import pytest

from proxy.errors import Unavailable
from proxy.http import pushing
from proxy.http.pushing import Pushing
from proxy.http.received import body


class Slow:
    """An upload whose bytes are read, or whose file reaches the disk, only when the test says so."""

    def __init__(self, fits=True, error=None):
        self.now = asyncio.Event()
        self.done = []
        self._fits, self._error = fits, error

    async def matches(self, digest):
        await self.now.wait()
        return self._fits

    async def commit(self, files, digest):
        self.done.append("committed")
        if self._error is not None:
            raise self._error
        return 3

    def forget(self):
        self.done.append("forgotten")

    async def close(self):
        self.done.append("closed")


def shelf(upload):
    async def add_blob(repo, digest, size):
        upload.done.append("linked")

    uploads = SimpleNamespace(open=lambda repo, name: upload)
    return SimpleNamespace(name="local", uploads=uploads, files=None, add_blob=add_blob)


@pytest.mark.parametrize(
    ("upload", "then"),
    [
        (Slow(), ["committed", "linked", "closed"]),
        (Slow(fits=False), ["closed"]),
        (Slow(error=OSError(28, "No space left on device")), ["committed", "forgotten", "closed"]),
    ],
    ids=["fits", "does not fit", "full disk"],
)
async def test_an_answer_waits_no_longer_than_clients_do(monkeypatch, upload, then):
    """What takes longer goes on behind it, to its end, and only then the upload is anybody's again."""
    monkeypatch.setattr(pushing, "_PATIENCE", 0.01)
    monkeypatch.setattr(pushing, "_SETTLE", 0.01)
    pushes = Pushing(shelf(upload), None, None)
    with pytest.raises(Unavailable, match="still being read") as refused:
        async with pushes._writing("dev/app", "a" * 32) as writing:
            await pushes._commit(None, None, "dev/app", writing, None)
    assert refused.value.retry_after == 1
    assert not upload.done
    upload.now.set()
    async with asyncio.timeout(5):
        while pushes._closing:
            await asyncio.sleep(0.01)
    assert upload.done == then
    assert not pushes._sealing


@pytest.mark.parametrize("number", [errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ECONNRESET])
async def test_a_network_that_goes_away_is_no_disk_that_failed(number):
    """The upload stays, to be gone on from."""

    async def lost():
        yield b"abc"
        raise OSError(number, "gone")

    content = SimpleNamespace(iter_any=lost)
    exchange = SimpleNamespace(request=SimpleNamespace(headers={}, content=content))
    chunks = body(exchange)
    assert await anext(chunks) == b"abc"
    with pytest.raises(ConnectionError):
        await anext(chunks)
