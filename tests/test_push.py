"""Pushing for real: skopeo in, containerd and skopeo out; workers killed, disks filled, names that are not ours."""

import hashlib
import os
import signal
import socket
import threading

import pytest

from tests.conformance import content as make
from tests.conformance.client import Registry
from tests.fakes import Status
from tests.real.disk import disk
from tests.real.processes import NotStarted
from tests.real.tools import insecure, skopeo, skopeo_copy
from tests.support import MIB, get, kept, noise, quick, until
from tests.test_eviction import age

LOCAL = {"local": {"upload_ttl": "24h"}}


@pytest.fixture
def server(tidegate):
    return tidegate(LOCAL, workers=4)


def push(folder, ref):
    host = ref.partition("/")[0]
    return skopeo("copy", "--preserve-digests", f"dir:{folder}", f"docker://{ref}", registries=insecure(host))


@pytest.fixture
def image(tmp_path, far):
    """An image of several layers as skopeo keeps one."""
    built = far.add_image("seed", "1", *[noise(MIB, seed) for seed in range(4)])
    done = skopeo_copy(f"{far.host}/seed:1", tmp_path / "seed", "--src-tls-verify=false")
    assert done.returncode == 0, done.stderr
    return tmp_path / "seed", built


@pytest.mark.real("skopeo", "containerd")
def test_skopeo_pushes_and_containerd_pulls(server, image, node, tmp_path):
    folder, built = image
    done = push(folder, f"{server.host}/dev/app:1")
    assert done.returncode == 0, done.stderr
    back = skopeo_copy(f"{server.host}/dev/app:1", tmp_path / "back")
    assert back.returncode == 0, back.stderr
    assert (tmp_path / "back" / "manifest.json").read_bytes() == built.manifest
    where = node.node()
    node.mirror("localhost:5001", server.url)
    pulled = node.fetch(f"{server.host}/dev/app:1", where, "--plain-http")
    assert pulled.returncode == 0, pulled.stderr
    assert node.digests(where) >= {built.digest, *built.blobs}


def test_a_name_another_registry_serves_is_not_ours(tidegate, far):
    far.add_image("kube-apiserver", "v1.31.0", b"layer")
    config = quick(far.url) | {"local": {"own": ["mine/*"]}, "server": {"unqualified": ["local", "registry.k8s.io"]}}
    server = tidegate(config, workers=2)
    registry = Registry("tidegate", server.url)
    refused = registry.ask("POST", "/v2/kube-apiserver/blobs/uploads/").refused(403, "DENIED")
    assert "registry.k8s.io serves kube-apiserver; push it under another name" in refused.body.decode()
    registry.ask("PUT", "/v2/kube-apiserver/manifests/v9", b"{}").refused(403, "DENIED")
    registry.ask("POST", "/v2/dev/app/blobs/uploads/").expect(202)
    far.fault("/v2/", Status(500))
    said = registry.ask("POST", "/v2/other/app/blobs/uploads/").refused(403, "DENIED").body.decode()
    assert "cannot be told now" in said
    registry.ask("POST", "/v2/mine/app/blobs/uploads/").expect(202)
    for prefixed in ("registry.k8s.io/kube-apiserver", "quay.io/kube-apiserver"):
        assert registry.ask("POST", f"/v2/{prefixed}/blobs/uploads/").status in (403, 405)


def test_a_name_of_ours_opens_no_way_to_what_another_registry_serves(tidegate, far):
    """What is pushed by `ns` or prefix would answer for the same name without them."""
    image = far.add_image("kube-apiserver", "v1", b"layer")
    config = quick(far.url) | {"local": {"names": ["localhost:5001"], "own": ["mine/*"]}}
    server = tidegate(config | {"server": {"unqualified": ["local", "registry.k8s.io"]}}, workers=2)
    registry = Registry("tidegate", server.url)
    for name in ("kube-apiserver/{}?ns=localhost:5001", "localhost:5001/kube-apiserver/{}"):
        for method, what in (("POST", "blobs/uploads/"), ("PUT", "manifests/v1")):
            body = None if method == "POST" else b"{}"
            refused = registry.ask(method, f"/v2/{name.format(what)}", body).refused(403, "DENIED")
            assert "registry.k8s.io serves kube-apiserver; push it under another name" in refused.body.decode()
    assert get(server, "/v2/kube-apiserver/manifests/v1").body == image.manifest
    registry.ask("POST", "/v2/mine/app/blobs/uploads/?ns=localhost:5001").expect(202)


