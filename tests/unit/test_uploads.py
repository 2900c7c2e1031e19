"""Upload sessions: appended to by one at a time, hashed once where one worker takes all, found again after a break."""

import asyncio
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.errors import BlobUploadUnknown, NoSpace, UploadOutOfOrder
from proxy.oci.digest import Digest
from proxy.store.files import Files
from proxy.store.session import Hashed, Session
from proxy.store.uploads import Uploads
from proxy.store.yard import Yard

REPO = "dev/app"
CONTENT = os.urandom(3 << 20)


@pytest.fixture
def most():
    """[bytes there may be]"""
    return [0]


@pytest.fixture
def yard(tmp_path, most):
    return Yard(str(tmp_path / "run"), [0] * 4, lambda: most[0])


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as made:
        yield made


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "uploads")


@pytest.fixture
def uploads(folder, pool, yard):
    return Uploads(folder, pool, yard)


@pytest.fixture
def files(tmp_path):
    return Files(str(tmp_path / "blobs"))


async def append(uploads, name, *chunks):
    upload = await asyncio.to_thread(uploads.open, REPO, name)
    for chunk in chunks:
        await upload.write(chunk)
    await upload.settle()
    size = upload.size
    await upload.close()
    return size


async def finish(uploads, files, name, digest):
    upload = await asyncio.to_thread(uploads.open, REPO, name)
    try:
        good = await upload.matches(digest)
        if good:
            await upload.commit(files, digest)
        return good
    finally:
        await upload.close()


def begin(uploads, algorithm="sha256"):
    return uploads.begin(REPO, algorithm)


@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["empty", "one byte", "large"])
@pytest.mark.parametrize("named", ["sha256", "sha512"])
@pytest.mark.parametrize("announced", ["sha256", "sha512"])
async def test_a_session_becomes_a_blob(uploads, files, folder, content, named, announced):
    name = await asyncio.to_thread(begin, uploads, announced)
    digest = Digest.of(content, named)
    assert await append(uploads, name, content[:1000], content[1000:]) == len(content)
    assert await finish(uploads, files, name, digest)
    with open(files.path(digest), "rb") as file:
        assert file.read() == content
    assert os.stat(files.path(digest)).st_mode & 0o777 == 0o444
    assert os.listdir(folder) == []


async def test_chunks_of_several_workers_make_one_blob(folder, pool, files, yard):
    """Each remembers how far it has hashed, and reads what the others wrote."""
    workers = [Uploads(folder, pool, yard) for _ in range(3)]
    name = await asyncio.to_thread(begin, workers[0])
    pieces = [CONTENT[at : at + 300_000] for at in range(0, len(CONTENT), 300_000)]
    for number, piece in enumerate(pieces):
        await append(workers[number % 3], name, piece)
    assert await finish(workers[1], files, name, Digest.of(CONTENT))


async def test_a_worker_that_took_all_of_it_reads_nothing_again(uploads, files, monkeypatch):
    name = await asyncio.to_thread(begin, uploads)
    for at in range(0, len(CONTENT), 1 << 20):
        await append(uploads, name, CONTENT[at : at + (1 << 20)])

    forbid_reading(monkeypatch)
    assert await finish(uploads, files, name, Digest.of(CONTENT))


def forbid_reading(monkeypatch):
    def never(*_):
        raise AssertionError("read again")

    monkeypatch.setattr("proxy.store.growing.os.pread", never)
    monkeypatch.setattr("proxy.store.uploads.os.pread", never)


@pytest.fixture
def at_once(monkeypatch):
    """Everything is worth handing on."""
    monkeypatch.setattr("proxy.store.session._WORTH", 1)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_worker_that_goes_on_reads_nothing_again(folder, pool, files, monkeypatch, yard, at_once, algorithm):
    forbid_reading(monkeypatch)
    name = await asyncio.to_thread(begin, Uploads(folder, pool, yard), algorithm)
    for at in range(0, len(CONTENT), 300_001):
        await append(Uploads(folder, pool, yard), name, CONTENT[at : at + 300_001])
    later = Uploads(folder, pool, yard)
    assert not await finish(later, files, name, Digest.of(CONTENT[:-1], algorithm))
    assert await finish(Uploads(folder, pool, yard), files, name, Digest.of(CONTENT, algorithm))
    assert os.listdir(folder) == []


