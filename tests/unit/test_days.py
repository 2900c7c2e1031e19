"""care/days.py: counters that grow become totals of days, exactly, whatever is killed when.

Files are real, time is not.
"""

import json
import os

import pytest
from prometheus_client.mmap_dict import MmapedDict

from proxy.care import counted
from proxy.care.days import Days

NOON = 1_800_014_400.0  # 2027-01-15 12:00 UTC
DAY = 86400.0


def write(folder, slot, hits=0, misses=0, heads=0, sent=0, received=0, host="a.example"):
    """What a worker has counted so far."""
    folder.mkdir(exist_ok=True)
    file = MmapedDict(str(folder / f"counter_{slot}.db"))
    for result, method, count in (("hit", "GET", hits), ("bypass", "GET", misses), ("hit", "HEAD", heads)):
        labels = {"upstream": "up", "kind": "blob", "method": method, "result": result}
        file.write_value(json.dumps(["tidegate_requests", "tidegate_requests_total", labels, ""]), count, 0)
    labels = {"upstream": "up", "kind": "blob", "result": "hit"}
    file.write_value(json.dumps(["tidegate_client_bytes", "tidegate_client_bytes_total", labels, ""]), sent, 0)
    labels = {"upstream": "up", "host": host}
    file.write_value(json.dumps(["tidegate_upstream_bytes", "tidegate_upstream_bytes_total", labels, ""]), received, 0)
    file.write_value(json.dumps(["tidegate_pushed_bytes", "tidegate_pushed_bytes_total", {}, ""]), 1000, 0)
    file.close()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "metrics"
    made.mkdir()
    (made / "run").write_text("one")
    return made


@pytest.fixture
def now():
    return [NOON]


@pytest.fixture
def days(index, folder, now):
    return lambda: Days(index, str(folder), f"{folder}.last", lambda: now[0])


async def sums(days, most):
    rows = await days.shown(most)
    return {row["date"]: (sum(row["requests"].values()), row["client_bytes"], row["upstream_bytes"]) for row in rows}


async def test_all_workers_are_added_up_and_shown_before_they_are_written(days, folder):
    write(folder, 0, hits=3, misses=1, heads=2, sent=100, received=30)
    write(folder, 1, hits=1, sent=100, received=20, host="b.example")
    for _ in range(2):
        [today] = await days().shown(3)
        assert today["date"] == "2027-01-15"
        assert {name: count for name, count in today["requests"].items() if count} == {"hit": 6, "bypass": 1}
        assert (today["client_bytes"], today["upstream_bytes"], today["saved_bytes"]) == (200, 50, 150)
        assert (today["request_hit_rate"], today["byte_hit_rate"]) == (0.8, 0.75)
        await days().save()  # the second round reads what was written, by a worker that knows nothing of it


async def test_a_worker_killed_between_two_looks_loses_nothing(days, folder):
    for step in range(1, 4):
        write(folder, 0, hits=step, sent=10 * step)
        await days().save()
        await days().save()
    assert await sums(days(), 1) == {"2027-01-15": (3, 30, 0)}


async def test_midnight(days, folder, now):
    running = days()
    write(folder, 0, hits=1)
    await running.save()
    now[0] += DAY / 2 - 5
    await running.save()
    write(folder, 0, hits=3)
    now[0] += 5.1  # a second into the next day: what was counted since the last look was counted before
    await running.save()
    write(folder, 0, hits=7)
    await running.save()
    assert await sums(running, 9) == {"2027-01-16": (4, 0, 0), "2027-01-15": (3, 0, 0)}
    now[0] += 3 * DAY
    assert await sums(running, 9) == {"2027-01-19": (0, 0, 0), "2027-01-16": (4, 0, 0), "2027-01-15": (3, 0, 0)}
    assert await sums(running, 1) == {"2027-01-19": (0, 0, 0)}


async def test_the_run_before_is_taken_over_once(days, folder, now, tmp_path):
    write(folder, 0, hits=2)
    await days().save()
    write(folder, 0, hits=5)  # and everything is killed
    os.utime(folder / "counter_0.db", (NOON, NOON))
    last = tmp_path / "metrics.last"
    now[0] += 2 * DAY
    for kept in (True, False):
        if kept:
            os.rename(folder, last)
            folder.mkdir()
            (folder / "run").write_text("two")
            copy = {path.name: path.read_bytes() for path in last.iterdir()}
        else:  # killed before the folder was gone: it is there once more
            last.mkdir()
            for name, content in copy.items():
                (last / name).write_bytes(content)
        await days()._take_over()
        assert not last.exists()
        assert await sums(days(), 3) == {"2027-01-17": (0, 0, 0), "2027-01-15": (5, 0, 0)}
    write(folder, 0, hits=1)
    await days().save()
    assert await sums(days(), 3) == {"2027-01-17": (1, 0, 0), "2027-01-15": (5, 0, 0)}
    assert (await days().since_start())["requests.hit"] == 1


async def test_rows_of_others_count_nothing(days, index, folder):
    await index.put({"day:2027-01-15": '{"hits": -1, "client_bytes": "x", "requests.hit": true}', "day:seen": "[1]"})
    write(folder, 0, hits=1)
    await days().save()
    assert await sums(days(), 1) == {"2027-01-15": (1, 0, 0)}
    await index.put({"day:2027-01-15": "nothing", "day:seen": '{"run": "one", "counted": 7}'})
    assert await sums(days(), 1) == {"2027-01-15": (1, 0, 0)}


def test_files_that_are_torn_count_nothing(folder):
    write(folder, 0, hits=1)
    (folder / "counter_1.db").write_bytes(b"\x64\0\0\0" + b"\xff" * 200)
    assert counted.read(str(folder)) == {}
    assert counted.since({"hits": 1}, {"hits": 5}) == {}
