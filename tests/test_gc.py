"""gc of what was pushed: exactly what no manifest reaches goes, and no push that runs meanwhile ever notices."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.cli.talk import Place, stream
from tests.conformance import content as make
from tests.conformance.client import Registry, is_about
from tests.real.tidegate import ROOT
from tests.support import MIB, get, kept, noise, quick, until

LOCAL = {"local": {"upload_ttl": "24h"}}
DAYS = 3 * 86400


@pytest.fixture
def server(tidegate):
    return tidegate(LOCAL, workers=2)


@pytest.fixture
def registry(server):
    return Registry("tidegate", server.url)


def command(data, *options):
    return [sys.executable, "-m", "proxy", "gc", "--data", str(data), *options]


def run(server, *options):
    """Exit status, standard output and error of the command."""
    done = subprocess.run(command(server.data, *options), capture_output=True, text=True, timeout=60, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def collected(server, *options):
    """What gc says it did, or would do."""
    status, output, errors = run(server, "--json", *options)
    assert (status, errors) == (0, "")
    return json.loads(output)


def age(server, *names):
    """Days have passed for every link and file, or for those whose path has one of these in it."""
    then = time.time() - DAYS
    for folder in ("repositories", "blobs"):
        for path in (server.data / "local" / folder).rglob("*"):
            if path.is_file() and (not names or any(name in str(path) for name in names)):
                os.utime(path, (then, then))


def files(server):
    """Digests of all files of pushed content."""
    found = (server.data / "local" / "blobs").rglob("*")
    return {f"{path.parts[-3]}:{path.name}" for path in found if path.is_file()}


def digests(*contents):
    """Of these and all their parts."""
    return {each.digest for each in contents} | {digest for each in contents for digest in digests(*each.parts)}


def size(*contents):
    return sum(len(each.body) for each in contents)


def intact(repository, content, reference=None):
    """A manifest and everything below it, byte for byte."""
    is_about(repository.manifest(reference or content.digest), content)
    for part in content.parts:
        if part.is_manifest:
            intact(repository, part)
        else:
            is_about(repository.blob(part.digest), part)


def test_a_dry_run_says_what_goes_and_delete_removes_exactly_that(server, registry):
    repository = registry.repository("dev/app")
    image = repository.push_all(make.image(3), "1")
    orphans = [repository.push_blob(make.blob(MIB)) for _ in range(3)]
    everything = digests(image, *orphans)
    assert files(server) == everything
    assert run(server) == (0, "nothing to remove\n", ""), "all of it is young"
    age(server)
    expected = (
        "dev/app  3 blobs, 3 MiB\nwould free 3 files, 3 MiB; nothing was removed. To remove it: tidegate gc --delete\n"
    )
    assert run(server) == run(server, "--dry-run") == (0, expected, "")
    assert files(server) == everything
    assert run(server, "--delete") == (0, "dev/app  3 blobs, 3 MiB\nremoved: 3 files, 3 MiB\n", "")
    assert files(server) == digests(image)
    intact(repository, image, "1")
    assert [repository.blob(each.digest).status for each in orphans] == [404] * 3
    assert run(server, "--delete") == (0, "removed: 0 files, 0 B\n", "")
    metrics = server.metrics()
    assert metrics.total("tidegate_gc_removed_bytes_total") == 3 * MIB
    assert metrics.total("tidegate_local_bytes") == size(image, *image.parts)


def test_what_was_uploaded_mounted_or_asked_for_stays(server, registry):
    old, new = registry.repository("dev/old"), registry.repository("dev/new")
    blobs = [old.push_blob(make.blob()) for _ in range(4)]
    age(server)
    asked, mounted, again, gone = blobs
    old.blob(asked.digest, "HEAD").expect(200)
    new.begin(mount=mounted.digest, **{"from": "dev/old"}).expect(201)
    old.push_blob(again)
    found = collected(server, "--delete")
    assert found["files"] == 1, "what was mounted has a file, though dev/old has lost its link"
    assert files(server) == digests(asked, mounted, again)
    assert [old.blob(each.digest).status for each in blobs] == [200, 404, 200, 404]
    is_about(new.blob(mounted.digest), mounted)
    assert gone.digest not in files(server)


def test_the_time_that_everything_stays_is_a_setting(tidegate):
    server = tidegate({"local": {"upload_ttl": "2s"}}, workers=2)
    repository = Registry("tidegate", server.url).repository("dev/app")
    orphan = repository.push_blob(make.blob())
    assert collected(server, "--delete")["files"] == 0
    for _ in range(12):
        time.sleep(0.25)
        repository.blob(orphan.digest, "HEAD").expect(200)
    assert collected(server, "--delete")["files"] == 0, "it was asked for all the time"
    until(lambda: collected(server, "--delete")["files"] == 1)


def test_a_blob_that_another_repository_needs(server, registry):
    first, second = registry.repository("dev/first"), registry.repository("dev/second")
    shared = make.blob(MIB)
    first.push_blob(shared)
    image = second.push_all(make.manifest(make.blob(media_type=make.OCI_CONFIG), [shared]), "1")
    age(server)
    found = collected(server, "--delete")
    assert found["repositories"] == [
        {"repository": "dev/first", "manifests": 0, "blobs": 1, "bytes": MIB, "unreadable": ""}
    ]
    assert found["files"] == found["bytes"] == 0
    intact(second, image, "1")
    assert first.blob(shared.digest).status == 404


def test_indexes_artifacts_and_manifests_by_digest_alone_are_reached(server, registry):
    repository = registry.repository("dev/app")
    nested = make.index([make.index(make.platforms()), make.docker_image()])
    repository.push_all(nested, "nested")
    subject = repository.push_all(make.image())
    signature = repository.push_all(make.artifact("application/vnd.example.sig", subject))
    foreign = make.blob()
    elsewhere = {**foreign.descriptor(), "urls": ["https://example.invalid/layer"]}
    repository.push_blob(foreign)
    bare = make.image()
    abroad = make.encoded({**json.loads(bare.body), "layers": [elsewhere]}, bare.parts[:1])
    repository.push_all(abroad, "abroad")
    strong = repository.push_all(make.image(algorithm="sha512"))
    age(server)
    assert collected(server, "--delete")["files"] == 0
    for each in (nested, subject, signature, abroad, strong):
        intact(repository, each)
    is_about(repository.blob(foreign.digest), foreign)


def test_an_index_of_one_platform_alone_keeps_what_it_has(tidegate):
    server = tidegate({"local": {"sparse": True}}, workers=2)
    repository = Registry("tidegate", server.url).repository("dev/app")
    here = repository.push_all(make.image())
    index = make.index([here, make.image()])
    repository.put_manifest(index, "1").expect(201)
    orphan = repository.push_blob(make.blob())
    age(server)
    assert collected(server, "--delete", "--untagged")["files"] == 1
    assert not files(server) & digests(orphan)
    is_about(repository.manifest("1"), index)
    intact(repository, here)


def test_untagged_manifests_go_when_that_is_asked_for(server, registry):
    repository = registry.repository("dev/app")
    tagged = repository.push_all(make.index(make.platforms()), "1")
    signature = repository.push_all(make.artifact("application/vnd.example.sig", tagged))
    dropped = repository.push_all(make.index(make.platforms()))
    lost = repository.push_all(make.artifact("application/vnd.example.sig", dropped))
    wanted, young = repository.push_all(make.image()), make.image()
    age(server)
    repository.push_all(young)
    repository.manifest(wanted.digest, "HEAD").expect(200)
    going = digests(dropped, lost) - {make.EMPTY.digest}
    assert collected(server, "--delete")["files"] == 0, "without --untagged every manifest stands"
    assert collected(server, "--untagged")["files"] == len(going)
    status, output, _ = run(server, "--untagged")
    assert (status, output.endswith("To remove it: tidegate gc --delete --untagged\n")) == (0, True)
    repository.manifest(lost.digest).expect(200)
    age(server, *(each.digest.partition(":")[2] for each in (dropped, lost)))
    found = collected(server, "--untagged", "--delete")
    assert (found["repositories"][0]["manifests"], found["files"]) == (4, len(going))
    assert not files(server) & going
    for each in (tagged, signature, wanted, young):
        intact(repository, each)
    for each in (dropped, lost):
        assert {repository.manifest(each.digest).status for _ in range(4)} == {404}, "no worker remembers it"
    assert repository.referrers(dropped.digest).json()["manifests"] == []
    assert len(repository.referrers(tagged.digest).json()["manifests"]) == 1


def test_a_repository_whose_manifest_cannot_be_read_keeps_everything(server, registry):
    repository = registry.repository("dev/app")
    image = repository.push_all(make.image(), "1")
    orphan = repository.push_blob(make.blob())
    (path,) = (server.data / "local" / "blobs").rglob(image.digest.partition(":")[2])
    path.chmod(0o644)
    path.write_bytes(b"{}")
    age(server)
    status, output, errors = run(server, "--delete")
    assert (status, errors) == (1, "")
    assert f"dev/app: manifest {image.digest} cannot be read, so everything stays; push it again" in output
    assert files(server) >= digests(orphan, *image.parts)
    repository.push(image, "1")
    age(server)
    assert collected(server, "--delete")["files"] == 1
    intact(repository, image, "1")


def push_as_it_goes(server, registry, number):
    """One push that begins with what an earlier one, days ago, has left: asked for, mounted, or sent again."""
    left, repository = registry.repository(f"old/app{number}"), registry.repository(f"dev/app{number % 5}")
    image, abandoned = make.image(3), make.blob()
    repository.push_blob(abandoned)
    for part in image.parts:
        (left if number % 2 else repository).push_blob(part)
    age(server, *(part.digest.partition(":")[2] for part in (*image.parts, abandoned)))
    for part in image.parts:
        if number % 2:
            answer = repository.begin(mount=part.digest, **{"from": left.name}).expect(201, 202)
            there = answer.status == 201
        else:
            there = repository.blob(part.digest, "HEAD").expect(200, 404).status == 200
        if not there:
            repository.push_blob(part)
    repository.push(image, f"v{number}")
    return image


def test_gc_in_a_loop_during_fifty_pushes_fails_none(tidegate):
    server = tidegate(LOCAL, workers=3)
    registry = Registry("tidegate", server.url)
    over, runs = threading.Event(), []

    def collect():
        while not over.is_set():
            *_, last = stream(Place(str(server.data)), "/api/gc", {"delete": True, "untagged": True})
            runs.append(last)

    with ThreadPoolExecutor(11) as pool:
        collecting = pool.submit(collect)
        try:
            images = list(pool.map(lambda number: push_as_it_goes(server, registry, number), range(50)))
        finally:
            over.set()
        collecting.result()
    assert len(runs) > 10
    assert sum(each["files"] for each in runs) > 0, "nothing was in the way of anybody"
    collected(server, "--delete")
    assert files(server) == digests(*images)
    for number, image in enumerate(images):
        intact(registry.repository(f"dev/app{number % 5}"), image, f"v{number}")


def plant(server, count, kind=0):
    """Blobs of one repository that were left days ago, put there by hand; their digests."""
    planted = set()
    links = server.data / "local" / "repositories" / "dev" / "app" / "_blobs"
    for number in range(count):
        content = b"%d of %d" % (number, kind)
        name = hashlib.sha256(content).hexdigest()
        path = server.data / "local" / "blobs" / "sha256" / name[:2] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        (links / f"sha256-{name}").write_text("10")
        planted.add(f"sha256:{name}")
    age(server)
    return planted


def linked(server):
    """Digests of all links of dev/app."""
    folder = server.data / "local" / "repositories" / "dev" / "app"
    names = [*os.listdir(folder / "_blobs"), *os.listdir(folder / "_manifests")]
    return {name.replace("-", ":", 1) for name in names if not name.startswith(".")}


def begun(server, planted):
    """gc --delete, which has removed some of what was planted."""
    going = subprocess.Popen(command(server.data, "--delete"), cwd=ROOT, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)  # fmt: skip
    try:
        until(lambda: not planted <= linked(server))
    except BaseException:
        going.kill()
        going.communicate()
        raise
    return going


def test_killed_in_the_middle_it_leaves_nothing_without_its_bytes(server, registry):
    repository = registry.repository("dev/app")
    image = repository.push_all(make.image(), "1")
    planted = set()
    for kind in range(2):
        planted |= plant(server, 3000, kind)
        going = begun(server, planted)
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        going.communicate(timeout=60)
        assert linked(server) <= files(server)
        until(lambda: get(server, "/v2/").status == 200)
    until(lambda: run(server, "--delete")[0] == 0)
    assert not files(server) & planted
    intact(repository, image, "1")


def test_interrupted_it_stops_and_goes_on_another_time(server, registry):
    repository = registry.repository("dev/app")
    image = repository.push_all(make.image(), "1")
    planted = plant(server, 6000)
    going = begun(server, planted)
    going.send_signal(signal.SIGINT)
    going.communicate(timeout=60)
    assert going.returncode == 1
    assert linked(server) <= files(server)
    until(lambda: run(server, "--delete")[0] == 0)
    assert not files(server) & planted
    intact(repository, image, "1")


def test_alone_and_one_at_a_time(tidegate, server, registry, tmp_path):
    repository = registry.repository("dev/app")
    image = repository.push_all(make.image(), "1")
    orphan = repository.push_blob(make.blob(MIB))
    age(server)
    lock = server.data / "run" / "gc.lock"
    with subprocess.Popen(["flock", str(lock), "cat"], stdin=subprocess.PIPE) as other:
        until(lock.exists)
        until(lambda: "another tidegate gc is running; wait for its end" in run(server)[2])
        assert run(server)[0] == 1
        other.stdin.close()
    assert server.stop() == 0
    status, output, errors = run(server)
    assert (status, errors) == (0, "")
    assert output.startswith("dev/app  1 blob, 1 MiB\nwould free 1 file, 1 MiB;")
    assert run(server, "--delete")[1] == "dev/app  1 blob, 1 MiB\nremoved: 1 file, 1 MiB\n"
    assert files(server) == digests(image)
    assert orphan.digest not in linked(server)
    again = tidegate(LOCAL, workers=2, data=server.data, folder=tmp_path / "again")
    intact(Registry("tidegate", again.url).repository("dev/app"), image, "1")


def test_where_nothing_can_be_pushed(tidegate, far):
    server = tidegate(quick(far.url), workers=1)
    assert run(server) == (1, "", "nothing can be pushed here: the settings have no [local] section\n")
    assert server.stop() == 0
    assert run(server) == (1, "", f"nothing was pushed to {server.data}\n")


# local.max_size


def limited(tidegate, far, most="10MiB"):
    config = quick(far.url) | {"local": {"max_size": most}, "server": {"unqualified": ["local"]}}
    return tidegate(config, workers=2)


def uploads(server):
    return list((server.data / "local" / "uploads").iterdir())


def status(server):
    done = subprocess.run([sys.executable, "-m", "proxy", "status", "--data", str(server.data)], cwd=ROOT,
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    return done.stdout


def pieces(content, length=MIB):
    return (content[at : at + length] for at in range(0, len(content), length))


def test_a_push_that_would_pass_the_limit_is_507_and_leaves_no_trace(tidegate, far, tmp_path):
    server = limited(tidegate, far)
    registry = Registry("tidegate", server.url)
    repository = registry.repository("dev/app")
    first = repository.push_blob(make.blob(7 * MIB))
    before = files(server)
    said = "7 MiB are pushed here, and 4 MiB more would pass local.max_size of 10 MiB"
    second = make.blob(4 * MIB)
    answer = repository.ask("POST", f"blobs/uploads/?digest={second.digest}", second.body).refused(507, "UNAVAILABLE")
    assert said in answer.body.decode()
    repository.patch(repository.session(), second.body).refused(507, "UNAVAILABLE")
    repository.patch(repository.session(), pieces(second.body)).refused(507, "UNAVAILABLE")
    repository.finish(repository.session(), second.digest, second.body).refused(507, "UNAVAILABLE")
    cached = far.add_blob("pause", noise(4 * MIB))
    assert get(server, f"/v2/registry.k8s.io/pause/blobs/{cached}").status == 200
    kept(server, cached)
    repository.begin(mount=cached).refused(507, "UNAVAILABLE")
    assert files(server) == before
    until(lambda: not uploads(server))
    assert "pushed    7 MiB of 10 MiB" in status(server)
    session = repository.session()
    repository.patch(session, noise(2 * MIB)).expect(202)
    assert "pushed    9 MiB of 10 MiB" in status(server), "what is under way counts"
    config = repository.push_blob(make.blob(media_type=make.OCI_CONFIG))
    repository.push_blob(make.blob(MIB - 3 * len(config.body)))
    image = make.manifest(config, [], annotations={"long": "x" * 3000})
    repository.put_manifest(image, "1").refused(507, "UNAVAILABLE")
    assert repository.manifest("1").status == 404
    registry.ask("DELETE", session).expect(204)
    repository.push(image, "1")
    assert server.metrics().total("tidegate_local_limit_bytes") == 10 * MIB
    age(server)
    assert collected(server, "--delete")["bytes"] >= 7 * MIB
    assert server.metrics().total("tidegate_local_bytes") == size(image, config)
    repository.push_blob(first)


def test_what_there_is_is_counted_at_every_start(tidegate, far, tmp_path):
    server = limited(tidegate, far)
    repository = Registry("tidegate", server.url).repository("dev/app")
    repository.push_blob(make.blob(6 * MIB))
    repository.patch(repository.session(), noise(2 * MIB)).expect(202)
    server.kill()
    config = {"local": {"max_size": "9MiB"}}
    again = tidegate(config, workers=2, data=server.data, folder=tmp_path / "again")
    assert "pushed    8 MiB of 9 MiB" in status(again)
    more = make.blob(2 * MIB)
    repository = Registry("tidegate", again.url).repository("dev/app")
    repository.finish(repository.session(), more.digest, more.body).refused(507, "UNAVAILABLE")


def test_fifty_pushes_at_once_never_pass_the_limit(tidegate, far):
    server = limited(tidegate, far, "20MiB")
    registry = Registry("tidegate", server.url)

    def push(number):
        repository, blob = registry.repository(f"dev/app{number}"), make.blob(MIB)
        return repository.ask("POST", f"blobs/uploads/?digest={blob.digest}", pieces(blob.body, 100_000)).status

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(push, range(50)))
    assert set(answers) == {201, 507}
    assert answers.count(201) <= 20
    until(lambda: not uploads(server))
    assert server.metrics().total("tidegate_local_bytes") == answers.count(201) * MIB