async def test_a_little_is_not_worth_handing_on(folder, uploads, pool, files, yard):
    name = await asyncio.to_thread(begin, uploads)
    before = os.stat(os.path.join(folder, f"{name}.session")).st_ino
    await append(uploads, name, CONTENT)
    assert os.stat(os.path.join(folder, f"{name}.session")).st_ino == before
    assert await finish(Uploads(folder, pool, yard), files, name, Digest.of(CONTENT))


async def test_a_power_cut_takes_the_word_of_what_was_hashed_with_it(folder, pool, files, monkeypatch, yard, at_once):
    """The bytes may be zeros now: whoever goes on looks at all of them."""
    name = await asyncio.to_thread(begin, Uploads(folder, pool, yard))
    await append(Uploads(folder, pool, yard), name, CONTENT[:2_000_000])
    monkeypatch.setattr("proxy.store.session._boot", lambda: "another life")
    with open(os.path.join(folder, name), "r+b") as file:
        file.seek(1_000_000)
        file.write(bytes(4096))
    await append(Uploads(folder, pool, yard), name, CONTENT[2_000_000:])
    assert not await finish(Uploads(folder, pool, yard), files, name, Digest.of(CONTENT))


async def test_where_nothing_can_be_handed_on_it_is_read(folder, pool, files, monkeypatch, yard, at_once):
    monkeypatch.setattr("proxy.store.hashing._library", lambda: None)
    name = await asyncio.to_thread(begin, Uploads(folder, pool, yard))
    await append(Uploads(folder, pool, yard), name, CONTENT[:1_500_000])
    await append(Uploads(folder, pool, yard), name, CONTENT[1_500_000:])
    assert await finish(Uploads(folder, pool, yard), files, name, Digest.of(CONTENT))


@pytest.mark.parametrize(
    "damage",
    [{"state": "nonsense"}, {"state": "ab"}, {"upto": 10**9}, {"boot": "x"}, {"state": "", "upto": 5}],
    ids=str,
)
async def test_a_damaged_word_of_what_was_hashed_costs_a_reading(folder, pool, files, yard, at_once, damage):
    name = await asyncio.to_thread(begin, Uploads(folder, pool, yard))
    await append(Uploads(folder, pool, yard), name, CONTENT)
    path = os.path.join(folder, f"{name}.session")
    with open(path) as file:
        found = json.load(file)
    with open(path, "w") as file:
        json.dump(found | damage, file)
    assert await finish(Uploads(folder, pool, yard), files, name, Digest.of(CONTENT))


@pytest.mark.parametrize("text", ["", "[]", "7", "null", "{}", '{"repository": 1}', '{"unknown": 1}', "\0"], ids=repr)
async def test_a_session_file_that_is_none(uploads, folder, text):
    name = await asyncio.to_thread(begin, uploads)
    with open(os.path.join(folder, f"{name}.session"), "w") as file:
        file.write(text)
    for call in (uploads.open, uploads.size):
        with pytest.raises(BlobUploadUnknown):
            await asyncio.to_thread(call, REPO, name)


async def test_an_opening_without_a_byte_does_not_mislead_the_hash(folder, pool, files, yard):
    first, second = Uploads(folder, pool, yard), Uploads(folder, pool, yard)
    name = await asyncio.to_thread(begin, first)
    await append(first, name, CONTENT[:1000])
    assert await append(second, name) == 1000
    await append(second, name, CONTENT[1000:])
    assert await finish(second, files, name, Digest.of(CONTENT))


async def test_wrong_bytes_are_no_blob_and_can_be_gone_on_from(uploads, files):
    name = await asyncio.to_thread(begin, uploads)
    await append(uploads, name, b"abc")
    assert not await finish(uploads, files, name, Digest.of(b"abcdef"))
    assert await append(uploads, name, b"def") == 6
    assert await finish(uploads, files, name, Digest.of(b"abcdef"))


