"""The growing file: what was given in, in order, hashed, the newest byte kept back until the digest matched."""

import asyncio
import hashlib
import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.store.growing import PIECE, Growing
from tests.unit.builders import run


@pytest.fixture
def fd(tmp_path):
    made = os.open(tmp_path / "part", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    yield made
    os.close(made)


def content_of(fd):
    return os.pread(fd, os.fstat(fd).st_size, 0)


def sizes(seed):
    """Many small chunks and some large ones."""
    rng = random.Random(seed)
    return [rng.choice([0, 1, 2, 17, 1000, 65536, PIECE - 1, PIECE, PIECE + 1]) for _ in range(40)]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_many_chunks_are_the_bytes_and_the_digest(fd, pool, algorithm):
    rng = random.Random(7)
    chunks = [rng.randbytes(size) for size in sizes(7)] + [rng.randbytes(3) for _ in range(3000)]
    whole = b"".join(chunks)
    growing = Growing(fd, hashlib.new(algorithm), pool)
    told = []
    growing.on_progress = lambda: told.append(growing.offset)
    taken = 0
    for chunk in chunks:
        await growing.write(chunk)
        taken += len(chunk)
        assert growing.received == taken
        assert growing.offset < max(taken, 1)
        assert os.fstat(fd).st_size <= max(taken - 1, 0)
    await growing.settle()
    assert content_of(fd) == whole[:-1]
    assert growing.offset == len(whole) - 1
    assert told == sorted(told)
    assert told[-1] == len(whole) - 1
    assert await growing.seal(hashlib.new(algorithm, whole).hexdigest())
    assert content_of(fd) == whole
    assert growing.offset == growing.received == len(whole)
    await growing.stop()


@settings(max_examples=25)
@given(st.lists(st.integers(0, 5), max_size=12), st.integers(0, 12), st.booleans())
def test_any_chunks_after_any_earlier_life(tmp_path_factory, lengths, earlier, right):
    rng = random.Random(0)
    before = rng.randbytes(earlier)
    chunks = [rng.randbytes(length) for length in lengths]
    whole = before + b"".join(chunks)
    path = tmp_path_factory.mktemp("growing") / "part"
    path.write_bytes(before)
    given_digest = hashlib.sha256(whole if right else whole + b"x").hexdigest()

    async def main():
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        with ThreadPoolExecutor(1) as pool:
            growing = Growing(fd, hashlib.sha256(), pool)
            for chunk in chunks:
                await growing.write(chunk)
                await growing.settle()
                assert content_of(fd) == (before + b"".join(chunks))[: os.fstat(fd).st_size]
            fresh = len(whole) - earlier
            assert os.fstat(fd).st_size == (len(whole) - 1 if fresh else earlier)
            assert await growing.seal(given_digest) is right
            assert content_of(fd) == (whole if right or not fresh else whole[:-1])
            await growing.stop()
        os.close(fd)

    asyncio.run(main())


async def test_a_wrong_digest_never_lets_the_last_byte_out(fd, pool):
    growing = Growing(fd, hashlib.sha256(), pool)
    await growing.write(b"hello")
    assert not await growing.seal(hashlib.sha256(b"other").hexdigest())
    assert content_of(fd) == b"hell"
    await growing.stop()
    assert content_of(fd) == b"hell"


async def test_an_empty_blob(fd, pool):
    growing = Growing(fd, hashlib.sha256(), pool)
    assert await growing.seal(hashlib.sha256().hexdigest())
    assert content_of(fd) == b""
    await growing.stop()


async def test_an_empty_chunk_lets_nothing_out(fd, pool):
    growing = Growing(fd, hashlib.sha256(), pool)
    await growing.write(b"ab")
    await growing.settle()
    await growing.write(b"")
    await growing.settle()
    assert content_of(fd) == b"a"
    await growing.stop()


async def test_a_full_disk_surfaces_at_every_door(pool):
    full = os.open("/dev/full", os.O_RDWR | os.O_CLOEXEC)
    try:
        growing = Growing(full, hashlib.sha256(), pool)
        await growing.write(b"ab")
        for call in (growing.settle, lambda: growing.seal("x"), lambda: growing.write(b"more")):
            with pytest.raises(OSError, match="No space left"):
                await call()
        await growing.stop()
        assert growing.offset == 0
    finally:
        os.close(full)


async def test_a_writer_that_waits_for_room_hears_of_a_full_disk(pool):
    full = os.open("/dev/full", os.O_RDWR | os.O_CLOEXEC)
    try:
        growing = Growing(full, hashlib.sha256(), pool)
        async with asyncio.timeout(5):
            with pytest.raises(OSError, match="No space left"):
                for _ in range(10):
                    await growing.write(bytes(PIECE))
        await growing.stop()
    finally:
        os.close(full)


def test_what_fits_before_the_disk_is_full_is_a_prefix(tmp_path):
    """A limit on file size stands in for a disk that fills in the middle of a write."""
    code = """
import asyncio, hashlib, os, random, resource, sys
from concurrent.futures import ThreadPoolExecutor
from proxy.store.growing import Growing
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

async def main():
    fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    with ThreadPoolExecutor(1) as pool:
        growing = Growing(fd, hashlib.sha256(), pool)
        try:
            await growing.write(random.Random(1).randbytes(1 << 20))
            await growing.settle()
        except OSError as error:
            print(error.errno, growing.offset)
        await growing.stop()
    os.close(fd)

asyncio.run(main())
"""
    path = tmp_path / "part"
    assert run(code, path) == "27 100000\n"  # EFBIG
    assert path.read_bytes() == random.Random(1).randbytes(1 << 20)[:100_000]


async def test_stop_waits_for_the_write_under_way_and_drops_the_rest(fd):
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        busy = asyncio.get_running_loop().run_in_executor(pool, gate.wait, 5)
        growing = Growing(fd, hashlib.sha256(), pool)
        await growing.write(b"abc")
        await asyncio.sleep(0.01)
        stopping = asyncio.create_task(growing.stop())
        await asyncio.sleep(0.01)
        assert not stopping.done()
        gate.set()
        await asyncio.gather(busy, stopping)
    assert content_of(fd) == b"ab"


async def test_a_cancelled_writer_cancels_no_write(fd):
    with ThreadPoolExecutor(1) as pool:
        growing = Growing(fd, hashlib.sha256(), pool)
        await growing.write(b"abc")
        sealing = asyncio.create_task(growing.seal(hashlib.sha256(b"abc").hexdigest()))
        await asyncio.sleep(0)
        sealing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sealing
        await growing.stop()
    assert content_of(fd) in (b"ab", b"abc")
