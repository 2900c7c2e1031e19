"""What came with credentials is shown to the repository it was proved for, and to nobody else; what is everybody's is
everybody's, whatever is up.

Every question about a private digest is asked about a ghost too, a digest nobody has that the same hostile manifests
list with the same size: where the two answers differ in anything, the difference tells what lies here.
"""

import base64
import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from proxy.config import ConfigError, load
from tests.conformance import content as make
from tests.conformance.client import Registry
from tests.fakes import Bearer, Delay, Drip, origin_in_thread
from tests.fakes.origin import OCI_INDEX, OCI_LAYER, OCI_MANIFEST, descriptor
from tests.real.disk import disk
from tests.real.tools import skopeo_copy
from tests.support import MIB, blob_path, client, digest_of, finished, get, kept, noise, only, part, until, written

ROOT = Path(__file__).resolve().parents[1]
USER = {"username": "robot", "password": "s3cret-s3cret"}
PRIVATE, PUBLIC = "private.example", "public.example"
SECRET, GHOST = noise(MIB, "secret"), noise(MIB, "ghost")
LURED = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [], "note": "ghost"}).encode()
QUICK = {"first_byte_deadline": "6s", "stall_timeout": "4s", "allow_private": True, "tag_ttl": "1ms"}
PROBES = [("GET", {}), ("HEAD", {}), ("GET", {"Range": "bytes=0-9"}), ("GET", {"Range": f"bytes={MIB}-"}),
          ("GET", {"If_None_Match": "*"})]  # fmt: skip


@pytest.fixture
def open_far():
    with origin_in_thread() as running:
        yield running


@pytest.fixture
def image(far, open_far):
    """A private image; a lure in another repository of the same upstream and one in a public upstream, each with all
    its digests and with as many ghosts."""
    far.auth = Bearer(*USER.values())
    image = far.add_image("private/app", "v1", SECRET)
    far.add_image("private/app", "sbom", b"what is in it", subject=image.digest)
    layers = [{"mediaType": OCI_LAYER, "digest": digest_of(each), "size": MIB} for each in (SECRET, GHOST)]
    children = [descriptor(OCI_MANIFEST, LURED) | {"digest": each} for each in (image.digest, digest_of(LURED))]
    lures = {"layers": ({"layers": layers}, OCI_MANIFEST), "children": ({"manifests": children}, OCI_INDEX)}
    for origin in (far, open_far):
        for tag, (said, kind) in lures.items():
            origin.add_manifest(
                "team/tool", tag, json.dumps({"schemaVersion": 2, "mediaType": kind, **said}).encode(), kind
            )
    return image


def config(far, open_far):
    ways = {"aliases": ["old.example"], "prefix": "vault", "hosts": ["vault.internal"]}
    open_ways = {"aliases": ["older.example"], "prefix": "open", "hosts": ["open.internal"]}
    return {
        "server": {"unqualified": ["local", PUBLIC]},
        "local": {"names": ["localhost:5001"]},
        "upstreams": {PRIVATE: {"urls": [far.url], **QUICK, **USER, **ways},
                      PUBLIC: {"urls": [open_far.url], **QUICK, **open_ways}},
    }  # fmt: skip


@pytest.fixture
def server(tidegate, far, open_far, image):
    return tidegate(config(far, open_far), workers=3)


# Every way to ask from a repository that has proved nothing: path and headers.


def spelled(rest, repo="team/tool"):
    for names in (
        (PRIVATE, "old.example", "vault", "vault.internal"),
        (PUBLIC, "older.example", "open", "open.internal"),
    ):
        name, alias, prefix, host = names
        yield from ((f"/v2/{each}/{repo}/{rest}", {}) for each in (name, alias, prefix))
        yield from ((f"/v2/{repo}/{rest}?ns={each}", {}) for each in (name, alias))
        yield f"/v2/{repo}/{rest}", {"Host": host}
    yield f"/v2/{repo}/{rest}", {}
    yield f"/v2/dev/lure/{rest}?ns=localhost:5001", {}
    yield f"/v2/private/app/{rest}", {}  # the right repository, of nobody in particular
    yield f"/v2/private/app/{rest}?ns={PUBLIC}", {}


