"""One download per cold blob per machine, whoever asks, whoever dies: real workers, a counted upstream.

Which worker leads is read from the kernel's table of locks, so a test kills or stops exactly that one.
"""

import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes import CloseDelimited, Drip, Flip, NoLength
from tests.support import (
    CLIENTS,
    MIB,
    blob_path,
    crowd,
    finished,
    get,
    kept,
    leader,
    noise,
    part,
    quick,
    spread,
    stopped,
    until,
    written,
)

REPO = "pause"
SLOW = Drip(256 << 10, 0.05)  # 5 MiB/s: an 8 MiB blob takes 1.6 s


def cold(origin, size=8 * MIB, seed=0, **kind):
    """A blob nobody has asked for yet: content, digest, path."""
    content = noise(size, seed)
    digest = origin.add_blob(REPO, content, **kind)
    return content, digest, blob_path(REPO, digest)


def outsiders(clients, pid):
    return [each for each in clients if each.pid != pid]


@pytest.mark.parametrize("faults", [(), (NoLength(),), (CloseDelimited(),)], ids=["length", "chunked", "until close"])
def test_50_clients_of_4_workers_cost_one_download(tidegate, far, faults):
    content, digest, path = cold(far)
    if faults:
        far.fault(digest, *faults)
    server = tidegate(quick(far.url), workers=4)
    with spread(server, CLIENTS) as clients:
        answers = crowd(clients, path)
        assert all(got.is_blob(content) for got in answers)
    assert far.count() == far.count("GET", digest) == 1
    assert far.log.sent() == len(content)
    assert kept(server, digest) == content


def test_a_killed_leader_is_resumed_by_range_in_front_of_its_followers(tidegate, far):
    content, digest, path = cold(far)
    far.fault(digest, SLOW)
    server = tidegate(quick(far.url), workers=4)
    with spread(server, 12) as clients, ThreadPoolExecutor(12) as pool:
        running = [(each, pool.submit(each.get, path)) for each in clients]
        until(lambda: written(server, digest) > MIB)
        killed = leader(server, digest)
        os.kill(killed, signal.SIGKILL)
        answers = [(each, future.result()) for each, future in running]
    assert all(got.is_blob(content) for each, got in answers if each.pid != killed)
    assert not any(got.whole for each, got in answers if each.pid == killed)
    first, second = far.log
    assert "range" not in first.headers
    resumed = int(re.fullmatch(r"bytes=(\d+)-", second.headers["range"])[1])
    assert second.status == 206
    assert MIB < resumed < len(content)
    assert second.sent == len(content) - resumed
    assert kept(server, digest) == content


def test_followers_of_a_stopped_leader_end_and_all_is_well_afterwards(tidegate, far):
    content, digest, path = cold(far)
    far.fault(digest, SLOW)
    server = tidegate(quick(far.url), workers=4)
    with spread(server, 8) as clients, ThreadPoolExecutor(8) as pool:
        running = [(each, pool.submit(each.get, path)) for each in clients]
        until(lambda: written(server, digest) > MIB)
        frozen = leader(server, digest)
        with stopped(frozen):
            began = time.monotonic()
            followers = [future.result() for each, future in running if each.pid != frozen]
            assert time.monotonic() - began < 9  # stall_timeout, 5 s, and what a busy machine adds
            assert not any(got.whole and got.status == 200 for got in followers)
            late = outsiders(clients, frozen)[0].get(path)
            assert late.status in (0, 200, 503)
            assert not (late.whole and late.status == 200)
        until(lambda: finished(server, digest).exists())
    assert all(get(server, path).is_blob(content) for _ in range(4))
    assert all(got.is_blob(content) or not got.whole for _, future in running if (got := future.result()))