async def test_one_writer_at_a_time(folder, pool, yard):
    uploads, other = Uploads(folder, pool, yard), Uploads(folder, pool, yard)
    name = await asyncio.to_thread(begin, uploads)
    upload = await asyncio.to_thread(uploads.open, REPO, name)
    await upload.write(b"abc")
    await upload.settle()
    with pytest.raises(UploadOutOfOrder) as refused:
        await asyncio.to_thread(other.open, REPO, name)
    assert refused.value.size == 3
    assert await asyncio.to_thread(other.size, REPO, name) == 3
    await upload.close()
    assert await append(other, name, b"def") == 6


@pytest.mark.parametrize("name", ["", "nonsense", "../" * 10 + "xx", "a" * 32, "." * 32])
async def test_an_unknown_session(uploads, name):
    for call in (uploads.open, uploads.size, uploads.cancel):
        with pytest.raises(BlobUploadUnknown):
            await asyncio.to_thread(call, REPO, name)


async def test_a_session_belongs_to_its_repository(uploads):
    name = await asyncio.to_thread(begin, uploads)
    with pytest.raises(BlobUploadUnknown):
        await asyncio.to_thread(uploads.open, "dev/other", name)
    await asyncio.to_thread(uploads.cancel, REPO, name)
    with pytest.raises(BlobUploadUnknown):
        await asyncio.to_thread(uploads.size, REPO, name)


async def test_a_broken_off_upload_is_found_again_after_a_restart(folder, pool, files, yard):
    name = await asyncio.to_thread(begin, Uploads(folder, pool, yard))
    await append(Uploads(folder, pool, yard), name, CONTENT[:1_500_000])
    later = Uploads(folder, pool, yard)
    assert await asyncio.to_thread(later.size, REPO, name) == 1_500_000
    await append(later, name, CONTENT[1_500_000:])
    assert await finish(later, files, name, Digest.of(CONTENT))


async def test_old_sessions_are_swept_and_those_being_written_never(uploads, folder):
    old, young, busy = [await asyncio.to_thread(begin, uploads) for _ in range(3)]
    for name in (old, busy):
        os.utime(os.path.join(folder, name), (time.time() - 1000,) * 2)
    writing = await asyncio.to_thread(uploads.open, REPO, busy)
    assert await asyncio.to_thread(uploads.sweep, 100) == 1
    await writing.close()
    names = {name.partition(".")[0] for name in os.listdir(folder)}
    assert names == {young, busy}


async def test_what_a_kill_left_of_a_session_is_swept(uploads, folder):
    live = await asyncio.to_thread(begin, uploads)
    ages = {f"{'a' * 32}.session": 1000, f".{'b' * 32}": 1000, f"{'c' * 32}.session": 1, f"{live}.session": 1000}
    for name, age in ages.items():
        path = os.path.join(folder, name)
        with open(path, "a"):
            pass
        os.utime(path, (time.time() - age,) * 2)
    await asyncio.to_thread(uploads.sweep, 100)
    assert set(os.listdir(folder)) == {live, f"{live}.session", f"{'c' * 32}.session"}


def test_a_session_that_cannot_be_made_leaves_no_trace(uploads, folder, monkeypatch):
    def full(path, *_):
        raise OSError(28, "No space left on device", path)

    with monkeypatch.context() as patched:
        patched.setattr("proxy.store.uploads.os.open", full)
        with pytest.raises(OSError, match="No space"):
            uploads.begin(REPO)
    assert os.listdir(folder) == []


