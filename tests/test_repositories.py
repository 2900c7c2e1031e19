"""Which repositories are served, and to whom: refused by name before anything is asked or taken from the cache."""

import base64
import contextlib
import http.client
import json

import pytest

from tests.real.tidegate import upstream_config
from tests.real.tools import skopeo_inspect
from tests.support import blob_path, digest_of, get
from tests.unit.callers import write_users

RULES = {"repositories": ["team/*", "pause"], "deny_repositories": ["team/secret*"]}


@pytest.fixture
def filled(far):
    """Three images of one layer each, and the layer's digest."""
    for name in ("pause", "team/app", "team/secret-app", "other"):
        far.add_image(name, "1", b"layer")
    return digest_of(b"layer")


def refused(server, path, words, method="GET"):
    got = get(server, path, method)
    assert got.status == 403
    assert words in got.reason
    if method == "GET":
        assert json.loads(got.body)["errors"][0]["code"] == "DENIED"


def test_a_repository_that_is_not_allowed_is_refused_and_nobody_is_asked(tidegate, far, filled):
    server = tidegate(upstream_config(far.url, **RULES), workers=1)
    for name in ("pause", "team/app"):
        assert get(server, f"/v2/{name}/manifests/1").status == 200
        assert get(server, blob_path(name, filled)).status == 200
    asked = far.count()
    for name in ("other", "paused", "team"):
        words = (
            f"registry.k8s.io/{name} is not served here: nothing in upstreams.registry.k8s.io.repositories allows it"
        )
        refused(server, f"/v2/{name}/manifests/1", words)
        refused(server, f"/v2/{name}/manifests/1", words, "HEAD")
        refused(server, f"/v2/registry.k8s.io/{name}/tags/list", words)
        refused(server, f"/v2/{name}/manifests/1?ns=k8s.gcr.io", words)
        refused(server, blob_path(name, filled), words)
        refused(server, f"/v2/{name}/referrers/{filled}", words)
    words = "it matches team/secret* of upstreams.registry.k8s.io.deny_repositories"
    refused(server, "/v2/team/secret-app/manifests/1", words)
    refused(server, blob_path("team/secret-app", filled), words)
    assert far.count() == asked
    assert server.metrics().total("tidegate_requests_total", result="denied") == 20


def test_what_is_cached_is_refused_too(tidegate, far, filled, tmp_path):
    server = tidegate(upstream_config(far.url), workers=1)
    for name in ("other", "team/secret-app"):
        assert get(server, f"/v2/{name}/manifests/1").status == 200
        assert get(server, blob_path(name, filled)).status == 200
    server.stop()
    asked = far.count()
    server = tidegate(upstream_config(far.url, **RULES), workers=1)
    for name in ("other", "team/secret-app"):
        refused(server, f"/v2/{name}/manifests/1", "is not served here")
        refused(server, blob_path(name, filled), "is not served here")
    assert far.count() == asked


@pytest.mark.real("skopeo")
def test_skopeo_prints_the_rule(tidegate, far, filled):
    server = tidegate(upstream_config(far.url, **RULES), workers=1)
    done = skopeo_inspect(f"{server.host}/registry.k8s.io/other:1")
    assert done.returncode != 0
    assert "nothing in upstreams.registry.k8s.io.repositories allows it" in done.stderr


def test_the_next_registry_is_not_asked_for_a_refused_name(tidegate, far, filled):
    """A refusal ends the search: else another registry could say what a name means that was refused on purpose."""
    config = upstream_config(far.url, repositories=["pause"])
    config["upstreams"] |= upstream_config(far.url, "quay.io")["upstreams"]
    server = tidegate(config | {"server": {"unqualified": ["registry.k8s.io", "quay.io"]}}, workers=1)
    assert get(server, "/v2/pause/manifests/1").status == 200
    refused(server, "/v2/other/manifests/1", "nothing in upstreams.registry.k8s.io.repositories allows it")
    assert get(server, "/v2/quay.io/other/manifests/1").status == 200


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


ALICE, BOB = basic("alice", "s3cret"), basic("bob", "hunter2")


@pytest.fixture
def guarded(tidegate, far, tmp_path):
    """Alice may push and pull ops/*, both may pull public/*, bob pushes public/*; both have pushed one blob."""
    auth = {
        "push": "users",
        "pull": "users",
        "users_file": str(write_users(tmp_path)),
        "push_names": ["alice=ops/*", "bob=public/*"],
        "pull_names": ["*=public/*"],
    }
    server = tidegate(upstream_config(far.url) | {"auth": auth, "local": {"own": []}}, workers=1)
    for who, name in ((ALICE, "ops/app"), (BOB, "public/app")):
        assert push(server, name, name.encode(), who) == 201
    return server


def send(server, method, path, content, who):
    """The status of what takes a body."""
    sender = http.client.HTTPConnection(server.host, timeout=20)
    with contextlib.closing(sender):
        sender.request(method, path, content, {**who, "Content-Type": "application/vnd.oci.image.index.v1+json"})
        return sender.getresponse().status


def push(server, name, content, who):
    return send(server, "POST", f"/v2/{name}/blobs/uploads/?digest={digest_of(content)}", content, who)


def test_who_may_pull_what_was_pushed(guarded):
    secret, public = digest_of(b"ops/app"), digest_of(b"public/app")
    assert get(guarded, blob_path("ops/app", secret), **ALICE).status == 200, "who may push it may pull it"
    assert get(guarded, blob_path("public/app", public), **ALICE).status == 200
    denied = get(guarded, blob_path("ops/app", secret), **BOB)
    assert (denied.status, "bob may not pull ops/app; auth.pull_names" in denied.reason) == (403, True)
    assert get(guarded, blob_path("ops/app", secret)).status == 401
    assert "hunter2" not in guarded.stdout + guarded.stderr


def test_names_are_listed_to_who_may_pull_them(guarded, far):
    content = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []})
    for who, name in ((ALICE, "ops/app"), (BOB, "public/app")):
        assert send(guarded, "PUT", f"/v2/{name}/manifests/1", content.encode(), who) == 201
    for who, names in ((ALICE, ["ops/app", "public/app"]), (BOB, ["public/app"])):
        assert json.loads(get(guarded, "/v2/_catalog", **who).body) == {"repositories": names}
    assert get(guarded, "/v2/_catalog").status == 401


@pytest.mark.parametrize("source", ["&from=ops/app", ""])
def test_a_mount_is_no_way_around(guarded, source):
    secret = digest_of(b"ops/app")
    start = get(guarded, f"/v2/public/theft/blobs/uploads/?mount={secret}{source}", "POST", **BOB)
    assert start.status == 202, "an upload is begun instead, which needs the bytes"
    assert get(guarded, blob_path("public/theft", secret), **BOB).status == 404
    start = get(guarded, f"/v2/ops/again/blobs/uploads/?mount={secret}&from=ops/app", "POST", **ALICE)
    assert start.status == 201