@pytest.mark.parametrize("survivors", [False, True], ids=["kill everything", "kill the supervisor alone"])
def test_a_fill_is_resumed_after_a_restart(tidegate, far, survivors):
    content, digest, path = cold(far)
    slow = far.fault(digest, SLOW)
    server = tidegate(quick(far.url), workers=2)
    with spread(server, 2) as clients, ThreadPoolExecutor(2) as pool:
        running = [pool.submit(each.get, path) for each in clients]
        until(lambda: written(server, digest) > MIB)
        if survivors:
            server.process.signal(signal.SIGKILL)
        else:
            server.kill()
        assert not any(future.result().is_blob(content) for future in running) or survivors
    far.rules.remove(slow)
    again = tidegate(quick(far.url), workers=2)
    assert get(again, path).is_blob(content)
    if far.count() > 1:  # with the supervisor alone gone, its workers may have finished first
        assert far.log[-1].headers["range"].startswith("bytes=")
        assert far.log[-1].status == 206
    assert far.count() <= 2
    assert kept(again, digest) == content


def test_a_flipped_byte_in_the_part_of_a_killed_fill_reaches_nobody(tidegate, far):
    content, digest, path = cold(far)
    slow = far.fault(digest, SLOW)
    server = tidegate(quick(far.url), workers=2)
    with spread(server, 1) as clients, ThreadPoolExecutor(1) as pool:
        running = pool.submit(clients[0].get, path)
        until(lambda: written(server, digest) > MIB)
        server.kill()
        running.result()
    far.rules.remove(slow)
    with part(server, digest).open("r+b") as file:
        file.seek(1000)
        file.write(bytes([content[1000] ^ 1]))
    again = tidegate(quick(far.url), workers=2)
    answers = [get(again, path) for _ in range(2)]
    assert all(got.is_blob(content) or not got.whole or got.status == 503 for got in answers)
    assert answers[-1].is_blob(content)
    assert [request.headers.get("range", "") != "" for request in far.log] == [False, True, False]
    assert kept(again, digest) == content


@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_a_wrong_byte_is_discarded_in_front_of_followers_in_three_processes(tidegate, far, again):
    content, digest, path = cold(far, 4 * MIB)
    far.fault(digest, Drip(256 << 10, 0.02), Flip(3 * MIB), times=None if again else 1)
    server = tidegate(quick(far.url), workers=4)
    with spread(server, 16) as clients:
        answers = crowd(clients, path)
    for got in answers:
        assert not (got.status == 200 and got.whole) or got.body == content
        assert got.status in (200, 503)
    until(lambda: far.count("GET", digest) == 2)  # the second try begins after the readers were cut off
    assert all("range" not in request.headers for request in far.log)
    if again:
        assert not finished(server, digest).exists()
        until(lambda: not part(server, digest).exists())
        refused = get(server, path)
        assert refused.status == 503
        assert "does not match" in refused.reason or "do not match" in refused.reason
        return
    until(lambda: finished(server, digest).exists())
    assert get(server, path).is_blob(content)
    assert far.count("GET", digest) == 2


def test_a_race_over_many_digests_downloads_each_once(tidegate, far):
    blobs = [cold(far, 3000 + number, number) for number in range(240)]
    server = tidegate(quick(far.url), workers=4)
    with spread(server, 12) as clients, ThreadPoolExecutor(12) as pool:

        def pull(one):
            return [one.get(path).is_blob(content) for content, _, path in blobs]

        assert all(all(right) for right in pool.map(pull, clients))
    assert far.count() == len(blobs)
    assert {far.count("GET", digest) for _, digest, _ in blobs} == {1}
    until(lambda: not list((server.data / "ingest").iterdir()))  # the last ones are verified, not yet durable


def test_a_fill_outlives_its_only_client(tidegate, far):
    content, digest, path = cold(far)
    far.fault(digest, SLOW)
    server = tidegate(quick(far.url), workers=2)
    with spread(server, 1) as (one,):
        one.start(path).read(1000)
        one.leave()
    until(lambda: finished(server, digest).exists())
    assert get(server, path).is_blob(content)
    assert far.count("GET", digest) == 1
