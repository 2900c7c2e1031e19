"""One writer per digest per machine: lead, follow, find it finished, take over, discard, resume."""

import fcntl
import os
import subprocess
import sys
import time

import pytest

from proxy.errors import BlobUnknown
from proxy.oci.digest import Digest
from proxy.ports import BlobStore, Follow, Gone, Lead, OpenBlob, Seen
from proxy.store.files import Files
from proxy.store.ingest import Following, Leading
from tests.unit import racer
from tests.unit.builders import ROOT, begin, nobody_said_anything

CONTENT = b"0123456789"
DIGEST = Digest.of(CONTENT)


def claim(store, digest=DIGEST):
    return store.claim(digest, nobody_said_anything)


def part(tmp_path, digest=DIGEST, end="part"):
    return tmp_path / "data" / "ingest" / f"{digest.algorithm}-{digest.hex}.{end}"


def leftovers(tmp_path):
    return sorted(os.listdir(tmp_path / "data" / "ingest"))


async def fill(lead, content=CONTENT):
    lead.announce(len(content))
    await lead.write(content[lead.received :])
    assert await lead.seal()
    await lead.publish()


def test_the_protocols_are_met(store):
    checked: BlobStore = store
    lead = claim(checked)
    follow = claim(checked)
    assert isinstance(lead, Lead)
    assert isinstance(follow, Follow)
    follow.close()
    os.close(lead.fd)


