"""An upstream with a user name: one token for everybody who waits, secrets to their own host only, and what they opened
for one repository stays closed in the next.
"""

import base64
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes import Basic, Bearer, Cut, Drip, Stall, Status, origin_in_thread
from tests.support import MIB, blob_path, crowd, get, kept, noise, quick, spread, until, written

USER = {"username": "robot", "password": "s3cret-s3cret"}
PLAIN = base64.b64encode(b"robot:s3cret-s3cret").decode()


@pytest.fixture
def locked(far):
    """Two repositories behind bearer tokens."""
    far.auth = Bearer(*USER.values())
    far.add_image("private/app", "v1", noise(MIB))
    far.add_image("team/tool", "v1", noise(1000))
    return far


def test_one_token_for_20_concurrent_clients_and_one_more_when_it_is_worthless(tidegate, locked):
    server = tidegate(quick(locked.url, **USER), workers=1)
    blobs = [locked.add_blob("private/app", noise(3000, number)) for number in range(40)]
    with spread(server, 20) as clients, ThreadPoolExecutor(20) as pool:

        def pull(pair):
            return pair[0].get(blob_path("private/app", pair[1])).status

        assert set(pool.map(pull, zip(clients, blobs[:20], strict=True))) == {200}
        assert locked.auth.issued == 1
        locked.auth.revoke()
        assert set(pool.map(pull, zip(clients, blobs[20:], strict=True))) == {200}
    assert locked.auth.issued == 2
    assert locked.count("GET", "/token") == 2


def test_a_token_is_renewed_before_it_expires(tidegate, locked):
    locked.auth.expires_in = 6  # used for one second: five are kept as a margin
    server = tidegate(quick(locked.url, tag_ttl="0s", **USER), workers=1)
    path = "/v2/private/app/manifests/v1"
    assert get(server, path).status == 200
    until(lambda: get(server, path).status == 200 and locked.auth.issued == 2, 5)
    refused = [request for request in locked.log if request.status == 401]
    assert not any("authorization" in request.headers for request in refused)  # no old token was ever tried
    assert len(refused) == 2


def test_a_token_that_comes_in_pieces_is_read_whole(tidegate, locked):
    rule = locked.fault("/token", Drip(20, 0.02))
    server = tidegate(quick(locked.url, **USER), workers=1)
    assert get(server, "/v2/private/app/manifests/v1").status == 200
    assert rule.used == 1


@pytest.mark.parametrize("fault", [Stall(20), Cut(20)], ids=["stalls", "is cut"])
def test_a_token_service_that_stops_in_the_middle_is_waited_for_no_longer_than_a_stall(tidegate, locked, fault):
    locked.fault("/token", fault)
    server = tidegate(quick(locked.url, first_byte_deadline="8s", **USER), workers=1)
    got = get(server, "/v2/private/app/manifests/v1")
    assert (got.status, got.seconds < 6) == (503, True)


def test_a_token_service_that_sends_without_end_is_left(tidegate, locked):
    locked.fault("/token", Status(200, body=b" " * MIB))
    server = tidegate(quick(locked.url, **USER), workers=1)
    got = get(server, "/v2/private/app/manifests/v1")
    assert (got.status, "where a token was due" in got.reason) == (503, True)


def test_four_workers_take_a_token_each_at_most(tidegate, locked):
    server = tidegate(quick(locked.url, **USER), workers=4)
    with spread(server, 20) as clients:
        assert {got.status for got in crowd(clients, "/v2/private/app/manifests/v1")} == {200}
    assert locked.auth.issued == 1  # the manifest was asked for once on the machine


def test_basic_credentials(tidegate, far):
    far.auth = Basic(*USER.values())
    image = far.add_image("private/app", "v1", noise(1000))
    server = tidegate(quick(far.url, **USER), workers=1)
    for path in ("/v2/private/app/manifests/v1", *(blob_path("private/app", digest) for digest in image.blobs)):
        assert get(server, path).status == 200
    assert sum(request.status == 401 for request in far.log) <= 1


@pytest.mark.parametrize("auth", [Basic(*USER.values()), Bearer(*USER.values())], ids=["basic", "bearer"])
def test_wrong_credentials_are_told_apart_from_a_missing_image(tidegate, far, auth):
    far.auth = auth
    far.add_image("private/app", "v1", noise(1000))
    server = tidegate(quick(far.url, username="robot", password="wrong-wrong"), workers=2)
    got = get(server, "/v2/private/app/manifests/v1")
    assert got.status == 403
    assert "wrong-wrong" not in got.reason + got.body.decode() + server.stderr + server.stdout


