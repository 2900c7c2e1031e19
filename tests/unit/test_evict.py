"""The janitor over a real store: what goes, what stays whatever happens, and what the books say afterwards."""

import asyncio
import logging
import os

import pytest

from proxy.care import census, plan
from proxy.care.evict import Janitor
from proxy.care.pins import Pins
from proxy.care.plan import Limits
from proxy.oci.digest import Digest
from proxy.registry.content import keep_content
from proxy.store.catalogue import Held
from proxy.store.lock import hold

SIZE = 64 << 10
DAY = 86400.0


class World:
    """A store with a janitor, a limit that can be changed, and blobs of 64 KiB that are as old as a test wants."""

    def __init__(self, tmp_path, store, catalogue):
        self.data = tmp_path / "data"
        (self.data / "run").mkdir()
        self.store, self.catalogue = store, catalogue
        self.limit = 10**15
        self.pins = Pins(str(self.data / "pins"))
        limits = lambda total: Limits(self.limit, 0)  # noqa: E731
        self.janitor = Janitor(str(self.data), store, catalogue, self.pins, limits)

    async def keep(self, seed, days=0.0):
        content = bytes([seed]) * SIZE
        digest = Digest.of(content)
        await keep_content(self.store, digest, content)
        row = self.catalogue.get(str(digest))
        self.catalogue.remove([row])
        self.catalogue.take_in([Held(row.digest, row.size, row.used - days * DAY)])
        return digest

    def here(self, *digests):
        return [self.store.files.has(digest) for digest in digests]

    def pin(self, *digests):
        blobs = ", ".join(f'"{digest}": {SIZE}' for digest in digests)
        (self.data / "pins" / "set.json").write_text(f'{{"images": [{{"blobs": {{{blobs}}}}}]}}')


@pytest.fixture
def world(tmp_path, store, catalogue):
    return World(tmp_path, store, catalogue)


async def test_below_the_limit_nothing_goes(world):
    kept = [await world.keep(seed, days=seed) for seed in range(5)]
    assert await world.janitor.make_room()
    assert all(world.here(*kept))


async def test_the_least_lately_used_go_down_to_the_low_mark(world):
    kept = [await world.keep(seed, days=10 - seed) for seed in range(10)]
    world.limit = 9 * SIZE + SIZE // 2
    assert await world.janitor.make_room()
    assert world.here(*kept) == [False] + [True] * 9
    assert world.catalogue.sums() == (9 * SIZE, 9)
    assert not os.path.exists(world.store.files.path(kept[0]))


async def test_room_is_made_for_what_is_coming(world):
    kept = [await world.keep(seed, days=10 - seed) for seed in range(10)]
    world.limit = 10 * SIZE
    assert await world.janitor.make_room(3 * SIZE)
    assert world.here(*kept)[:3] == [False] * 3
    assert world.catalogue.sums()[0] + 3 * SIZE <= world.limit


async def test_what_cannot_fit_is_told(world):
    await world.keep(1, days=1)
    world.limit = 2 * SIZE
    assert not await world.janitor.make_room(3 * SIZE)


async def test_what_is_read_stays_until_it_is_read(world):
    first, second = await world.keep(1, days=2), await world.keep(2, days=1)
    reading = world.store.open(first)
    world.limit = SIZE
    await world.janitor.make_room()
    assert world.here(first, second) == [True, False]
    reading.close()
    world.limit = 0
    await world.janitor.make_room()
    assert world.here(first) == [False]


async def test_what_is_pinned_stays(world):
    first, second = await world.keep(1, days=2), await world.keep(2, days=1)
    world.pin(first)
    world.limit = 0
    assert not await world.janitor.make_room()
    assert world.here(first, second) == [True, False]
    assert (await asyncio.to_thread(world.janitor.space)).pinned == SIZE


async def test_pins_are_read_again_right_before(world, monkeypatch):
    """A pin that is written while a pass runs holds."""
    first, second = await world.keep(1, days=2), await world.keep(2, days=1)
    world.limit = 0
    really = world.catalogue.lowest_first

    def pinned_meanwhile():
        rows = list(really())
        world.pin(second)
        yield from rows

    monkeypatch.setattr(world.catalogue, "lowest_first", pinned_meanwhile)
    await world.janitor.make_room()
    assert world.here(first, second) == [False, True]