@pytest.mark.parametrize("content", [b"", b"x", CONTENT, bytes(3 << 20)], ids=["empty", "one byte", "small", "large"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_lead_then_finished(store, catalogue, tmp_path, content, algorithm):
    digest = Digest.of(content, algorithm)
    assert store.open(digest) is None
    lead = claim(store, digest)
    assert isinstance(lead, Leading)
    assert (lead.offset, lead.received, lead.total) == (0, 0, None)
    await fill(lead, content)
    await lead.close(discard=False)
    for done in (claim(store, digest), store.open(digest)):
        assert isinstance(done, OpenBlob)
        assert done.size == len(content)
        assert os.pread(done.fd, done.size + 1, 0) == content
        done.close()
    path = tmp_path / "data" / "blobs" / digest.path
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o444
    assert leftovers(tmp_path) == []
    assert catalogue.sums() == (path.stat().st_blocks * 512, 1)


async def test_who_comes_later_follows(store):
    lead, follow = claim(store), claim(store)
    assert isinstance(follow, Following)
    assert follow.look(nobody_said_anything) == Seen(0, None, False)
    lead.announce(len(CONTENT))
    assert follow.look(nobody_said_anything) == Seen(0, 10, True)
    await lead.write(CONTENT[:4])
    await lead.settle()
    assert follow.look(nobody_said_anything) == Seen(3, 10, True)
    await lead.write(CONTENT[4:])
    await lead.settle()
    assert follow.look(nobody_said_anything) == Seen(9, 10, True), "the last byte is withheld until the digest matched"
    assert os.pread(follow.fd, 20, 0) == CONTENT[:9]
    assert await lead.seal()
    assert follow.look(nobody_said_anything) == Seen(10, 10, True)
    await lead.publish()
    done = follow.look(nobody_said_anything)
    assert isinstance(done, OpenBlob)
    assert done.size == 10
    assert os.pread(done.fd, 20, 0) == CONTENT
    done.close()
    follow.close()
    await lead.close(discard=False)


async def test_a_size_that_is_unknown_is_noted_as_that(store):
    lead, follow = claim(store), claim(store)
    lead.announce(None)
    assert follow.look(nobody_said_anything) == Seen(0, None, True)
    follow.close()
    await lead.close(discard=True)


async def test_a_leader_that_discards(store, tmp_path):
    lead, follow = claim(store), claim(store)
    lead.announce(10)
    await lead.write(b"wrong bytes")
    assert not await lead.seal()
    assert os.fstat(follow.fd).st_size == 10
    await lead.close(discard=True)
    await lead.close(discard=True)
    assert follow.look(nobody_said_anything) == Gone()
    assert leftovers(tmp_path) == []
    assert store.open(DIGEST) is None
    again = claim(store)
    assert isinstance(again, Leading)
    assert again.offset == 0
    assert follow.look(nobody_said_anything) == Gone()
    follow.close()
    await again.close(discard=True)


async def test_a_leader_that_leaves_is_taken_over_by_its_follower(store):
    lead, follow = claim(store), claim(store)
    lead.announce(10)
    await lead.write(CONTENT[:5])
    await lead.settle()
    await lead.close(discard=False)
    taken = follow.look(nobody_said_anything)
    assert isinstance(taken, Leading)
    assert (taken.offset, taken.received, taken.total) == (4, 4, 10)
    later = claim(store)
    assert later.look(nobody_said_anything) == Seen(4, 10, False), "an earlier life proves nothing about the upstream"
    await fill(taken)
    done = later.look(nobody_said_anything)
    assert isinstance(done, OpenBlob)
    done.close()
    follow.close()
    later.close()
    await taken.close(discard=False)


async def test_a_leader_that_is_killed_is_taken_over(store, tmp_path):
    code = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from proxy.oci.digest import Digest
from proxy.store.catalogue import Catalogue
from proxy.store.ingest import Store

async def main():
    pool = ThreadPoolExecutor(1)
    store = Store(sys.argv[1], pool, pool, Catalogue(sys.argv[2], lambda used, size, uses: used))
    lead = store.claim(Digest.parse(sys.argv[3]), lambda: None)
    lead.announce(10)
    await lead.write(b"01234567")
    await lead.settle()
    print(lead.offset, flush=True)
    sys.stdin.read()

asyncio.run(main())
"""
    process = begin(code, tmp_path / "data", tmp_path / "catalogue", DIGEST)
    try:
        assert process.stdout.readline() == "7\n"
        follow = claim(store)
        assert follow.look(nobody_said_anything) == Seen(7, 10, True)
    finally:
        process.kill()
        process.communicate(timeout=10)
    lead = follow.look(nobody_said_anything)
    assert isinstance(lead, Leading)
    assert (lead.offset, lead.total) == (7, 10)
    await fill(lead)
    await lead.close(discard=False)
    assert (tmp_path / "data" / "blobs" / DIGEST.path).read_bytes() == CONTENT


@pytest.mark.parametrize("by", ["claim", "look"])
async def test_an_outcome_ends_the_claim(store, tmp_path, by):
    def refused():
        raise BlobUnknown("not there")

    if by == "claim":
        with pytest.raises(BlobUnknown):
            store.claim(DIGEST, refused)
        assert leftovers(tmp_path) == [], "a look leaves no part behind"
        return
    lead, follow = claim(store), claim(store)
    assert isinstance(follow.look(refused), Seen), "while somebody leads there is nothing to settle"
    await lead.close(discard=False)
    with pytest.raises(BlobUnknown):
        follow.look(refused)
    follow.close()


def test_an_outcome_leaves_an_earlier_life_alone(store, tmp_path):
    part(tmp_path).write_bytes(CONTENT[:5])

    def refused():
        raise BlobUnknown("not there")

    with pytest.raises(BlobUnknown):
        store.claim(DIGEST, refused)
    assert part(tmp_path).read_bytes() == CONTENT[:5]


async def test_finished_between_the_two_looks(store, tmp_path):
    """A opens the part; B, leading, finishes and lets go; A gets the lock of a file that lies elsewhere."""
    lead = claim(store)
    files, late = Files(store.files.folder), []

    class Late(Files):
        __slots__ = ()

        def open(self, digest):
            if not late:
                late.append(True)
                return None  # what A saw before B finished
            return files.open(digest)

    await fill(lead)
    await lead.close(discard=False)
    store.files = Late(store.files.folder)
    done = claim(store)
    assert isinstance(done, OpenBlob)
    done.close()
    assert leftovers(tmp_path) == []


class Between(Files):
    """Finished files; when somebody looks for the `at`-th time, what the leader does meanwhile happens first."""

    __slots__ = ("at", "meanwhile", "seen_before")

    def is_at(self, digest, fd):
        self.at -= 1
        if self.at == 0 and not self.seen_before:
            self.meanwhile()
        there = super().is_at(digest, fd)
        if self.at == 0 and self.seen_before:
            self.meanwhile()
        return there


@pytest.mark.parametrize("seen_before", [False, True], ids=["before the first look", "between the looks"])
async def test_a_follower_whose_leader_finishes_while_it_looks(store, tmp_path, seen_before):
    """Whatever the interleaving, the follower has the whole blob: a size read too early is one byte short."""
    lead = claim(store)
    lead.announce(10)
    await lead.write(CONTENT)
    await lead.settle()
    path = tmp_path / "data" / "blobs" / DIGEST.path
    path.parent.mkdir(parents=True)

    def finish():
        os.pwrite(lead.fd, CONTENT[9:], 9)
        os.rename(part(tmp_path), path)
        fcntl.flock(lead.fd, fcntl.LOCK_UN)

    store.files = Between(store.files.folder)
    store.files.at, store.files.meanwhile, store.files.seen_before = 1, finish, seen_before
    follow = claim(store)
    try:
        done = follow.look(nobody_said_anything)
        assert isinstance(done, OpenBlob)
        assert done.size == 10
        done.close()
    finally:
        follow.close()
        await lead.close(discard=False)


# Earlier lives


async def resumed(store, digest=DIGEST):
    """What a claim finds of an earlier life, and what followers are told of it."""
    lead, follow = claim(store, digest), claim(store, digest)
    found = (lead.offset, lead.total, follow.look(nobody_said_anything))
    follow.close()
    return lead, found


async def test_a_part_is_resumed(store, tmp_path):
    part(tmp_path).write_bytes(CONTENT[:6])
    part(tmp_path, end="note").write_bytes(b"%19dL" % 10)
    lead, found = await resumed(store)
    assert found == (6, 10, Seen(6, 10, False))
    await fill(lead)
    await lead.close(discard=False)
    assert claim_size(store) == 10


def claim_size(store):
    done = claim(store)
    assert isinstance(done, OpenBlob)
    done.close()
    return done.size


async def test_a_part_that_has_every_byte_needs_no_upstream(store, tmp_path):
    part(tmp_path).write_bytes(CONTENT)
    part(tmp_path, end="note").write_bytes(b"%19dL" % 10)
    lead, found = await resumed(store)
    assert found == (10, 10, Seen(10, 10, False))
    assert await lead.seal()
    await lead.publish()
    await lead.close(discard=False)
    assert claim_size(store) == 10


async def test_a_byte_flipped_in_an_earlier_life_is_found(store, tmp_path):
    part(tmp_path).write_bytes(b"01x345")
    lead, _ = await resumed(store)
    lead.announce(10)
    await lead.write(CONTENT[6:])
    assert not await lead.seal()
    assert part(tmp_path).read_bytes() == b"01x345678"
    await lead.close(discard=True)
    assert leftovers(tmp_path) == []


async def test_a_part_longer_than_its_note_starts_from_nothing(store, tmp_path):
    part(tmp_path).write_bytes(CONTENT + b"more")
    part(tmp_path, end="note").write_bytes(b"%19dL" % 10)
    lead, (offset, _, seen) = await resumed(store)
    await fill(lead)
    await lead.close(discard=False)
    assert claim_size(store) == 10
    assert offset == 0
    assert (seen.available, seen.live) == (0, False)


async def test_a_note_without_bytes_does_not_say_that_bytes_are_coming(store, tmp_path):
    """Its leader was killed before its first byte was in the file; the next one may be told 404."""
    part(tmp_path).touch()
    part(tmp_path, end="note").write_bytes(b"%19dL" % 10)
    lead, (offset, _, seen) = await resumed(store)
    await lead.close(discard=True)
    assert offset == 0
    assert not seen.live


@pytest.mark.parametrize(
    "note", [b"", b"x", b"L", b"\0" * 20, b"\xff" * 20, b"-5", b" " * 19 + b"L", b"1" * 500, b"10", b"%19dL" % -7]
)
async def test_a_corrupted_note_breaks_nothing(store, tmp_path, note):
    part(tmp_path).write_bytes(CONTENT[:6])
    part(tmp_path, end="note").write_bytes(note)
    lead, (offset, total, seen) = await resumed(store)
    assert offset == 6
    assert total is None or total >= 6
    assert not seen.live
    await fill(lead)
    await lead.close(discard=False)
    assert claim_size(store) == 10
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("size", [1, 1 << 20, (1 << 20) + 5, (3 << 20) + 1])
async def test_a_part_of_an_earlier_boot_loses_its_unsynced_tail(store, tmp_path, size):
    content = b"ab" * (2 << 20)
    digest = Digest.of(content)
    path = part(tmp_path, digest)
    keep = max(0, size - (1 << 20))
    path.write_bytes(content[:keep] + bytes(size - keep))
    before_boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - 3600
    os.utime(path, (before_boot, before_boot))
    lead, (offset, _, _) = await resumed(store, digest)
    assert offset == keep
    await fill(lead, content)
    await lead.close(discard=False)
    assert store.files.path(digest)


async def test_a_part_of_this_boot_keeps_its_tail(store, tmp_path):
    part(tmp_path).write_bytes(CONTENT[:6])
    lead, (offset, _, _) = await resumed(store)
    assert offset == 6
    await lead.close(discard=True)


@pytest.mark.parametrize("by", ["claim", "look"])
async def test_a_claim_that_fails_holds_no_lock(store, tmp_path, by):
    """Else everybody would follow, for as long as this process lives, a leader that does not exist."""
    follow = None
    if by == "look":
        lead, follow = claim(store), claim(store)
        await lead.close(discard=False)
    part(tmp_path).write_bytes(CONTENT[:6])
    part(tmp_path, end="note").mkdir()
    with pytest.raises(OSError, match="directory"):
        claim(store) if follow is None else follow.look(nobody_said_anything)
    if follow is not None:
        follow.close()
    part(tmp_path, end="note").rmdir()
    try:
        lead = claim(store)
        assert isinstance(lead, Leading)
        await lead.close(discard=True)
    finally:
        for name in os.listdir("/proc/self/fd"):  # what was left open is what this test is about
            if os.path.exists(f"/proc/self/fd/{name}") and os.readlink(f"/proc/self/fd/{name}") == str(part(tmp_path)):
                os.close(int(name))


async def test_a_digest_that_does_not_match_is_not_published(store, tmp_path, catalogue):
    lead = claim(store)
    lead.announce(10)
    await lead.write(b"9876543210")
    assert not await lead.seal()
    assert lead.offset == 9
    await lead.close(discard=False)
    assert store.open(DIGEST) is None
    assert catalogue.sums() == (0, 0)


# Finished files


async def test_an_open_blob_outlives_its_name(store, tmp_path):
    lead = claim(store)
    await fill(lead)
    await lead.close(discard=False)
    done = store.open(DIGEST)
    os.unlink(tmp_path / "data" / "blobs" / DIGEST.path)
    assert os.pread(done.fd, 20, 0) == CONTENT
    assert not store.files.is_at(DIGEST, done.fd)
    done.close()
    done.close()
    assert store.open(DIGEST) is None


# The race


def test_eight_processes_commit_each_digest_once(tmp_path, catalogue):
    count = 100
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.unit.racer", str(tmp_path), str(count), str(seed)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(8)
    ]
    try:
        for process in racers:
            assert process.stdout.readline() == "ready\n"
        for process in racers:
            process.stdin.write("go\n")
            process.stdin.flush()
        committed = [line for process in racers for line in process.communicate(timeout=30)[0].split()]
    finally:
        for process in racers:
            if process.poll() is None:
                process.kill()
                process.communicate()
    assert [process.returncode for process in racers] == [0] * 8
    contents = [racer.content(number) for number in range(count)]
    assert sorted(map(int, committed)) == list(range(count))
    assert catalogue.sums()[1] == count
    assert os.listdir(tmp_path / "ingest") == []
    for content in contents:
        assert (tmp_path / "blobs" / Digest.of(content).path).read_bytes() == content
