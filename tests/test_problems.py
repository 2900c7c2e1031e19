"""What went wrong, and how much a day brought: kept over kills and restarts, true for all workers."""

import os
import signal
import time

import pytest

from proxy.care import problems
from tests.fakes import Cut, Status
from tests.real.tidegate import upstream_config
from tests.support import MIB, blob_path, get, kept, noise, spread, until
from tests.test_status import REGISTRY, status


def known(server, **wanted):
    """Problems of the status that carry these values, once there is one."""

    def found():
        rows = status(server)[0]["problems"]
        return [row for row in rows if wanted.items() <= row.items()]

    return until(found)


def test_equal_problems_of_all_workers_are_one_row(tidegate, far):
    far.refusing = True
    server = tidegate(upstream_config(far.url), workers=3)
    with spread(server, 6) as clients:
        reasons = {each.get("/v2/pause/manifests/3.9?ns=registry.k8s.io&x=secret").reason for each in clients}
    [row] = until(lambda: [row for row in status(server)[0]["problems"] if row["count"] == 6])
    assert (row["client"], row["image"], row["status"]) == ("127.0.0.1", f"{REGISTRY}/pause:3.9", 503)
    assert row["upstream"] == REGISTRY
    assert row["first"] <= row["last"] <= time.time()
    assert all(f"tidegate: {row['sentence']}" == problems._WAITING.sub("", reason) for reason in reasons)
    assert "secret" not in str(row)
    assert get(server, "/v2/pause/manifests/other").status == 503
    known(server, image=f"{REGISTRY}/pause:other", count=1)


def test_what_is_everyday_is_no_problem(tidegate, far):
    image = far.add_image("pause", "3.9")
    server = tidegate(upstream_config(far.url), workers=1)
    assert get(server, "/v2/pause/manifests/nope").status == 404
    assert get(server, "/nothing").status == 404
    assert get(server, "/v2/pause/blobs/sha256:12").status == 400
    layer = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    assert get(server, blob_path("pause", layer), Range="bytes=99999999-").status == 416
    assert get(server, "/v2/pause/manifests/3.9?ns=nowhere.example").status == 403
    [row] = until(lambda: status(server)[0]["problems"])
    assert (row["status"], row["image"], row["upstream"]) == (403, "/v2/pause/manifests/3.9", "")


def test_a_body_that_was_cut_is_one(tidegate, far):
    digest = far.add_blob("pause", noise(2 * MIB))
    far.fault(digest, Cut(MIB), times=1)
    far.fault(digest, Status(404))
    server = tidegate(upstream_config(far.url), workers=2)
    got = get(server, blob_path("pause", digest))
    assert not got.whole
    [row] = known(server, image=f"{REGISTRY}/pause")
    assert (row["status"], row["client"]) == (200, "127.0.0.1")
    assert row["sentence"]


def test_problems_and_days_outlive_restarts(tidegate, far):
    image = far.add_image("pause", "3.9", noise(MIB))
    layer = max(image.blobs, key=lambda digest: len(image.blobs[digest]))
    server = tidegate(upstream_config(far.url), workers=2)
    pull = [f"/v2/pause/manifests/{image.digest}", blob_path("pause", layer)]
    size = len(image.manifest) + MIB
    for path in pull:
        assert get(server, path).status == 200
    kept(server, layer)
    assert get(server, "/v2/pause/manifests/3.9?ns=nowhere.example").status == 403
    known(server, status=403)
    server.kill()

    server = tidegate(upstream_config(far.url), workers=1)
    for path in pull:
        assert get(server, path).status == 200
    assert get(server, "/v2/pause/manifests/3.9?ns=nowhere.example").status == 403
    assert known(server, status=403)[0]["count"] == 2
    found = status(server)[0]
    assert (found["since_start"]["client_bytes"], found["since_start"]["upstream_bytes"]) == (size, 0)
    assert (found["since_start"]["request_hit_rate"], found["since_start"]["byte_hit_rate"]) == (1, 1)
    assert server.stop() == 0

    server = tidegate(upstream_config(far.url), workers=2)
    found = status(server)[0]
    assert found["since_start"]["client_bytes"] == 0
    assert found["since_start"]["request_hit_rate"] is None
    today = found["today"]
    assert found["days"][0] == today
    assert (today["client_bytes"], today["upstream_bytes"], today["saved_bytes"]) == (2 * size, size, size)
    assert (today["request_hit_rate"], today["byte_hit_rate"]) == (0.5, 0.5)
    assert {name: count for name, count in today["requests"].items() if count} == {"miss": 2, "hit": 2}


def test_a_killed_worker_loses_nothing_and_counts_nothing_twice(tidegate, far):
    image = far.add_image("pause", "3.9")
    server = tidegate(upstream_config(far.url), workers=2)
    path = f"/v2/pause/manifests/{image.digest}"
    asked = 0
    for _ in range(2):
        with spread(server, 4) as clients:
            assert all(each.get(path).status == 200 for each in clients)
        asked += 4
        old = server.worker_pids()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        until(lambda old=old: len(server.worker_pids()) == 2 and not {*old} & {*server.worker_pids()})
        until(lambda: status(server)[0])
    assert sum(status(server)[0]["today"]["requests"].values()) == asked


@pytest.mark.parametrize("count", [1, 60])
def test_only_the_last_fifty_are_kept(count):
    times = iter(range(1000))
    one, other = problems.Problems(lambda: next(times)), problems.Problems(lambda: next(times))
    for number in range(count):
        one.note("10.0.0.7", f"image{number}", "up", 503, "no (asked again in 7 s)\n\x1b[2J")
        other.note("10.0.0.8", f"image{number}", "up", 503, "no")
    shown = problems.merged([problems.read(one.rows()), problems.read(other.rows())])
    assert len(shown) == min(2 * count, 50)
    assert shown[0].last > shown[-1].last
    assert {each.sentence for each in shown} == {"no", "no??[2J"}
    again = problems.Problems(lambda: 5000)
    again.restore([*one.rows(), {"of": "another version"}])
    again.note("10.0.0.7", f"image{count - 1}", "up", 503, "no (asked again in 6 s)\n\x1b[2J")
    assert max(again.rows(), key=lambda row: row["last"])["count"] == 2
    nameless = problems.nameless(shown, ["up"])
    assert {each.client for each in nameless} == {""}
    assert problems.nameless(shown, []) == []