async def test_a_pin_that_is_still_to_come_takes_no_room_from_what_may_go(world):
    old = await world.keep(1, days=1)
    coming = Digest.of(b"coming")
    world.pin(coming)
    assert (await asyncio.to_thread(world.janitor.space)).pinned == 0
    world.limit = SIZE
    assert await world.janitor.make_room(SIZE)
    assert world.here(old) == [False]
    await keep_content(world.store, coming, b"coming")
    assert (await asyncio.to_thread(world.janitor.space)).pinned == world.catalogue.sums()[0]


async def test_after_settling_no_pass_is_left_that_does_not_know_a_pin(world):
    await world.keep(1, days=1)
    passing = hold(str(world.data / "run" / "janitor.lock"))
    settling = asyncio.create_task(world.janitor.settle())
    await asyncio.sleep(0.05)
    assert not settling.done()
    passing.release()
    await asyncio.wait_for(settling, 5)


async def test_what_somebody_wants_gone_goes_whatever_its_age_but_never_a_pin_or_what_is_read(world):
    young, pinned, read = await world.keep(1), await world.keep(2, days=1), await world.keep(3, days=1)
    world.pin(pinned)
    reading = world.store.open(read)
    gone, left = await world.janitor.take_out(map(str, (young, pinned, read, Digest.of(b"nowhere"))))
    reading.close()
    assert ([row.digest for row in gone], left) == ([str(young)], [str(read)])
    assert world.here(young, pinned, read) == [False, True, True]
    assert world.catalogue.sums() == (2 * SIZE, 2)


async def test_pins_that_cannot_be_read_stop_all_eviction(world):
    digest = await world.keep(1, days=1)
    (world.data / "pins" / "set.json").write_text("{broken")
    world.limit = 0
    with pytest.raises(OSError, match="cannot be read as a set of pins"):
        await world.janitor.make_room()
    assert world.here(digest) == [True]


async def test_what_was_used_within_the_minute_stays(world):
    old, young = await world.keep(1, days=1), await world.keep(2)
    world.limit = 0
    await world.janitor.make_room()
    assert world.here(old, young) == [False, True]


async def test_a_use_that_is_not_yet_written_down_counts(world):
    digest = await world.keep(1, days=1)
    world.catalogue.touch(str(digest))
    world.limit = 0
    await world.janitor.make_room()
    assert world.here(digest) == [True]


async def test_a_row_without_a_file_is_forgotten(world):
    digest = await world.keep(1, days=1)
    os.unlink(world.store.files.path(digest))
    world.limit = 0
    await world.janitor.make_room()
    assert world.catalogue.sums() == (0, 0)


async def test_two_who_need_room_make_it_once(world):
    kept = [await world.keep(seed, days=10 - seed) for seed in range(10)]
    world.limit = 10 * SIZE
    assert all(await asyncio.gather(*(world.janitor.make_room(SIZE) for _ in range(5))))
    assert world.here(*kept).count(False) == 2, "one for what is coming, half a blob more for the low mark"


async def test_leftover_parts_count_as_bytes_on_the_way_to_the_limit(world):
    digest = await world.keep(1, days=1)
    with open(world.store.parts.path("sha256-" + "a" * 64 + ".part"), "wb") as file:
        file.write(bytes(SIZE))
    world.limit = SIZE + SIZE // 2
    await world.janitor.make_room()
    assert world.here(digest) == [False]


# Files and rows brought together


async def test_files_without_rows_are_counted_and_rows_without_files_go(world, caplog):
    caplog.set_level(logging.INFO)
    digests = [await world.keep(seed, days=1) for seed in range(3)]
    os.utime(world.store.files.path(digests[0]), (5000.0, 5000.0))
    world.catalogue.remove([world.catalogue.get(str(digest)) for digest in digests[:2]])
    os.unlink(world.store.files.path(digests[2]))
    (world.data / "blobs" / "sha256" / "ab").mkdir(exist_ok=True)
    (world.data / "blobs" / "sha256" / "ab" / "README").write_text("not ours")
    await asyncio.to_thread(census.count, world.store.files, world.catalogue)
    assert world.catalogue.sums() == (2 * SIZE, 2)
    assert world.catalogue.get(str(digests[0])).used == 5000.0
    assert world.catalogue.get(str(digests[2])) is None


def test_a_young_row_may_wait_for_its_file(world):
    digest = str(Digest.of(b"on its way"))
    world.catalogue.add(digest, SIZE)
    census.count(world.store.files, world.catalogue)
    assert world.catalogue.get(digest) is not None


def test_the_census_of_nothing(world):
    census.count(world.store.files, world.catalogue)
    assert world.catalogue.sums() == (0, 0)


def test_the_product_evicts_by_last_use():
    assert plan.rank(5.0, 100, 7) == 5.0