def seen(server, path, method, headers, digest):
    """What an answer tells, its own digest aside."""
    got = get(server, path, method, **headers)
    names = "Content-Length", "Content-Range", "Content-Type", "ETag", "Docker-Content-Digest", "Warning", "Retry-After"
    said = [str(got.headers.get(name)) for name in names] + [got.reason, got.body.decode("latin-1")]
    assert SECRET[:16] not in got.body
    return got.status, [each.replace(digest, "D").replace(digest[7:19], "D") for each in said]


def told(answer):
    """Without the trace that ends every error, which is another one each time."""
    status, (*headers, reason, body) = answer
    return status, headers, reason.partition("; trace")[0], json.loads(body)["errors"][0]["code"] if body else ""


def assert_nothing_is_told(server, image, expected=404, ways=spelled):
    pairs = [("blobs", digest_of(SECRET), digest_of(GHOST)), ("manifests", image.digest, digest_of(LURED)),
             ("manifests", digest_of(SECRET), digest_of(GHOST)), ("blobs", image.digest, digest_of(LURED))]  # fmt: skip
    for kind, secret, ghost in pairs:
        for (path, headers), (other, _) in zip(ways(f"{kind}/{secret}"), ways(f"{kind}/{ghost}"), strict=True):
            for method, more in PROBES:
                found = seen(server, path, method, headers | more, secret)
                assert found[0] == expected, (method, path, headers, more)
                assert told(found) == told(seen(server, other, method, headers | more, ghost)), (method, path, more)


def pull(server, image):
    """The right repository gets it, and it is kept."""
    assert get(server, f"/v2/{PRIVATE}/private/app/manifests/v1").body == image.manifest
    for digest, content in image.blobs.items():
        assert get(server, blob_path(f"{PRIVATE}/private/app", digest)).is_blob(content)
        assert kept(server, digest) == content


def lured(server):
    """The hostile manifests are known here."""
    for name in (PRIVATE, PUBLIC):
        for tag in ("layers", "children"):
            assert get(server, f"/v2/{name}/team/tool/manifests/{tag}").status == 200


def test_what_is_cached_is_told_to_nobody_else(server, image):
    lured(server)
    pull(server, image)
    assert_nothing_is_told(server, image)
    pull(server, image)


def test_who_crosses_the_kinds_of_the_right_repository_is_told_nothing(server, image):
    pull(server, image)
    for path in (f"manifests/{digest_of(SECRET)}", f"blobs/{image.digest}"):
        for method, more in PROBES:
            assert get(server, f"/v2/{PRIVATE}/private/app/{path}", method, **more).status == 404


