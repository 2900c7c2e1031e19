"""Upgrade day: what is pinned is fetched whole and stays, whatever else comes; listing, letting go, removing."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from tests import fakes
from tests.fakes.origin import OCI_INDEX, OCI_MANIFEST, descriptor
from tests.fakes.thread import origin_in_thread
from tests.real.disk import disk
from tests.real.tidegate import upstream_config
from tests.support import MIB, blob_path, finished, get, kept, leader, noise, quick, spread, until, written
from tests.test_eviction import age, blobs, cache, here

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAME = "registry.k8s.io"


def command(server, *words, stdin=""):
    """One command against this service: status, standard output, standard error."""
    done = subprocess.run(_line(server, *words), input=stdin, capture_output=True, text=True, timeout=60, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def _line(server, *words):
    return [sys.executable, "-m", "proxy", *words, "--data", str(server.data), "-c", os.devnull]


def pinned(server, *words, stdin=""):
    """A pin that ends well, as its document."""
    status, output, errors = command(server, "pin", *words, "--json", stdin=stdin)
    assert (status, errors) == (0, ""), output
    return json.loads(output)


def ls(server, *words):
    status, output, errors = command(server, "ls", *words, "--json")
    assert (status, errors) == (0, "")
    return json.loads(output)


def add_index(far, repo, tag, platforms, size=MIB // 4):
    """An index with one image a platform; {platform: digests of its manifest, config and layer}."""
    rows, digests = [], {}
    for platform in platforms:
        os_, _, architecture = platform.partition("/")
        layer = noise(size, f"{repo}{tag}{platform}")
        image = far.add_image(repo, f"part-{tag}-{architecture}", layer)
        del far.repos[repo].tags[image.tag]
        row = descriptor(OCI_MANIFEST, image.manifest)
        rows.append(row | {"platform": {"os": os_, "architecture": architecture}})
        digests[platform] = {image.digest, *image.blobs}
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": rows}
    return far.add_manifest(repo, tag, json.dumps(document).encode(), OCI_INDEX), digests


def names(*digests):
    return {digest.rpartition(":")[2] for digest in digests}


def sign(far, repo, digest):
    """What cosign leaves beside an image."""
    payload = b"signature of " + digest.encode()
    return far.add_image(repo, digest.replace(":", "-") + ".sig", payload)


# Pin


def test_a_pin_is_everything_an_image_is_made_of_and_what_was_said_of_it(tidegate, far):
    index, parts = add_index(far, "kube-proxy", "v1", ["linux/amd64", "linux/arm64"])
    signature = sign(far, "kube-proxy", index)
    sbom = far.add_image("kube-proxy", "tmp", b"sbom", subject=index)
    del far.repos["kube-proxy"].tags["tmp"]
    server = tidegate(quick(far.url), workers=2)
    end = pinned(server, f"{NAME}/kube-proxy:v1")
    wanted = {index, signature.digest, *signature.blobs, sbom.digest, *sbom.blobs}.union(*parts.values())
    assert names(*wanted) == here(server)
    assert end["missing"] == []
    assert [(row["image"], row["parts"], row["here"]) for row in end["images"]] == [
        (f"{NAME}/kube-proxy:v1", len(wanted), True)
    ]
    assert server.metrics().total("tidegate_pinned_bytes") == server.metrics().total("tidegate_cache_size_bytes")
    far.refusing = True
    assert get(server, f"/v2/kube-proxy/manifests/{signature.tag}").status == 200
    for digest in signature.blobs | sbom.blobs:
        assert get(server, blob_path("kube-proxy", digest)).status == 200


def test_only_the_chosen_platforms(tidegate, far):
    index, parts = add_index(far, "pause", "3", ["linux/amd64", "linux/arm64", "linux/s390x"])
    server = tidegate(quick(far.url), workers=2)
    pinned(server, "pause:3", "--platform", "linux/amd64,linux/s390x")
    assert here(server) == names(index, *parts["linux/amd64"], *parts["linux/s390x"])
    assert ls(server)[0]["complete"] is True
    status, output, _ = command(server, "pin", "pause:3", "--platform", "linux/ppc64le")
    assert status == 1
    assert "there is no linux/ppc64le of it; there are linux/amd64, linux/arm64, linux/s390x" in output
    status, output, errors = command(server, "pin", "pause:3", "--platform", "amd64")
    assert (status, output) == (2, "")
    assert errors == "'amd64' is not a platform such as linux/amd64 or linux/arm/v7\n"


def test_pins_stay_under_pressure_and_go_when_let_go(tidegate, far):
    image = far.add_image("pause", "3.9", noise(3 * MIB, "pin"))
    server = tidegate(quick(far.url) | cache(max_size="8MiB"), workers=4)
    pinned(server, "pause:3.9", "--set", "v1.31")
    age(server)
    for path, content in blobs(far, 12):
        assert get(server, path).is_blob(content)
        kept(server, path.rpartition("/")[2])
        age(server)
    until(lambda: server.metrics().total("tidegate_cache_size_bytes") <= 8 * MIB)
    assert names(image.digest, *image.blobs) <= here(server)
    assert command(server, "unpin", "--set", "v1.31")[:2] == (0, f"unpinned {NAME}/pause:3.9 from v1.31\n")
    assert not list((server.data / "pins").glob("*.json"))
    assert server.metrics().total("tidegate_pinned_bytes") == 0
    age(server)
    for path, content in blobs(far, 12):
        assert get(server, path).is_blob(content)
        kept(server, path.rpartition("/")[2])
        age(server)
    until(lambda: not names(*image.blobs) <= here(server))


def test_a_list_from_kubeadm_and_names_as_people_write_them(tidegate, far):
    far.add_image("pause", "3.9", b"pause")
    far.add_image("kube-apiserver", "v1.31.2", b"api")
    far.add_image("coredns/coredns", "v1.11.3", b"dns")
    server = tidegate(quick(far.url), workers=2)
    listed = f"{NAME}/kube-apiserver:v1.31.2\n{NAME}/coredns/coredns:v1.11.3\n\n# sandbox\nk8s.gcr.io/pause:3.9\n"
    end = pinned(server, "-", "pause:3.9", f"{server.host}/{NAME}/pause:3.9", stdin=listed)
    assert [row["image"] for row in end["images"]] == [
        f"{NAME}/coredns/coredns:v1.11.3",
        f"{NAME}/kube-apiserver:v1.31.2",
        f"{NAME}/pause:3.9",
    ]
    status, output, errors = command(server, "pin", "-", stdin="pause:3.9\nkube-apiserver\n")
    assert (status, output) == (2, "")
    assert (
        errors
        == "standard input: line 2 names no image: 'kube-apiserver'; write its tag too; see tidegate pin --help\n"
    )


def test_by_digest_and_a_tag_that_moves(tidegate, far):
    first = far.add_image("app", "1", b"first")
    server = tidegate(quick(far.url, tag_ttl="0s"), workers=2)
    pinned(server, "app:1", f"app:1@{first.digest}")
    second = far.add_image("app", "1", b"second")
    end = pinned(server, "app:1")
    assert [row["digest"] for row in end["images"]] == [second.digest]
    sets = json.loads((server.data / "pins" / "default.json").read_text())
    assert [(row["reference"], row["digest"]) for row in sets["images"]] == [
        (f"{NAME}/app:1@{first.digest}", first.digest),
        (f"{NAME}/app:1", second.digest),
    ]
    rows = {row["reference"]: row["pinned"] for row in ls(server)}
    assert rows == {"1": ["default"], first.digest: ["default"]}
    assert command(server, "unpin", f"app@{second.digest}")[1] == f"unpinned {NAME}/app:1 from default\n"


def test_cut_in_the_middle_the_next_run_completes(tidegate, far):
    layer = noise(4 * MIB, "cut")
    image = far.add_image("app", "1", layer, b"small")
    digest = next(name for name, content in image.blobs.items() if content == layer)
    rule = far.fault(f"blobs/{digest}", fakes.Cut(MIB), times=1)
    dead = far.fault(f"blobs/{digest}", fakes.Status(500))
    server = tidegate(quick(far.url), workers=2)
    status, output, errors = command(server, "pin", "app:1")
    assert (status, errors) == (1, "")
    assert f"missing  {NAME}/app:1 {digest}: " in output
    assert "the same command again goes on from there" in output
    assert [row["complete"] for row in ls(server, "--incomplete")] == [False]
    far.rules.remove(dead)
    assert rule.used == 1
    until(lambda: command(server, "pin", "app:1")[0] == 0, 20)
    assert finished(server, digest).read_bytes() == layer
    assert any(request.headers.get("range") for request in far.log if digest in request.path)
    assert ls(server, "--incomplete") == []


def test_an_image_there_is_not_fails_alone(tidegate, far):
    far.add_image("app", "1", b"here")
    server = tidegate(quick(far.url), workers=1)
    status, output, errors = command(server, "pin", "nothing:1", "elsewhere.example/x:1", "app:1")
    assert (status, errors) == (1, "")
    assert "missing  nothing:1: " in output
    assert "missing  elsewhere.example/x:1: elsewhere.example is none of the registries here" in output
    assert [row["reference"] for row in ls(server, "--pinned")] == ["1"]


def test_a_failing_signature_store_is_told(tidegate, far):
    image = far.add_image("app", "1", b"layer")
    far.fault(".att", fakes.Status(403))
    server = tidegate(quick(far.url), workers=1)
    status, output, _ = command(server, "pin", "app:1", "--json")
    assert status == 1
    assert [row["digest"] for row in json.loads(output)["missing"]] == [f"sha256-{image.digest[7:]}.att"]


def test_what_does_not_fit_is_refused_with_both_numbers(tidegate, far):
    far.add_image("small", "1", noise(2 * MIB, "small"))
    far.add_image("large", "1", noise(7 * MIB, "large"))
    server = tidegate(quick(far.url) | cache(max_size="8MiB"), workers=2)
    pinned(server, "small:1")
    asked = far.count(contains="/blobs/")
    status, _, errors = command(server, "pin", "large:1")
    assert status == 1
    assert errors.startswith("refused: 7.0 MiB more beside 2.0 MiB pinned already are ")
    assert "max_size is 8 MiB (8388608 bytes); nothing of it is pinned\n" in errors
    assert far.count(contains="/blobs/") == asked
    assert [row["repository"] for row in ls(server, "--pinned")] == [f"{NAME}/small"]


def test_a_limit_lowered_below_the_pins_starts_warns_and_evicts_all_else(tidegate, far, tmp_path):
    image = far.add_image("app", "1", noise(4 * MIB, "app"))
    server = tidegate(quick(far.url), workers=2)
    pinned(server, "app:1")
    others = blobs(far, 4)
    for path, _ in others:
        get(server, path)
        kept(server, path.rpartition("/")[2])
    age(server)
    assert server.stop() == 0
    again = tidegate(quick(far.url) | cache(max_size="2MiB"), workers=2, data=server.data, folder=tmp_path / "again")
    until(lambda: here(again) == names(image.digest, *image.blobs))
    until(lambda: "over the limits and nothing may be evicted" in again.stderr)
    size = int(again.metrics().total("tidegate_pinned_bytes"))
    assert f"{size} bytes cached, {size} of them pinned, max_size {2 * MIB}" in again.stderr
    assert get(again, "/v2/app/manifests/1").status == 200


def test_one_that_leaves_ends_the_work_and_keeps_what_is_there(tidegate, far):
    slow = noise(8 * MIB, "slow")
    image = far.add_image("app", "1", slow)
    digest = next(name for name, content in image.blobs.items() if content == slow)
    far.fault(f"blobs/{digest}", fakes.Drip(64 << 10, 0.05), times=1)
    server = tidegate(quick(far.url), workers=2)
    with begun(server, "app:1") as process:
        until(lambda: written(server, digest) > MIB)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 1
        assert process.stderr.read().strip() == ""
    assert (server.data / "pins" / "default.json").exists()
    assert pinned(server, "app:1")["missing"] == []
    assert "Traceback" not in server.stderr


@contextmanager
def begun(server, *words):
    """A pin under way."""
    process = subprocess.Popen(
        _line(server, "pin", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    with process, process.stdout, process.stderr:
        try:
            yield process
        finally:
            process.kill()


def test_a_service_that_is_to_stop_does_not_wait_for_a_pin(tidegate, far):
    layer = noise(8 * MIB, "stop")
    image = far.add_image("app", "1", layer)
    digest = next(name for name, content in image.blobs.items() if content == layer)
    far.fault(f"blobs/{digest}", fakes.Drip(64 << 10, 0.1))
    server = tidegate(quick(far.url), workers=2)
    with begun(server, "app:1") as process:
        until(lambda: written(server, digest) > MIB)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 6
        assert process.wait(10) == 1
        assert process.stderr.read() == f"the tidegate at {server.data} broke off; what it has done so far is kept\n"


@pytest.mark.real("mount")
def test_a_full_disk_is_told_and_the_next_run_completes(tidegate, far, tmp_path):
    image = far.add_image("app", "1", noise(4 * MIB, "one"), noise(4 * MIB, "two"))
    with disk(tmp_path / "disk", 40) as small:
        config = quick(far.url) | cache(max_size="30MiB")
        server = tidegate(config, data=small.path / "data", folder=tmp_path / "run", workers=2)
        assert get(server, "/v2/app/manifests/1").status == 200
        small.fill(leave=2 * MIB)
        began = time.monotonic()
        status, output, errors = command(server, "pin", "app:1")
        assert (status, errors) == (1, "")
        assert "cannot be kept" in output
        assert time.monotonic() - began < 15
        small.free()
        until(lambda: command(server, "pin", "app:1")[0] == 0, 30)
        assert names(image.digest, *image.blobs) == here(server)


def test_two_at_once_keep_both_and_never_pin_more_than_fits(tidegate, far):
    for name in ("a", "b", "c"):
        far.add_image(name, "1", noise(2 * MIB, name))
    server = tidegate(quick(far.url) | cache(max_size="5MiB"), workers=4)
    with begun(server, "a:1") as one, begun(server, "b:1") as two, begun(server, "c:1") as three:
        ends = [process.wait(30) for process in (one, two, three)]
    assert sorted(ends) == [0, 0, 1]
    assert len(ls(server, "--pinned")) == 2


def test_what_was_pinned_in_time_is_found_whole_when_the_way_out_is_closed(tidegate, far):
    index, _ = add_index(far, "app", "1", ["linux/amd64", "linux/arm64"])
    sign(far, "app", index)
    far.add_image("half", "1", b"half")
    server = tidegate(quick(far.url), workers=2)
    end = pinned(server, "app:1")
    sets = (server.data / "pins" / "default.json").read_text()
    assert get(server, "/v2/half/manifests/1").status == 200
    far.refusing = True
    assert pinned(server, "app:1") == end
    assert (server.data / "pins" / "default.json").read_text() == sets
    status, output, _ = command(server, "pin", "half:1")
    assert status == 1
    assert output.count("missing  ") == 6, "three signatures, the referrers, two blobs, no manifest"


def test_what_is_pinned_survives_pressure_while_it_is_fetched(tidegate, far):
    images = [far.add_image(name, "1", noise(MIB, name), noise(MIB, name * 2)) for name in ("a", "b")]
    far.fault("/a/blobs", fakes.Drip(64 << 10, 0.05))
    far.fault("/b/blobs", fakes.Drip(64 << 10, 0.05))
    server = tidegate(quick(far.url) | cache(max_size="6MiB"), workers=4)
    with begun(server, "a:1", "b:1") as process:
        until((server.data / "pins" / "default.json").exists)
        for path, content in blobs(far, 16):
            assert get(server, path).is_blob(content)
            age(server)
        assert process.wait(30) == 0
    age(server)
    until(lambda: server.metrics().total("tidegate_cache_size_bytes") <= 6 * MIB)
    assert all(names(image.digest, *image.blobs) <= here(server) for image in images)


def test_a_worker_that_dies_costs_the_command_and_nothing_else(tidegate, far):
    layer = noise(4 * MIB, "dies")
    image = far.add_image("app", "1", layer)
    digest = next(name for name, content in image.blobs.items() if content == layer)
    far.fault(f"blobs/{digest}", fakes.Drip(64 << 10, 0.05), times=1)
    server = tidegate(quick(far.url), workers=2)
    with begun(server, "app:1") as process:
        until(lambda: written(server, digest) > MIB)
        os.kill(leader(server, digest), signal.SIGKILL)
        assert process.wait(10) == 1
        assert process.stderr.read().count("\n") == 1
    assert pinned(server, "app:1")["missing"] == []
    assert sum(request.sent for request in far.log if digest in request.path) < 6 * MIB, "it was resumed"


def test_names_without_registry_belong_to_whoever_has_them(tidegate, far):
    with origin_in_thread() as other:
        other.add_image("library/tool", "1", b"tool")
        config = quick(far.url)
        config["upstreams"] |= upstream_config(other.url, "docker.io")["upstreams"]
        server = tidegate(config | {"server": {"unqualified": [NAME, "docker.io"]}}, workers=2)
        assert [row["image"] for row in pinned(server, "tool:1")["images"]] == ["docker.io/library/tool:1"]
        assert [row["image"] for row in pinned(server, "docker.io/tool:1")["images"]] == ["docker.io/library/tool:1"]
        assert [row["repository"] for row in ls(server, "docker.io")] == ["docker.io/library/tool"]
        assert command(server, "unpin", "tool:1")[1] == "unpinned docker.io/library/tool:1 from default\n"
        assert command(server, "rm", "tool:1")[0] == 0


def test_progress_is_plain_lines_in_a_pipe(tidegate, far):
    far.add_image("app", "1", noise(2 * MIB, "app"))
    server = tidegate(quick(far.url), workers=1)
    status, output, _ = command(server, "pin", "app:1")
    assert status == 0
    assert "\x1b" not in output
    assert "\r" not in output
    assert output.splitlines()[-1].startswith(f"{NAME}/app:1  3 parts, 2.0 MiB, all here  sha256:")


# Let go


def test_unpin_of_what_is_not_pinned_names_what_is(tidegate, far):
    far.add_image("app", "1", b"app")
    server = tidegate(quick(far.url), workers=2)
    assert command(server, "unpin", "app:1") == (1, "", "app:1 is not pinned; nothing is pinned\n")
    pinned(server, "app:1", "--set", "spring")
    pinned(server, "app:1", "--set", "autumn")
    said = f"app:2 is not pinned; pinned are {NAME}/app:1, {NAME}/app:1\n"
    assert command(server, "unpin", "app:2") == (1, "", said)
    assert command(server, "unpin", "--set", "x") == (1, "", "there is no set x; there are autumn, spring\n")
    assert command(server, "unpin", "--set", "../x")[0] == 2
    assert command(server, "unpin", "app:1", "--set", "spring")[0] == 0
    assert [row["pinned"] for row in ls(server)] == [["autumn"]]
    status, output, _ = command(server, "unpin", "app:1", "--json")
    assert (status, json.loads(output)) == (0, {"unpinned": [{"set": "autumn", "image": f"{NAME}/app:1"}]})
    assert command(server, "unpin")[0] == 2


# List


def test_ls_by_image_with_its_parts(tidegate, far):
    index, parts = add_index(far, "sig/tool", "1", ["linux/amd64", "linux/arm64"])
    far.add_image("pause", "3.9", b"pause")
    server = tidegate(quick(far.url), workers=2)
    assert command(server, "ls")[1] == "no image\n"
    get(server, "/v2/pause/manifests/3.9")
    get(server, "/v2/sig/tool/manifests/1")
    amd64 = sorted(parts["linux/amd64"], key=lambda digest: digest not in far.repos["sig/tool"].manifests)
    get(server, f"/v2/sig/tool/manifests/{amd64[0]}")
    for digest in amd64[1:]:
        get(server, blob_path("sig/tool", digest))
        kept(server, digest)
    output = command(server, "ls")[1]
    lines = [line.split() for line in output.splitlines()]
    assert lines[0] == ["REPOSITORY", "REFERENCE", "SIZE", "USED", "COMPLETE", "PINNED"]
    assert [line[:2] for line in lines[1:]] == [[f"{NAME}/pause", "3.9"], [f"{NAME}/sig/tool", "1"]]
    assert "no, 2 missing" in output
    assert "1 of 2 platforms" in output
    assert [row["reference"] for row in ls(server, "--incomplete")] == ["3.9"]
    assert [row["reference"] for row in ls(server, "--sort", "size")] == ["1", "3.9"]
    assert [row["reference"] for row in ls(server, "sig/tool")] == ["1"]
    shown = command(server, "ls", "sig/tool:1")[1]
    assert shown.splitlines()[0].startswith(f"{NAME}/sig/tool:1   1 of 2 platforms   ")
    assert shown.count(" here") == 4
    assert shown.count(" missing") == 1
    assert index in shown
    assert command(server, "ls", "nothing:1") == (1, "", "nothing:1 is not here; tidegate ls says what is\n")


def test_ls_works_where_nothing_runs_and_the_others_say_so(tidegate, far):
    far.add_image("app", "1", b"app")
    server = tidegate(quick(far.url), workers=1)
    pinned(server, "app:1")
    found = [row | {"used": 0} for row in (*ls(server), *ls(server, "app:1"))]
    assert server.stop() == 0
    assert [row | {"used": 0} for row in (*ls(server), *ls(server, "app:1"))] == found
    line = f"no tidegate is running for {server.data}; start it with: tidegate serve\n"
    for words in (("pin", "app:1"), ("unpin", "app:1"), ("rm", "app:1")):
        assert command(server, *words) == (1, "", line)


# Remove


def test_rm_of_another_name_for_what_is_pinned_takes_the_name_alone(tidegate, far):
    image = far.add_image("app", "1", b"app")
    far.repos["app"].tags["latest"] = image.digest
    server = tidegate(quick(far.url), workers=2)
    pinned(server, "app:1")
    assert get(server, "/v2/app/manifests/latest").status == 200
    assert [row["reference"] for row in ls(server, "app")] == ["1", "latest"]
    assert command(server, "rm", "app")[1].startswith(f"{NAME}/app:latest: removed 0 blobs, 0 B, 3 kept for other")
    assert here(server) == names(image.digest, *image.blobs)
    assert [row["reference"] for row in ls(server)] == ["1"]


def test_rm_takes_what_nobody_else_needs_and_the_next_pull_asks_again(tidegate, far):
    shared, own = noise(MIB, "shared"), noise(MIB, "own")
    one = far.add_image("one", "1", shared, own)
    two = far.add_image("two", "1", shared)
    server = tidegate(quick(far.url), workers=4)
    with spread(server, 4) as clients:
        for each in (one, two):
            for client in clients:
                assert client.get(f"/v2/{each.repo}/manifests/1").status == 200
                assert client.get(f"/v2/{each.repo}/manifests/{each.digest}").status == 200
            for digest in each.blobs:
                get(server, blob_path(each.repo, digest))
                kept(server, digest)
        status, output, errors = command(server, "rm", "one:1")
        assert (status, errors) == (0, "")
        assert output.startswith(f"{NAME}/one:1: removed 2 blobs, 1.0 MiB, ")
        assert here(server) == names(two.digest, *two.blobs)
        assert [row["repository"] for row in ls(server)] == [f"{NAME}/two"]
        assert server.metrics().total("tidegate_cache_objects") == len(here(server))
        far.refusing = True
        for client in clients:
            assert client.get("/v2/one/manifests/1").status == 503
            assert client.get(f"/v2/one/manifests/{one.digest}").status == 503
            assert client.get("/v2/two/manifests/1").status == 200
    assert command(server, "rm", "one:1") == (1, "", f"{NAME}/one:1 is not here; tidegate ls says what is\n")


def test_rm_of_an_index_takes_its_platforms_and_its_signature(tidegate, far):
    index, _ = add_index(far, "app", "1", ["linux/amd64", "linux/arm64"])
    sign(far, "app", index)
    server = tidegate(quick(far.url), workers=2)
    pinned(server, "app:1")
    status, _, errors = command(server, "rm", "app:1")
    assert (status, errors) == (
        1,
        f"{NAME}/app:1 is pinned in default; let it go first: tidegate unpin {NAME}/app:1\n",
    )
    assert command(server, "unpin", "app:1")[0] == 0
    assert command(server, "rm", "app:1")[0] == 0
    assert here(server) == set()
    assert ls(server) == []


def test_rm_leaves_what_is_being_read(tidegate, far):
    layer = noise(16 * MIB, "read")
    image = far.add_image("app", "1", layer)
    digest = next(name for name, content in image.blobs.items() if content == layer)
    server = tidegate(quick(far.url), workers=2)
    pinned(server, "app:1")
    command(server, "unpin", "app:1")
    with spread(server, 1) as (slow,):
        response = slow.start(blob_path("app", digest))
        body = response.read(1000)
        status, output, _ = command(server, "rm", "app:1")
        assert status == 0
        assert "1 being read now and left for eviction" in output
        assert body + response.read() == layer
    assert names(digest) == here(server)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(("pin", "UPPER:1"), 1), (("rm", "a b"), 1), (("unpin", "x@sha256:1"), 2), (("ls", "//"), 2)],
    ids=["pin", "rm", "unpin", "ls"],
)
def test_names_that_are_none_are_one_line(tidegate, far, words, expected):
    """A list goes on after a wrong name; where one name is all there is, it is wrong usage."""
    server = tidegate(quick(far.url), workers=1)
    status, output, errors = command(server, *words)
    assert status == expected
    assert "Traceback" not in output + errors
    assert (output + errors).count("\n") == 1


def test_pins_that_cannot_be_read_are_named(tidegate, far):
    far.add_image("app", "1", b"app")
    server = tidegate(quick(far.url), workers=1)
    (server.data / "pins" / "mine.json").write_text("{broken")
    status, _, errors = command(server, "pin", "app:1")
    assert status == 1
    assert "mine.json cannot be read as a set of pins" in errors
    for words in (("ls",), ("unpin", "app:1"), ("rm", "app:1")):
        assert "mine.json cannot be read as a set of pins" in command(server, *words)[2]