def test_what_is_pushed_is_ours_altogether_and_never_answers_for_an_upstream(tidegate, far):
    image = far.add_image("app", "upstream", b"layer")
    config = quick(far.url) | {"local": {"own": ["app"]}, "server": {"unqualified": ["local", "registry.k8s.io"]}}
    server = tidegate(config, workers=2)
    registry = Registry("tidegate", server.url)
    assert get(server, "/v2/app/manifests/upstream").body == image.manifest
    mine = make.image()
    registry.repository("app").push_all(mine, "mine")
    assert registry.ask("GET", "/v2/app/manifests/mine").status == 200
    assert registry.ask("GET", "/v2/app/manifests/upstream").status == 404, "its own altogether"
    assert get(server, "/v2/registry.k8s.io/app/manifests/upstream").body == image.manifest
    assert get(server, "/v2/app/manifests/mine?ns=registry.k8s.io").status == 404
    assert get(server, "/v2/registry.k8s.io/app/manifests/mine").status == 404


@pytest.mark.parametrize("sparse", [False, True])
def test_an_index_of_one_platform_alone_is_taken_where_that_is_asked_for(tidegate, sparse):
    server = tidegate({"local": {"sparse": sparse}}, workers=2)
    repository = Registry("tidegate", server.url).repository("dev/app")
    here, elsewhere = repository.push_all(make.image()), make.image()
    index = make.index([here, elsewhere])
    answer = repository.put_manifest(index, "1")
    if not sparse:
        answer.refused(404, "MANIFEST_BLOB_UNKNOWN")
        return
    answer.expect(201)
    assert repository.manifest("1").expect(200).body == index.body
    repository.manifest(elsewhere.digest).refused(404, "MANIFEST_UNKNOWN")
    assert repository.manifest(here.digest).expect(200).body == here.body
    repository.put_manifest(elsewhere, "2").refused(404, "MANIFEST_BLOB_UNKNOWN")
    repository.push_all(elsewhere)
    repository.manifest(elsewhere.digest).expect(200)


def test_every_worker_answers_with_what_was_just_pushed(server):
    registry = Registry("tidegate", server.url)
    repository = registry.repository("dev/app")
    for _number in range(10):
        pushed = make.image()
        repository.push_all(pushed, "latest")
        seen = {registry.ask("GET", "/v2/dev/app/manifests/latest").body for _ in range(12)}
        assert len(seen) == 1


def test_a_killed_worker_costs_what_was_not_acknowledged_and_no_more(server):
    registry = Registry("tidegate", server.url)
    whole = noise(8 * MIB)
    digest = f"sha256:{hashlib.sha256(whole).hexdigest()}"
    where = registry.ask("POST", "/v2/dev/app/blobs/uploads/").expect(202).header("Location")
    registry.ask("PATCH", where, whole[: 3 * MIB]).expect(202)
    host, port = server.host.split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(f"PATCH {where} HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: {5 * MIB}\r\n\r\n".encode())
        half.sendall(whole[3 * MIB : 5 * MIB])
        uploads = server.data / "local" / "uploads"
        until(lambda: any(path.stat().st_size > 4 * MIB for path in uploads.iterdir()))
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
    until(lambda: get(server, "/v2/").status == 200)
    until(lambda: registry.ask("GET", where).status == 204)
    stands = int(registry.ask("GET", where).expect(204).header("Range").partition("-")[2]) + 1
    assert 3 * MIB <= stands <= 5 * MIB
    registry.ask("PATCH", where, whole[stands:], **{"Content-Range": f"{stands}-{len(whole) - 1}"}).expect(202)
    registry.ask("PUT", f"{where}?digest={digest}").expect(201)
    assert registry.ask("GET", f"/v2/dev/app/blobs/{digest}").expect(200).body == whole