async def test_what_others_wrote_is_hashed_beside_new_bytes_and_never_all_at_once(
    folder, pool, files, monkeypatch, yard
):
    monkeypatch.setattr("proxy.store.growing._AT_ONCE", 100_000)
    first, second = Uploads(folder, pool, yard), Uploads(folder, pool, yard)
    name = await asyncio.to_thread(begin, first)
    await append(first, name, CONTENT[:1_000_000])
    for at in range(1_000_000, 1_005_000, 1000):
        await append(second, name, CONTENT[at : at + 1000])
    assert second._hashed[name].upto == 500_000, "behind still"
    upload = await asyncio.to_thread(second.open, REPO, name)
    for at in range(1_005_000, 1_105_000, 5000):
        await upload.write(CONTENT[at : at + 5000])
        await asyncio.sleep(0.001)
    await upload.close()
    assert second._hashed[name].upto == 1_105_000, "caught up"
    await append(second, name, CONTENT[1_105_000:])
    assert await finish(second, files, name, Digest.of(CONTENT))


async def test_one_that_never_catches_up_is_read_at_the_end(folder, pool, files, monkeypatch, yard):
    monkeypatch.setattr("proxy.store.growing._AT_ONCE", 10)
    first, second = Uploads(folder, pool, yard), Uploads(folder, pool, yard)
    name = await asyncio.to_thread(begin, first)
    await append(first, name, CONTENT[:1_000_000])
    await append(second, name, *[CONTENT[at : at + 10_000] for at in range(1_000_000, len(CONTENT), 10_000)])
    assert not await finish(second, files, name, Digest.of(CONTENT[:-1]))
    assert await finish(second, files, name, Digest.of(CONTENT))


async def test_a_full_disk_keeps_what_there_is(uploads, files, monkeypatch):
    name = await asyncio.to_thread(begin, uploads)
    await append(uploads, name, b"abc")
    upload = await asyncio.to_thread(uploads.open, REPO, name)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("proxy.store.growing.os.pwritev", full)
        with pytest.raises(OSError, match="No space"):
            await upload.write(b"def")
            await upload.settle()
        await upload.close()
    assert await asyncio.to_thread(uploads.size, REPO, name) == 3
    await append(uploads, name, b"xyz")
    assert await finish(uploads, files, name, Digest.of(b"abcxyz")), "what was not written was not hashed either"


def test_what_is_remembered_is_bounded(uploads):
    for number in range(1100):
        uploads.remember(str(number), Session(REPO, "sha256"), Hashed(hashlib.sha256(), 1))
    assert len(uploads._hashed) == 1000


async def test_what_is_counted_is_what_there_is(uploads, files, folder, yard):
    """In steps ahead while it comes, exactly when it has."""
    name = await asyncio.to_thread(begin, uploads)
    upload = await asyncio.to_thread(uploads.open, REPO, name)
    await upload.write(CONTENT[:1000])
    assert yard.bytes >= 1000
    await upload.close()
    assert yard.bytes == 1000
    await append(uploads, name, CONTENT[1000:])
    assert await finish(uploads, files, name, Digest.of(CONTENT))
    assert yard.bytes == len(CONTENT)
    again = await asyncio.to_thread(begin, uploads)
    await append(uploads, again, CONTENT)
    assert yard.bytes == 2 * len(CONTENT)
    assert await finish(uploads, files, again, Digest.of(CONTENT))
    assert yard.bytes == len(CONTENT), "the second one takes the place of the first"
    left = await asyncio.to_thread(begin, uploads)
    await append(uploads, left, b"abc")
    await asyncio.to_thread(uploads.cancel, REPO, left)
    assert yard.bytes == len(CONTENT)


async def test_no_more_is_taken_than_there_may_be(uploads, folder, yard, most):
    most[0] = 5000
    name = await asyncio.to_thread(begin, uploads)
    upload = await asyncio.to_thread(uploads.open, REPO, name)
    with pytest.raises(NoSpace, match=r"0 B are pushed here, and 4.9 KiB more would pass local.max_size of 4.9 KiB"):
        upload.expect(5001)
    upload.expect(5000)
    await upload.write(CONTENT[:5000])
    with pytest.raises(NoSpace):
        await upload.write(b"x")
    upload.forget()
    await upload.close()
    assert (yard.bytes, os.listdir(folder)) == (0, [])
