"""What rots on disk is found, taken out and fetched again: by the scrub, in the background, and by whoever opens it."""

import json
import os
import sqlite3
import subprocess
import sys
import time

import pytest

from tests.fakes.faults import Status
from tests.real.tidegate import ROOT
from tests.support import MIB, blob_path, finished, get, kept, noise, quick, until

CORRUPT = "tidegate_corrupt_blobs_total"
SCRUBBED = "tidegate_scrub_blobs_total"


@pytest.fixture
def scrub():
    """scrub(server, *options): exit status, standard output and error of the command."""

    def run(server, *options):
        done = subprocess.run(
            [sys.executable, "-m", "proxy", "scrub", "--data", str(server.data), *options],
            capture_output=True, text=True, timeout=60, cwd=ROOT,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


def config(far, **keys):
    return quick(far.url) | {"cache": {"min_free": "0B", "scrub_bandwidth": "", **keys}}


def image(far, server, size=MIB):
    """An image pulled whole: the digests of its manifest, config and layers, the manifest last."""
    made = far.add_image("pause", "3.9", noise(size, 1), noise(size, 2))
    assert get(server, "/v2/pause/manifests/3.9").status == 200
    document = json.loads(made.manifest)
    blobs = [document["config"]["digest"], *(layer["digest"] for layer in document["layers"])]
    for digest in blobs:
        assert get(server, blob_path("pause", digest)).status == 200
        kept(server, digest)
    manifest = get(server, "/v2/pause/manifests/3.9", method="HEAD").headers["Docker-Content-Digest"]
    return [*blobs, manifest]


def spoil(server, digest, at=0):
    """One bit flips, as disks do it: no time changes, no size."""
    path = finished(server, digest)
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def cut(server, digest, size):
    path = finished(server, digest)
    path.chmod(0o644)
    os.truncate(path, size)


def quarantined(server):
    folder = server.data / "quarantine"
    return sorted(os.listdir(folder)) if folder.exists() else []


def test_a_sound_store(tidegate, far, scrub):
    server = tidegate(config(far), workers=2)
    blobs = image(far, server)
    status, output, errors = scrub(server)
    assert (status, errors) == (0, "")
    assert f"{len(blobs)} blobs, " in output
    assert ", 0 bad" in output
    assert server.metrics().total(SCRUBBED, result="ok") == len(blobs)
    assert server.metrics().total(CORRUPT) == 0
    assert quarantined(server) == []


def test_bad_ones_are_taken_out_and_fetched_again(tidegate, far, scrub):
    server = tidegate(config(far), workers=2)
    blobs = image(far, server)
    right = {digest: finished(server, digest).read_bytes() for digest in blobs}
    _, layer, other, manifest = blobs
    spoil(server, layer, 700_000)
    spoil(server, manifest)
    cut(server, other, MIB // 2)
    status, output, _ = scrub(server)
    assert status == 1
    assert ", 3 bad" in output
    assert "3 fetched again now" in output
    assert sorted(line for line in output.splitlines() if line.startswith("bad: ")) == sorted(
        f"bad: {digest}" for digest in (layer, other, manifest)
    )
    for digest in blobs:
        assert kept(server, digest) == right[digest]
    assert quarantined(server) == sorted(digest.replace(":", "-") for digest in (layer, other, manifest))
    assert server.metrics().total(CORRUPT) == 3
    assert server.metrics().total(SCRUBBED, result="bad") == 3
    assert f"blob {layer}" in server.stderr
    books = sqlite3.connect(server.data / "catalogue" / "catalogue.db")
    assert {row[0] for row in books.execute("SELECT digest FROM objects")} == set(blobs)
    books.close()
    status, output, _ = scrub(server, "--full", "--json")
    assert status == 0
    assert json.loads(output)["checked"] == len(blobs)


def test_a_whole_image_is_put_together_again(tidegate, far, scrub):
    """The manifest that says which layers are needed is among what is bad, wherever its digest stands."""
    server = tidegate(config(far), workers=1)
    blobs = image(far, server, 10_000)
    for digest in blobs:
        spoil(server, digest)
    status, output, _ = scrub(server)
    assert status == 1
    assert "4 fetched again now" in output
    for digest in blobs:
        kept(server, digest)


def test_what_cannot_be_fetched_now_is_told_and_fetched_when_the_upstream_is_back(tidegate, far, scrub):
    server = tidegate(config(far), workers=1)
    _, layer, *_ = image(far, server)
    spoil(server, layer)
    far.fault(layer, Status(503))
    status, output, _ = scrub(server)
    assert status == 1
    assert f"missing and needed: {layer}" in output
    far.rules.clear()
    until(lambda: "missing" not in scrub(server)[1], 30)  # a refusal is remembered for a moment
    assert kept(server, layer) == noise(MIB, 1)


def test_the_background_finds_it_too_and_remembers_that_it_was_through(tidegate, far):
    server = tidegate(config(far), workers=2)
    _, layer, *_ = image(far, server)
    spoil(server, layer)
    assert server.stop() == 0
    again = tidegate(config(far, scrub_bandwidth="64MiB"), workers=2)
    until(lambda: quarantined(again))
    until(lambda: finished(again, layer).exists())
    state = until(lambda: (found := json.loads((again.data / "care/scrub.json").read_text()))["finished"] and found)
    assert (state["checked"], state["bad"], state["lost"]) == (4, 1, [])
    assert again.stop() == 0
    third = tidegate(config(far, scrub_bandwidth="64MiB"), workers=1)
    time.sleep(0.5)
    assert third.metrics().total("tidegate_scrub_bytes_total") == 0, "a pass is due a day later"


def test_the_budget_is_kept_and_a_command_takes_over(tidegate, far, scrub):
    server = tidegate(config(far), workers=2)
    image(far, server, 3 * MIB)
    assert server.stop() == 0
    again = tidegate(config(far, scrub_bandwidth="1MiB"), workers=2)
    time.sleep(2)
    assert again.metrics().total("tidegate_scrub_bytes_total") <= 4 * MIB
    began = time.monotonic()
    status, output, errors = scrub(again)
    assert (status, errors) == (0, "")
    assert "4 blobs" in output, "what the one in the background has read counts"
    assert time.monotonic() - began < 3


def test_a_pass_that_was_cut_off_goes_on(tidegate, far, scrub):
    server = tidegate(config(far), workers=1)
    blobs = sorted(image(far, server))
    (server.data / "care").mkdir()
    half = {"began": time.time(), "after": blobs[1], "checked": 2, "bytes": 7, "bad": 0, "finished": 0.0, "lost": []}
    (server.data / "care/scrub.json").write_text(json.dumps(half))
    assert json.loads(scrub(server, "--json")[1])["checked"] == 4
    assert server.metrics().total(SCRUBBED) == 2
    assert json.loads(scrub(server, "--json", "--full")[1])["checked"] == 4
    assert server.metrics().total(SCRUBBED) == 6


def test_with_no_server_it_works_alone(tidegate, far, scrub):
    server = tidegate(config(far), workers=1)
    _, layer, *_ = image(far, server)
    assert server.stop() == 0
    spoil(server, layer)
    status, output, errors = scrub(server)
    assert status == 1
    assert "4 blobs" in output
    assert f"bad: {layer}" in output
    assert "Traceback" not in errors
    assert not finished(server, layer).exists()
    again = tidegate(config(far), workers=1)
    until(lambda: finished(again, layer).exists())


@pytest.mark.parametrize(
    "state", ["", "{", "[]", '{"after": 7, "lost": []}', '{"lost": ["x"]}', '{"bogus": 1, "lost": []}']
)
def test_a_state_that_cannot_be_read_is_a_new_pass(tidegate, far, scrub, state):
    server = tidegate(config(far), workers=1)
    image(far, server, 1000)
    assert server.stop() == 0
    (server.data / "care").mkdir(exist_ok=True)
    (server.data / "care/scrub.json").write_text(state)
    status, output, errors = scrub(server)
    assert (status, errors) == (0, "")
    assert "4 blobs" in output


# What is noticed when it is opened


@pytest.mark.parametrize("left", [0, 1, MIB - 1])
def test_a_blob_that_lost_its_end_is_fetched_again(tidegate, far, left):
    content = noise(MIB, left)
    path = blob_path("pause", digest := far.add_blob("pause", content))
    server = tidegate(config(far), workers=2)
    assert get(server, path).is_blob(content)
    kept(server, digest)
    cut(server, digest, left)
    assert get(server, path).is_blob(content)
    assert kept(server, digest) == content
    assert get(server, path).is_blob(content)
    assert far.count("GET", path) == 2
    assert server.metrics().total(CORRUPT) == 1


@pytest.mark.parametrize("how", ["cut", "spoilt"])
def test_a_manifest_that_is_not_itself_is_fetched_again(tidegate, far, how):
    made = far.add_image("pause", "3.9", b"layer")
    server = tidegate(config(far), workers=1)
    got = get(server, "/v2/pause/manifests/3.9")
    digest = got.headers["Docker-Content-Digest"]
    assert server.stop() == 0
    cut(server, digest, 10) if how == "cut" else spoil(server, digest)
    again = tidegate(config(far), workers=2)
    for _ in range(2):
        assert get(again, "/v2/pause/manifests/3.9").is_blob(made.manifest)
        assert get(again, f"/v2/pause/manifests/{digest}").is_blob(made.manifest)
    assert kept(again, digest) == made.manifest
    assert quarantined(again) == [digest.replace(":", "-")]


def test_a_wrong_size_in_a_row_costs_no_good_file(tidegate, far):
    content = noise(MIB, 5)
    path = blob_path("pause", digest := far.add_blob("pause", content))
    server = tidegate(config(far), workers=1)
    assert get(server, path).is_blob(content)
    kept(server, digest)
    index = sqlite3.connect(server.data / "index" / "cache.db", timeout=10)
    index.execute("UPDATE Cache SET value = '12' WHERE key = ?", (f"b:@{digest}",))
    index.commit()
    index.close()
    assert get(server, path).is_blob(content)
    assert get(server, path).is_blob(content)
    assert quarantined(server) == []
    assert far.count("GET", path) == 1