def test_fifty_pushes_of_images_that_share_layers(server):
    registry = Registry("tidegate", server.url)
    shared = make.blob(MIB)
    failed = []

    def push_one(number):
        try:
            repository = registry.repository(f"dev/app{number % 10}")
            repository.push_blob(shared)
            repository.push_all(make.image(), f"v{number}")
        except AssertionError as error:
            failed.append(error)

    threads = [threading.Thread(target=push_one, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for number in range(50):
        assert registry.ask("GET", f"/v2/dev/app{number % 10}/manifests/v{number}").status == 200


@pytest.mark.real("mount")
def test_a_full_disk_is_507_and_leaves_no_trace(tidegate, tmp_path):
    with disk(tmp_path / "disk", 40) as small:
        server = tidegate(LOCAL, data=small.path / "data", folder=tmp_path / "run", workers=2)
        registry = Registry("tidegate", server.url)
        small.fill(leave=MIB)
        content = noise(8 * MIB)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        answer = registry.ask("POST", f"/v2/dev/app/blobs/uploads/?digest={digest}", content)
        assert answer.status == 507
        assert "no room" in answer.body.decode()
        until(lambda: not list((server.data / "local" / "uploads").iterdir()))
        small.free()
        registry.ask("POST", f"/v2/dev/app/blobs/uploads/?digest={digest}", content).expect(201)
        assert registry.ask("GET", f"/v2/dev/app/blobs/{digest}").body == content


def test_pushed_content_outlives_a_kill_of_everything_and_is_never_evicted(tidegate, tmp_path):
    config = {**LOCAL, "cache": {"max_size": "0B", "min_free": "0B"}}
    server = tidegate(config, workers=2)
    registry = Registry("tidegate", server.url)
    pushed = make.image()
    registry.repository("dev/app").push_all(pushed, "1")
    body = registry.ask("GET", "/v2/dev/app/manifests/1").expect(200).body
    server.kill()
    again = tidegate(config, workers=2, data=server.data, folder=tmp_path / "again")
    assert Registry("tidegate", again.url).ask("GET", "/v2/dev/app/manifests/1").expect(200).body == body


@pytest.mark.parametrize("source", [None, "registry.k8s.io/pause", "pause", "dev/unknown"])
def test_what_is_cached_for_everybody_is_not_sent_again(tidegate, far, source):
    """As docker mounts it that has pulled an image here and pushes it under another name."""
    server = tidegate(quick(far.url) | LOCAL | {"server": {"unqualified": ["local"]}}, workers=2)
    content = noise(MIB)
    digest = far.add_blob("pause", content)
    repository = Registry("tidegate", server.url).repository("dev/app")
    origin = {} if source is None else {"from": source}
    repository.begin(mount=digest, **origin).expect(202)
    assert get(server, f"/v2/registry.k8s.io/pause/blobs/{digest}").body == content
    kept(server, digest)
    repository.begin(mount=digest, **origin).expect(201)
    assert repository.blob(digest).expect(200).body == content


@pytest.mark.real("mount")
def test_what_is_cached_gives_way_to_what_is_pushed(tidegate, far, tmp_path):
    with disk(tmp_path / "disk", 48) as small:
        config = quick(far.url) | LOCAL | {"cache": {"min_free": "2MiB"}}
        config["server"] = {"unqualified": ["local"]}
        server = tidegate(config, data=small.path / "data", folder=tmp_path / "run", workers=2)
        for seed in range(20):
            digest = far.add_blob("pause", noise(MIB, seed))
            assert get(server, f"/v2/registry.k8s.io/pause/blobs/{digest}").status == 200
            kept(server, digest)
        age(server)
        small.fill(leave=3 * MIB)
        content = noise(12 * MIB)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        registry = Registry("tidegate", server.url)
        registry.ask("POST", f"/v2/dev/app/blobs/uploads/?digest={digest}", content).expect(201)
        assert server.metrics().total("tidegate_cache_evicted_bytes_total", reason="min_free") > 0


def test_only_tools_on_this_machine_may_push_unless_users_are_set(tidegate, tmp_path):
    server = tidegate(LOCAL, workers=1)
    registry = Registry("tidegate", server.url)
    path = "/v2/dev/app/blobs/uploads/"
    registry.ask("POST", path).expect(202)
    for sign in ({"X-Forwarded-For": "10.0.0.7"}, {"Via": "1.1 proxy"}, {"Host": "cache.corp"}, {"Origin": "http://x"}):
        answer = registry.ask("POST", path, **sign).refused(403, "DENIED")
        assert "only tools on this machine may push" in answer.body.decode(), sign
    nobody = tidegate({**LOCAL, "auth": {"push": "nobody"}}, workers=1, folder=tmp_path / "nobody")
    Registry("tidegate", nobody.url).ask("POST", path).refused(403, "DENIED")


def test_users_push_and_pull_by_name_and_password(tidegate, tmp_path):
    import base64

    import bcrypt

    users = tmp_path / "users"
    users.write_text(f"ci:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    auth = {"push": "users", "pull": "users", "users_file": str(users), "push_names": ["ci=team/*"]}
    server = tidegate({**LOCAL, "auth": auth}, workers=1)
    registry = Registry("tidegate", server.url)
    basic = {"Authorization": f"Basic {base64.b64encode(b'ci:secret').decode()}"}
    path = "/v2/team/app/blobs/uploads/"
    answer = registry.ask("POST", path).refused(401, "UNAUTHORIZED")
    assert answer.header("WWW-Authenticate").startswith("Basic")
    registry.ask("POST", path, **basic).expect(202)
    registry.ask("POST", "/v2/other/app/blobs/uploads/", **basic).refused(403, "DENIED")
    assert registry.ask("GET", "/v2/").status == registry.ask("GET", "/v2/team/app/tags/list").status == 401
    assert registry.ask("GET", "/v2/", **basic).status == 200
    assert registry.ask("GET", "/v2/team/app/tags/list", **basic).status == 404
    wrong = {"Authorization": f"Basic {base64.b64encode(b'ci:wrong').decode()}"}
    registry.ask("POST", path, **wrong).refused(401, "UNAUTHORIZED")


def test_pushed_content_of_a_later_format_is_refused_and_left_alone(tidegate, tmp_path):
    server = tidegate(LOCAL, workers=1)
    pushed = make.image()
    Registry("tidegate", server.url).repository("dev/app").push_all(pushed, "1")
    assert server.stop() == 0
    mark = server.data / "local" / "format"
    assert mark.read_text() == "1\n"
    for number, text in enumerate((b"2\n", b"", b"\xf8\xff")):
        mark.write_bytes(text)
        with pytest.raises(
            NotStarted, match=r"holds pushed content of format '.*', and this release reads 1"
        ) as refused:
            tidegate(LOCAL, workers=1, data=server.data, folder=tmp_path / f"refused{number}")
        assert "Traceback" not in str(refused.value)
    mark.write_text("1\n")
    again = tidegate(LOCAL, workers=1, data=server.data, folder=tmp_path / "again")
    assert Registry("tidegate", again.url).ask("GET", "/v2/dev/app/manifests/1").status == 200


@pytest.mark.parametrize("kind", ["tag", "link", "manifest"])
def test_what_is_damaged_on_the_disk_is_said_and_can_be_pushed_again(tidegate, tmp_path, kind):
    server = tidegate(LOCAL, workers=1)
    pushed = make.image()
    Registry("tidegate", server.url).repository("dev/app").push_all(pushed, "1")
    assert server.stop() == 0
    repository = server.data / "local" / "repositories" / "dev" / "app"
    blob = next(
        path for path in (server.data / "local" / "blobs").rglob("*") if path.name == pushed.digest.partition(":")[2]
    )
    path = {"tag": repository / "_tags" / "1", "link": next((repository / "_manifests").iterdir()), "manifest": blob}[
        kind
    ]
    path.chmod(0o644)
    path.write_bytes(b"\xff" * path.stat().st_size)
    again = tidegate(LOCAL, workers=1, data=server.data, folder=tmp_path / "again")
    registry = Registry("tidegate", again.url)
    answer = registry.ask("GET", "/v2/dev/app/manifests/1").refused(500, "UNKNOWN")
    assert "is damaged on tidegate's disk; push it again" in answer.body.decode()
    registry.repository("dev/app").push_all(pushed, "1")
    assert registry.ask("GET", "/v2/dev/app/manifests/1").status == 200
    assert again.stop() == 0
    assert "Traceback" not in again.stderr


def test_what_was_pushed_is_listed_with_and_without_a_service(tidegate, tmp_path):
    import json

    from tests.test_pins import command

    server = tidegate(LOCAL, workers=1)
    pushed = make.image()
    Registry("tidegate", server.url).repository("dev/app").push_all(pushed, "1")
    for _ in range(2):
        status, output, errors = command(server, "ls", "--json")
        assert status == 0, errors
        (row,) = json.loads(output)
        assert (row["repository"], row["reference"], row["complete"]) == ("local/dev/app", "1", True)
        assert row["digest"] == pushed.digest
        assert json.loads(command(server, "ls", "local/dev/app:1", "--json")[1])[0]["parts"]
        assert json.loads(get(server, "/api/images").body) == [] if server.process.running else True
        server.stop()


def test_a_mount_from_what_is_no_repository_is_an_upload(tidegate):
    registry = Registry("tidegate", tidegate(LOCAL, workers=1).url)
    digest = "sha256:" + "ab" * 32
    for source in ("BAD", "localhost:5001/dev/app"):
        registry.ask("POST", f"/v2/dev/app/blobs/uploads/?mount={digest}&from={source}").expect(202)
