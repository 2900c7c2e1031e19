"""Power cuts, kills, spoilt databases, other versions: what the next start serves is right, and it starts.

What is simulated is in tests/power.py; kills at every single step are in tests/unit/test_kill.py.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.fakes.faults import Hangup
from tests.power import committed, cuts, left
from tests.real.processes import program
from tests.support import MIB, blob_path, crowd, finished, get, kept, noise, quick, spread, until

HALF = MIB // 2


def config(far, **keys):
    return quick(far.url, **keys) | {"cache": {"min_free": "0B", "scrub_bandwidth": ""}}


def sound(server):
    """How many finished files there are, all of them what their names say."""
    count = 0
    for folder, _, names in os.walk(server.data / "blobs"):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                assert hashlib.file_digest(file, os.path.relpath(folder, server.data / "blobs")[:6]).hexdigest() == name
            count += 1
    return count


# The order of what is asked of the disk


@pytest.mark.real("strace")
def test_the_order_of_a_commit_in_a_real_worker(tidegate, far, tmp_path):
    content = noise(2 * MIB, 1)
    digest = far.add_blob("pause", content)
    server = tidegate(config(far), workers=1)
    (worker,) = server.worker_pids()
    trace = tmp_path / "trace"
    calls = "trace=fsync,fdatasync,rename,renameat,renameat2,write,pwrite64,pwritev,pwritev2,unlink,fchmod"
    tracer = subprocess.Popen(
        [program("strace"), "-f", "-y", "-s", "0", "-e", calls, "-o", trace, "-p", str(worker)],
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: "TracerPid:\t0" not in Path(f"/proc/{worker}/status").read_text())
        assert get(server, blob_path("pause", digest)).is_blob(content)
        kept(server, digest)
        until(lambda: f'unlink("{server.data}/ingest' in trace.read_text())
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
    lines = trace.read_text().splitlines()
    stem = digest.replace(":", "-")

    def all_of(pattern):
        found = [number for number, line in enumerate(lines) if re.search(pattern, line)]
        assert found, pattern
        return found

    def last(pattern, before):
        return max(number for number in all_of(pattern) if number < before)

    (renamed,) = all_of(rf"rename\(.*{stem}\.part")
    synced = last(rf"fsync\(\d+<.*{stem}\.part>", renamed)
    written = all_of(rf"pwrite(64|v|v2)\(\d+<.*{stem}\.part>")
    assert written[-1] < synced, "the last byte is synced too"
    row = last(r"(pwrite64|write)\(\d+<.*catalogue\.db-wal>", renamed)
    assert synced < row < renamed, "the file, then its row, then its name"
    folder = re.escape(str(finished(server, digest).parent))
    (named,) = all_of(rf"fsync\(\d+<{folder}>")
    (noted,) = all_of(rf"unlink\(.*{stem}\.note")
    assert renamed < named < noted, "what would be needed again goes when the name is durable"


# What a power cut leaves


def test_every_state_that_a_power_cut_can_leave(tidegate, far, tmp_path):
    """One blob for every state: all of them lie in one data folder, and one start has to make the best of it."""
    model = committed(tmp_path / "model", noise(3 * HALF, "model"))
    assert [op.kind for op in model][-4:] == ["sync", "rename", "sync", "unlink"]
    server = tidegate(config(far), workers=1)
    server.kill()
    contents = []
    for number, cut in enumerate(cuts(model)):
        content = noise(3 * HALF, number)
        tree = left(committed(tmp_path / f"run{number}", content), cut)
        contents.append((content, cut, tree))
        for path, data in tree.items():
            place = server.data / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
            os.utime(place, (1, 1))  # of an earlier boot
    assert len(contents) >= 10
    again = tidegate(config(far), workers=4)
    paths = [blob_path("pause", far.add_blob("pause", content)) for content, _, _ in contents]
    with spread(again, 8) as clients:
        for (content, cut, tree), path in zip(contents, paths, strict=True):
            answers = crowd(clients, path)
            for answer in answers:
                assert answer.is_blob(content) or not answer.whole or answer.status == 503, (cut, answer)
            until(lambda content=content, path=path: get(again, path).is_blob(content))
            if any(name.startswith("blobs/") for name in tree):
                assert far.count("GET", path) == 0, "what has its name is here"
    for path in paths:
        kept(again, path.rpartition("/")[2])
    assert sound(again) == len(contents)
    until(lambda: again.metrics().total("tidegate_cache_objects") == len(contents))
    until(lambda: os.listdir(again.data / "ingest") == [])
    assert "Traceback" not in again.stderr


# Databases that are lost or spoilt


def pulled(far, server):
    """An image pulled whole; what to ask for, and the right answers."""
    made = far.add_image("pause", "3.9", noise(MIB, 1))
    document = json.loads(made.manifest)
    digest = get(server, "/v2/pause/manifests/3.9").headers["Docker-Content-Digest"]
    asked = {"/v2/pause/manifests/3.9": made.manifest, f"/v2/pause/manifests/{digest}": made.manifest}
    for entry in (document["config"], *document["layers"]):
        path = blob_path("pause", entry["digest"])
        asked[path] = get(server, path).body
        kept(server, entry["digest"])
    assert len(asked) == 4
    return asked


def cut_wal(folder, name, keep):
    wal = folder / f"{name}-wal"
    size = wal.stat().st_size if wal.exists() else 0
    if size:
        os.truncate(wal, int(size * keep))


def zero_tail(folder, name):
    path = folder / (f"{name}-wal" if (folder / f"{name}-wal").exists() else name)
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))


def overwrite(folder, name):
    (folder / name).write_bytes(b"SQLite format 3\0" + b"\xff" * 20_000)
    (folder / f"{name}-wal").write_bytes(b"")


SPOILT = {
    "gone": lambda folder, name: shutil.rmtree(folder),
    "empty": lambda folder, name: [path.write_bytes(b"") for path in folder.iterdir()],
    "no database": lambda folder, name: (folder / name).write_bytes(b"no database at all" * 1000),
    "overwritten": overwrite,
    "wal lost": lambda folder, name: cut_wal(folder, name, 0),
    "wal torn": lambda folder, name: cut_wal(folder, name, 0.55),
    "zeros": zero_tail,
}


@pytest.mark.parametrize("how", SPOILT)
def test_spoilt_while_nothing_runs(tidegate, far, how):
    server = tidegate(config(far), workers=2)
    asked = pulled(far, server)
    server.kill()
    SPOILT[how](server.data / "index", "cache.db")
    SPOILT[how](server.data / "catalogue", "catalogue.db")
    again = tidegate(config(far), workers=2)
    for _ in range(2):
        for path, content in asked.items():
            assert get(again, path).is_blob(content), path
    until(lambda: again.metrics().total("tidegate_cache_objects") == 3, 70)
    assert far.count("GET", "/blobs/") == 2, "files that are here are not fetched again"
    assert "Traceback" not in again.stderr
    assert "is damaged" not in again.stderr or "set aside" in again.stderr


@pytest.mark.parametrize("how", ["gone", "no database", "overwritten", "zeros"])
def test_spoilt_while_it_runs(tidegate, far, how):
    server = tidegate(config(far), workers=3)
    asked = pulled(far, server)
    for folder, name in (("index", "cache.db"), ("catalogue", "catalogue.db")):
        database = sqlite3.connect(server.data / folder / name, timeout=10)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        SPOILT[how](server.data / folder, name)
    deadline, number = time.monotonic() + 4, 0
    with spread(server, 3) as clients:
        while time.monotonic() < deadline:
            number += 1
            fresh = noise(1000, number)
            path = blob_path("pause", far.add_blob("pause", fresh))
            for each in clients:
                for wanted, content in (*asked.items(), (path, fresh)):
                    answer = each.get(wanted)
                    assert answer.is_blob(content), (wanted, answer)
            time.sleep(0.2)
            assert get(server, "/metrics").status == 200
    assert "died" not in server.stderr
    assert "Traceback" not in server.stderr
    for folder, name in (("index", "cache.db"), ("catalogue", "catalogue.db")):
        database = sqlite3.connect(server.data / folder / name, timeout=10)
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
        database.close()
    path = blob_path("pause", far.add_blob("pause", noise(1000, "last")))
    assert get(server, path).status == 200
    kept(server, path.rpartition("/")[2])
    assert get(server, path).status == 200
    assert far.count("GET", path) == 1, "what is fetched is kept again"


# Another version


def test_back_from_a_later_version(tidegate, far, tmp_path):
    server = tidegate(config(far), workers=2)
    asked = pulled(far, server)
    assert server.stop() == 0
    for folder, name in (("index", "cache.db"), ("catalogue", "catalogue.db")):
        database = sqlite3.connect(server.data / folder / name)
        (version,) = database.execute("PRAGMA user_version").fetchone()
        assert version > 0
        database.execute("CREATE TABLE of_tomorrow (a, b)")
        database.execute(f"PRAGMA user_version = {version + 1}")
        database.close()
    far.fault("/v2/", Hangup())
    back = tidegate(config(far), workers=2)
    assert "the index could not be read (version 2, and this reads 1): set aside as" in back.stderr
    assert "the catalogue could not be read (version 2, and this reads 1): set aside as" in back.stderr
    digests = {path: content for path, content in asked.items() if "sha256:" in path}
    for path, content in digests.items():
        assert get(back, path).is_blob(content), "by digest, though the upstream is away"
        head = get(back, path, method="HEAD")
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(content)))
    manifest = next(path for path in digests if "/manifests/" in path)
    assert get(back, manifest).headers["Content-Type"].startswith("application/vnd.")
    assert get(back, manifest.replace("manifests", "blobs")).status != 200
    layer = next(path for path in digests if "/blobs/" in path)
    assert get(back, layer.replace("blobs", "manifests")).status == 503
    far.rules.clear()
    until(lambda: get(back, "/v2/pause/manifests/3.9").status == 200, 40)
    assert far.count("GET", "/blobs/") == 2


def test_a_tag_outlives_the_index(tidegate, far):
    server = tidegate(config(far), workers=1)
    asked = pulled(far, server)
    assert server.stop() == 0
    shutil.rmtree(server.data / "index")
    far.fault("/v2/", Hangup())
    again = tidegate(config(far), workers=1)
    answer = get(again, "/v2/pause/manifests/3.9")
    assert answer.is_blob(asked["/v2/pause/manifests/3.9"])
    assert "stale" in answer.headers["Warning"]


def test_what_came_with_credentials_is_not_shown_by_its_file(tidegate, far):
    """An index that is lost permits nothing: the mark on the file is for what was everybody's."""
    content = noise(MIB, 9)
    path = blob_path("team/app", digest := far.add_blob("team/app", content))
    private = config(far, username="team", password="secret")
    server = tidegate(private, workers=1)
    assert get(server, path).is_blob(content)
    kept(server, digest)
    assert server.stop() == 0
    shutil.rmtree(server.data / "index")
    far.fault("/v2/", Hangup())
    for settings in (private, config(far)):
        again = tidegate(settings, workers=1)
        assert get(again, path).status == 503
        assert again.stop() == 0