@pytest.mark.parametrize(
    "slow", [Drip(32 << 10, 0.3), Drip(256 << 10, 3), Delay(5)], ids=["drips", "crawls", "not begun"]
)
def test_what_is_being_filled_is_told_to_nobody_else(server, far, image, slow):
    """In the worker that downloads and in one that would only follow, before the first byte and after it."""
    lured(server)
    digest = digest_of(SECRET)
    assert get(server, f"/v2/{PRIVATE}/private/app/manifests/v1").status == 200
    far.fault(f"/private/app/blobs/{digest}", slow, method="GET")
    with client(server) as right:
        right.send(blob_path(f"{PRIVATE}/private/app", digest))
        until(lambda: far.count("GET", f"/private/app/blobs/{digest}") and part(server, digest).exists())
        if not isinstance(slow, Delay):
            until(lambda: written(server, digest) > MIB // 8)
        with ExitStack() as stack:
            asked = []
            for pid in (pids := server.worker_pids()):
                with only(pid, pids):
                    for path, headers in [*spelled(f"blobs/{digest}")][::4]:
                        asked.append((stack.enter_context(client(server)), path))
                        asked[-1][0].send(path, **headers)
            for one, path in asked:
                got = one.response()
                assert (got.status, SECRET[:16] in got.read()) == (404, False), path
        assert not finished(server, digest).exists()


def test_after_a_restart_and_without_the_index_it_stays_closed(tidegate, server, far, open_far, image, tmp_path):
    """Files whose rows are gone are nobody's: not with the upstreams up, and not where they cannot be asked."""
    lured(server)
    pull(server, image)
    known = open_far.add_image("shared", "1", b"a public layer")
    for path in ("manifests/1", *(f"blobs/{digest}" for digest in known.blobs)):
        assert get(server, f"/v2/{PUBLIC}/shared/{path}").status == 200
    for digest in known.blobs:
        kept(server, digest)
    assert server.stop() == 0
    again = tidegate(config(far, open_far), workers=2, data=server.data, folder=tmp_path / "again")
    assert_nothing_is_told(again, image)
    assert again.stop() == 0
    shutil.rmtree(server.data / "index")
    lost = tidegate(config(far, open_far), workers=2, data=server.data, folder=tmp_path / "lost")
    assert_nothing_is_told(lost, image)
    assert lost.stop() == 0
    shutil.rmtree(server.data / "index")
    far.refusing = open_far.refusing = True
    alone = tidegate(config(far, open_far), workers=2, data=server.data, folder=tmp_path / "alone")
    digest = next(iter(known.blobs))
    assert get(alone, blob_path(f"{PUBLIC}/team/tool", digest)).is_blob(known.blobs[digest])
    for path, headers in [*spelled(f"blobs/{digest_of(SECRET)}"), *spelled(f"manifests/{image.digest}")]:
        got = get(alone, path, **headers)
        assert (got.status in (404, 503), SECRET[:16] in got.body) == (True, False), path
    assert get(alone, blob_path(f"{PRIVATE}/private/app", digest_of(SECRET))).status == 503


def test_a_pin_of_a_lure_gets_nothing(server, image):
    pull(server, image)
    line = [sys.executable, "-m", "proxy"]
    rest = ["--data", str(server.data), "-c", "/dev/null"]
    for name in (PRIVATE, PUBLIC):
        pin = subprocess.run(
            [*line, "pin", f"{name}/team/tool:layers", *rest], capture_output=True, text=True, cwd=ROOT
        )
        assert (pin.returncode, digest_of(SECRET)[7:19] in pin.stdout + pin.stderr) == (1, True)
    assert_nothing_is_told(server, image)


@pytest.mark.real("mount")
def test_a_full_disk_passes_on_what_was_proved_alone(tidegate, far, open_far, image, tmp_path):
    with disk(tmp_path / "disk", 40) as small:
        room = {"cache": {"min_free": "0B"}}
        server = tidegate(config(far, open_far) | room, data=small.path / "data", folder=tmp_path / "run", workers=2)
        lured(server)
        small.fill()
        assert get(server, blob_path(f"{PRIVATE}/private/app", digest_of(SECRET))).is_blob(SECRET)
        assert not finished(server, digest_of(SECRET)).exists()
        assert_nothing_is_told(server, image)


def test_lists_are_each_repositorys_own(server, image):
    pull(server, image)
    right = f"/v2/{PRIVATE}/private/app"
    assert json.loads(get(server, f"{right}/tags/list").body)["tags"] == ["sbom", "v1"]
    assert len(json.loads(get(server, f"{right}/referrers/{image.digest}").body)["manifests"]) == 1
    for path, headers in spelled(f"referrers/{image.digest}"):
        got = get(server, path, **headers)
        assert got.status == 404 or json.loads(got.body)["manifests"] == [], path
    for path, headers in spelled("tags/list"):
        assert b"sbom" not in get(server, path, **headers).body, path
    for path in ("/v2/_catalog", "/", "/api/images", "/metrics"):
        body = get(server, path).body.decode()
        assert "private/app" not in body, path
        assert digest_of(SECRET)[7:19] not in body, path


def test_what_is_pushed_cannot_name_it(server, image):
    """The bytes lie here, and yet no push may count them as present: neither as a child nor by a mount."""
    pull(server, image)
    registry = Registry("tidegate", server.url)
    secret, path = digest_of(SECRET), "/v2/dev/lure/blobs/uploads/?ns=localhost:5001"
    for source in ("", "&from=private/app", f"&from={PRIVATE}/private/app", "&from=vault/private/app"):
        registry.ask("POST", f"{path}&mount={secret}{source}").expect(202)
    config = make.blob(100)
    registry.ask("POST", f"{path}&digest={config.digest}", config.body).expect(201)
    said = {"config": {"mediaType": "a/b", "digest": config.digest, "size": 100},
            "layers": [{"mediaType": OCI_LAYER, "digest": secret, "size": MIB}]}  # fmt: skip
    index = {"manifests": [{"mediaType": OCI_MANIFEST, "digest": image.digest, "size": len(image.manifest)}]}
    for kind, document in ((OCI_MANIFEST, said), (OCI_INDEX, index)):
        body = json.dumps({"schemaVersion": 2, "mediaType": kind, **document}).encode()
        where = "/v2/dev/lure/manifests/1?ns=localhost:5001"
        registry.ask("PUT", where, body, **{"Content-Type": kind}).refused(404, "MANIFEST_BLOB_UNKNOWN")
    assert_nothing_is_told(server, image)


def test_without_a_user_nothing_is_told_where_users_are_asked_for(tidegate, far, open_far, image, tmp_path):
    import bcrypt

    users = tmp_path / "users"
    users.write_text(f"ci:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    auth = {"auth": {"pull": "users", "push": "users", "users_file": str(users)}}
    server = tidegate(config(far, open_far) | auth, workers=2)
    basic = {"Authorization": f"Basic {base64.b64encode(b'ci:secret').decode()}"}
    right = blob_path(f"{PRIVATE}/private/app", digest_of(SECRET))
    assert get(server, right, **basic).is_blob(SECRET)
    for method, more in PROBES:
        assert get(server, right, method, **more).status == 401
    assert_nothing_is_told(server, image, expected=401)


def test_a_client_certificate_is_a_credential(tmp_path):
    (tmp_path / "c.toml").write_text('[upstreams."a.example"]\ncert_file = "/x.pem"\n[upstreams."b.example"]\n')
    found = load(str(tmp_path / "c.toml"), {}, {}).upstreams
    assert [(each.public, each.on_gone) for each in found.values()] == [(False, "obey"), (True, "keep")]


def test_no_upstream_goes_by_the_name_of_what_is_pushed(tmp_path):
    """They would answer for each other out of a worker's memory."""
    (tmp_path / "c.toml").write_text('[local]\n[upstreams.local]\nurls = ["https://a.example"]\n')
    with pytest.raises(ConfigError, match=r"c.toml:\d+: an upstream cannot be named local"):
        load(str(tmp_path / "c.toml"), {}, {})


# What is everybody's


@pytest.fixture
def shared_layers(server, open_far):
    """A pulled whole; of B, another repository's image of the same layers, the manifest and the config only."""
    layers = [noise(MIB, number) for number in range(3)]
    one, two = open_far.add_image("team/a", "1", *layers), open_far.add_image("other/b", "2", *layers)
    own = next(digest for digest in two.blobs if digest not in one.blobs)
    for path in (f"team/a/manifests/{one.tag}", *(f"team/a/blobs/{each}" for each in one.blobs),
                 f"other/b/manifests/{two.tag}", f"other/b/blobs/{own}"):  # fmt: skip
        assert get(server, f"/v2/{PUBLIC}/{path}").status == 200
    for digest in {*one.blobs, own}:
        kept(server, digest)
    open_far.refusing = True
    return two


@pytest.mark.real("skopeo")
def test_skopeo_pulls_b_whole_from_what_was_pulled_of_a(server, shared_layers, tmp_path):
    done = skopeo_copy(f"{server.host}/{PUBLIC}/other/b:2", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    found = {digest_of(path.read_bytes()) for path in (tmp_path / "b").iterdir() if path.name != "version"}
    assert found == {shared_layers.digest, *shared_layers.blobs}


@pytest.mark.real("containerd")
def test_an_empty_node_pulls_b_whole_from_what_was_pulled_of_a(server, shared_layers, node):
    node.mirror(PUBLIC, server.url, server="http://127.0.0.1:1")
    name = node.node()
    done = node.fetch(f"{PUBLIC}/other/b:2", name, "--all-platforms")
    assert done.returncode == 0, done.stderr
    assert node.digests(name) == {shared_layers.digest, *shared_layers.blobs}


def test_layers_that_two_private_images_share_are_each_repositorys_own(server, far, image):
    """The same upstream, the same layer, and another repository that was never confirmed to have it."""
    far.add_image("private/b", "1", SECRET)
    pull(server, image)
    assert get(server, f"/v2/{PRIVATE}/private/b/manifests/1").status == 200
    far.refusing = True
    assert get(server, blob_path(f"{PRIVATE}/private/b", digest_of(SECRET))).status == 503
    far.refusing = False
    until(lambda: get(server, blob_path(f"{PRIVATE}/private/b", digest_of(SECRET)), "HEAD").status == 200)
    far.refusing = True
    assert get(server, blob_path(f"{PRIVATE}/private/b", digest_of(SECRET))).is_blob(SECRET)