@pytest.mark.parametrize("auth", [Basic(*USER.values()), Bearer(*USER.values())], ids=["basic", "bearer"])
def test_credentials_stay_behind_when_a_redirect_leads_elsewhere(tidegate, far, auth):
    content = noise(MIB)
    digest = far.add_blob("private/app", content)
    far.auth = auth
    with origin_in_thread() as other:
        other.add_blob("bucket", content)
        signed = f"{other.url}/v2/bucket/blobs/{digest}?X-Signature=a%2Fb%3D"
        far.fault(digest, Status(401, {"WWW-Authenticate": auth.challenge(far.url, "repository:private/app:pull")}),
                  times=1)  # fmt: skip
        far.fault(digest, Status(307, {"Location": signed}))
        server = tidegate(quick(far.url, **USER), workers=1)
        assert get(server, blob_path("private/app", digest)).is_blob(content)
        (asked,) = other.log
        assert "authorization" not in asked.headers
        assert asked.query == "X-Signature=a%2Fb%3D"
        assert far.log[-1].headers["authorization"]


@pytest.mark.parametrize("auth", [Basic(*USER.values()), Bearer(*USER.values())], ids=["basic", "bearer"])
def test_a_redirect_from_elsewhere_does_not_use_our_account(tidegate, far, auth):
    """The other host sends us back, to a path of its choice: what our account opens there stays closed."""
    far.auth = auth
    far.add_image("private/app", "v1", noise(1000))
    secret = far.add_image("secret", "v1", noise(1000))
    with origin_in_thread() as other:
        far.fault("app/manifests/v2", Status(307, {"Location": f"{other.url}/back"}))
        other.fault("/back", Status(307, {"Location": f"{far.url}/v2/secret/manifests/v1"}))
        server = tidegate(quick(far.url, **USER), workers=1)
        assert get(server, "/v2/private/app/manifests/v1").status == 200
        got = get(server, "/v2/private/app/manifests/v2")
        assert (got.status, got.body == secret.manifest) == (403, False)
        asked = [request for request in far.log if "/secret/" in request.path]
        assert [(request.status, "authorization" in request.headers) for request in asked] == [(401, False)]
        assert get(server, "/v2/secret/manifests/v1").body == secret.manifest


def test_a_host_we_are_redirected_to_may_want_an_anonymous_token(tidegate, far):
    far.auth = Basic(*USER.values())
    far.add_image("private/app", "v1", noise(1000))
    with origin_in_thread() as other:
        other.auth = Bearer()
        image = other.add_image("private/app", "v2", noise(1000))
        far.fault("app/manifests/v2", Status(307, {"Location": f"{other.url}/v2/private/app/manifests/v2"}))
        server = tidegate(quick(far.url, **USER), workers=1)
        assert get(server, "/v2/private/app/manifests/v2").body == image.manifest


def test_another_host_cannot_ask_for_the_password(tidegate, far):
    """The redirect's host answers 401 and names a realm: it is asked without our name, or not at all."""
    content = noise(1000)
    digest = far.add_blob("private/app", content)
    with origin_in_thread() as other:
        other.auth = Bearer(*USER.values())
        other.add_blob("bucket", content)
        far.fault(digest, Status(307, {"Location": f"{other.url}/v2/bucket/blobs/{digest}"}))
        server = tidegate(quick(far.url, **USER), workers=1)
        assert get(server, blob_path("private/app", digest)).status == 403
        assert not any(PLAIN in request.headers.get("authorization", "") for request in other.log)
        assert other.auth.issued == 0


def test_what_credentials_opened_is_not_visible_in_another_repository(tidegate, locked):
    content = noise(MIB)
    digest = locked.add_blob("private/app", content)
    manifest = locked.repos["private/app"].tags["v1"]
    lure = {"schemaVersion": 2, "layers": [{"mediaType": "a/b", "digest": digest, "size": len(content)}],
            "manifests": [{"mediaType": "a/b", "digest": manifest, "size": 5}]}  # fmt: skip
    locked.add_manifest("team/tool", "lure", json.dumps(lure).encode())
    server = tidegate(quick(locked.url, **USER), workers=2)
    assert get(server, blob_path("private/app", digest)).is_blob(content)
    assert kept(server, digest) == content
    assert get(server, f"/v2/private/app/manifests/{manifest}").status == 200
    assert get(server, "/v2/team/tool/manifests/lure").status == 200
    for method in ("GET", "HEAD"):
        assert get(server, blob_path("team/tool", digest), method).status == 404
        assert get(server, blob_path("team/tool", digest), method, Range="bytes=0-9").status == 404
        assert get(server, f"/v2/team/tool/manifests/{manifest}", method).status == 404
    assert get(server, blob_path("private/app", digest)).is_blob(content)


def test_a_running_fill_is_closed_to_another_repository(tidegate, locked):
    content = noise(4 * MIB)
    digest = locked.add_blob("private/app", content)
    locked.fault("/private/", Drip(128 << 10, 0.03))
    server = tidegate(quick(locked.url, **USER), workers=2)
    with spread(server, 6) as clients, ThreadPoolExecutor(6) as pool:
        first = pool.submit(clients[0].get, blob_path("private/app", digest))
        until(lambda: written(server, digest) > MIB)
        others = crowd(clients[1:], blob_path("team/tool", digest))
        assert not first.done()
        assert first.result().is_blob(content)
    assert {got.status for got in others} == {404}
    assert locked.count("GET", f"private/app/blobs/{digest}") == 2  # the first one brought the challenge
