"""A cache that stays within its size: real workers, real pulls, and rows made older than a test can wait."""

import os
import sqlite3
import time

from tests.support import MIB, blob_path, get, kept, noise, quick, spread, until

SIZE = "tidegate_cache_size_bytes"
EVICTED = "tidegate_cache_evicted_bytes_total"


def blobs(far, count, size=MIB):
    """Paths and contents of blobs that differ."""
    contents = [noise(size, seed) for seed in range(count)]
    return [(blob_path("pause", far.add_blob("pause", content)), content) for content in contents]


def age(server, seconds=3600.0, spacing=1.0):
    """As if everything here had been used that long ago, in the order of its last use."""
    time.sleep(0.1)
    books = sqlite3.connect(server.data / "catalogue" / "catalogue.db", timeout=10)
    rows = [digest for (digest,) in books.execute("SELECT digest FROM objects ORDER BY rank")]
    for number, digest in enumerate(rows):
        used = time.time() - seconds + number * spacing
        books.execute("UPDATE objects SET used = ?, rank = ? WHERE digest = ?", (used, used, digest))
    books.commit()
    books.close()


def here(server):
    return {name for _, _, names in os.walk(server.data / "blobs") for name in names}


def cache(**keys):
    return {"cache": {"min_free": "0B", **keys}}


def test_the_cache_stays_within_max_size_and_what_went_is_fetched_again(tidegate, far):
    many = blobs(far, 16)
    server = tidegate(quick(far.url) | cache(max_size="10MiB"), workers=4)
    for path, content in many[:8]:
        assert get(server, path).is_blob(content)
    age(server)
    for path, content in many[8:]:
        assert get(server, path).is_blob(content)
        kept(server, path.rpartition("/")[2])
    until(lambda: (now := server.metrics()).total(EVICTED, reason="max_size") == 16 * MIB - now.total(SIZE))
    found = server.metrics()
    assert found.total(SIZE) <= 10 * MIB
    assert found.total(SIZE) == sum(MIB for _ in here(server))
    assert found.total(EVICTED, reason="max_size") == 16 * MIB - found.total(SIZE)
    assert found.total("tidegate_cache_limit_bytes") == 10 * MIB
    assert {path.rpartition(":")[2] for path, _ in many[8:]} <= here(server), "the least lately used went"
    asked = far.count()
    assert get(server, many[0][0]).is_blob(many[0][1])
    assert far.count() == asked + 1
    assert "evicted" in server.stderr


def test_what_was_used_stays_even_over_a_restart(tidegate, far, tmp_path):
    many = blobs(far, 6)
    config = quick(far.url) | cache(max_size="1GiB")
    server = tidegate(config, workers=2)
    for path, _ in many:
        get(server, path)
    age(server)
    assert get(server, many[0][0]).status == 200
    assert server.stop() == 0
    again = tidegate(quick(far.url) | cache(max_size="4MiB"), workers=2, data=server.data, folder=tmp_path / "again")
    until(lambda: len(here(again)) <= 4)
    assert many[0][0].rpartition(":")[2] in here(again)
    assert many[1][0].rpartition(":")[2] not in here(again)


def test_a_body_that_is_being_sent_is_sent_to_its_end(tidegate, far):
    many = blobs(far, 6, 4 * MIB)
    server = tidegate(quick(far.url) | cache(max_size="17MiB"), workers=2)
    for path, _ in many[:4]:
        get(server, path)
    age(server)
    with spread(server, 1) as (slow,):
        response = slow.start(many[0][0])
        body = response.read(1000)
        age(server)
        for path, content in many[4:]:
            assert get(server, path).is_blob(content)
        assert body + response.read() == many[0][1]
    assert server.metrics().total(SIZE) <= 17 * MIB


def test_many_workers_that_need_room_make_it_once(tidegate, far):
    many = blobs(far, 40)
    server = tidegate(quick(far.url) | cache(max_size="20MiB"), workers=4)
    for path, _ in many[:20]:
        get(server, path)
    age(server)
    with spread(server, 20) as clients:
        for one, (path, _) in zip(clients, many[20:], strict=True):
            one.send(path)
        until(lambda: len(here(server) & {path.rpartition(":")[2] for path, _ in many[20:]}) == 20)
    until(lambda: server.metrics().total(SIZE) == MIB * len(here(server)) <= 20 * MIB)


def test_an_unclean_stop_leaves_no_file_unaccounted(tidegate, far, tmp_path):
    (path, content), (other, _) = blobs(far, 2)
    config = quick(far.url)
    server = tidegate(config, workers=2)
    assert get(server, path).is_blob(content)
    assert get(server, other).status == 200
    for each in (path, other):
        kept(server, each.rpartition("/")[2])
    server.kill()
    books = sqlite3.connect(server.data / "catalogue" / "catalogue.db")
    books.execute("DELETE FROM objects WHERE digest = ?", (path.rpartition("/")[2],))
    books.commit()
    books.close()
    again = tidegate(config, workers=2, data=server.data, folder=tmp_path / "again")
    until(lambda: again.metrics().total("tidegate_cache_objects") == 2)
    assert again.stop() == 0
    assert not (server.data / "run" / "uncounted").exists()


def test_a_lost_catalogue_is_written_again_from_the_files(tidegate, far, tmp_path):
    (path, content), *_ = blobs(far, 1)
    config = quick(far.url)
    server = tidegate(config, workers=2)
    assert get(server, path).is_blob(content)
    assert server.stop() == 0
    (server.data / "catalogue" / "catalogue.db").write_bytes(b"no database" * 1000)
    again = tidegate(config, workers=2, data=server.data, folder=tmp_path / "again")
    assert "catalogue could not be read" in again.stderr
    until(lambda: again.metrics().total(SIZE) == MIB)
    asked = far.count()
    assert get(again, path).is_blob(content)
    assert far.count() == asked
