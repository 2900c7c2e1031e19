"""Names that may move: fresh within the TTL without asking, then one question a machine, and never a worse answer than
the one we have.
"""

import json
import time

import pytest

from tests.fakes import Hangup, Html, NoLength, Silence, Status
from tests.support import client, crowd, get, kept, quick, spread, until

REPO = "pause"
PATH = f"/v2/{REPO}/manifests/3.10"
TTL = 2.0
DOCKER = "application/vnd.docker.distribution.manifest"
OCI = "application/vnd.oci.image"


def outlive(seconds, since):
    until(lambda: time.monotonic() > since + seconds, seconds + 5)


def push(far, text):
    """Move the tag to another manifest."""
    content = json.dumps({"schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json", "text": text}).encode()
    return far.add_manifest(REPO, "3.10", content), content


def test_a_cold_tag_costs_one_request_and_is_not_asked_again_within_its_ttl(tidegate, far):
    digest, content = push(far, "one")
    server = tidegate(quick(far.url), workers=4)
    with spread(server, 20) as clients:
        answers = crowd(clients, PATH) + crowd(clients, PATH) + crowd(clients, f"/v2/{REPO}/manifests/{digest}")
    assert all(got.is_blob(content) and got.headers["Docker-Content-Digest"] == digest for got in answers)
    assert [request.method for request in far.log] == ["GET"]
    far.refusing = True
    head = get(server, PATH, "HEAD")
    assert (head.status, head.headers["Content-Length"], head.headers["ETag"]) == (
        200,
        str(len(content)),
        f'"{digest}"',
    )


def test_after_the_ttl_one_head_a_machine_and_no_body_where_nothing_changed(tidegate, far):
    _, content = push(far, "one")
    server = tidegate(quick(far.url, tag_ttl=f"{TTL:g}s"), workers=4)
    with spread(server, 80) as clients:
        assert all(got.is_blob(content) for got in crowd(clients, PATH))
        outlive(TTL, time.monotonic())
        far.log.clear()
        assert all(got.is_blob(content) for got in crowd(clients, PATH))
    assert [request.method for request in far.log] == ["HEAD"]
    until(lambda: server.metrics().total("tidegate_requests_total", kind="tag", result="revalidated") >= 1)


def test_a_moved_tag_is_new_from_every_worker(tidegate, far):
    push(far, "one")
    server = tidegate(quick(far.url, tag_ttl=f"{TTL:g}s"), workers=4)
    with spread(server, 20) as clients:
        crowd(clients, PATH)
        asked = time.monotonic()
        digest, content = push(far, "two")
        outlive(TTL, asked)
        far.log.clear()
        assert clients[0].get(PATH).is_blob(content)
        answers = crowd(clients, PATH)
    assert all(got.is_blob(content) and got.headers["Docker-Content-Digest"] == digest for got in answers)
    assert [(request.method, request.path.rpartition("/")[2]) for request in far.log] == [
        ("HEAD", "3.10"),
        ("GET", digest),
    ]


def test_a_digest_asks_nothing_however_old(tidegate, far):
    digest, content = push(far, "one")
    server = tidegate(quick(far.url, tag_ttl="0s"), workers=2)
    path = f"/v2/{REPO}/manifests/{digest}"
    with spread(server, 4) as clients:
        assert all(got.is_blob(content) for got in crowd(clients, path))
        far.refusing = True
        assert all(got.is_blob(content) for got in crowd(clients, path))
    assert far.count() == 1


TROUBLE = {
    "never": Silence(),
    "500": Status(500),
    "429": Status(429, {"Retry-After": "9"}),
    "hangs up": Hangup(),
    "web page": Html(),
    "refused": None,
    "404": Status(404),
    "403": Status(403),
    "401": Status(401),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_known_tag_is_answered_stale_when_the_upstream_cannot_confirm_it(tidegate, far, trouble):
    """404, 403 and 401 too: without credentials a 403 may be a geo-block, and people want what was deleted."""
    _, content = push(far, "one")
    server = tidegate(quick(far.url, tag_ttl="0s", first_byte_deadline="1s"), workers=2)
    assert get(server, PATH).is_blob(content)
    if TROUBLE[trouble] is None:
        far.refusing = True
    else:
        far.fault("/v2/", TROUBLE[trouble])
    with spread(server, 10) as clients:
        answers = crowd(clients, PATH)
    assert all(got.is_blob(content) and got.seconds < 3 for got in answers)
    assert all(got.headers["Warning"].startswith("299 - ") for got in answers)
    until(lambda: server.metrics().total("tidegate_requests_total", kind="tag", result="stale") == 10)
    assert far.count() <= 6


@pytest.mark.parametrize(("code", "status"), [(404, 404), (403, 403), (401, 403)])
def test_a_deleted_tag_is_obeyed_where_that_is_set(tidegate, far, code, status):
    push(far, "one")
    server = tidegate(quick(far.url, tag_ttl="0s", on_gone="obey"), workers=2)
    assert get(server, PATH).status == 200
    far.fault("/v2/", Status(code))
    with spread(server, 10) as clients:
        assert {got.status for got in crowd(clients, PATH)} == {status}


def test_stale_answers_end_where_that_is_set(tidegate, far):
    push(far, "one")
    server = tidegate(quick(far.url, tag_ttl="0s", stale_if_error="0s"), workers=2)
    assert get(server, PATH).status == 200
    far.refusing = True
    assert get(server, PATH).status == 503


@pytest.mark.parametrize("code", [404, 403, 500, 429])
def test_an_unknown_tag_costs_one_chain(tidegate, far, code):
    far.fault("/v2/", Status(code))
    server = tidegate(quick(far.url), workers=4)
    with spread(server, 40) as clients:
        assert {got.status for got in crowd(clients, PATH)} == {code if code < 429 else 503}
    assert far.count() <= (4 if code == 500 else 1)


def test_a_manifest_that_does_not_match_its_digest_is_never_kept(tidegate, far):
    digest, content = push(far, "one")
    far.repos[REPO].manifests[digest] = (content + b" ", f"{OCI}.manifest.v1+json")
    server = tidegate(quick(far.url), workers=2)
    for path in (f"/v2/{REPO}/manifests/{digest}", PATH):
        refused = get(server, path)
        assert refused.status == 503
        assert "does not match" in refused.reason
    far.repos[REPO].manifests[digest] = (content, f"{OCI}.manifest.v1+json")
    assert until(lambda: get(server, PATH).is_blob(content))
    assert kept(server, digest) == content


def test_a_web_page_is_no_manifest(tidegate, far):
    _, content = push(far, "one")
    page = far.fault("/v2/", Html())
    server = tidegate(quick(far.url), workers=2)
    refused = get(server, PATH)
    assert refused.status == 503
    assert "web page" in refused.reason
    far.rules.remove(page)
    assert until(lambda: get(server, PATH).is_blob(content))


FORMS = {
    "docker schema 2": (f"{DOCKER}.v2+json", b'{"schemaVersion": 2,\n\t"layers": []}'),
    "docker list": (f"{DOCKER}.list.v2+json", b'{"schemaVersion":2,"manifests":[]}\n\n'),
    "OCI manifest": (f"{OCI}.manifest.v1+json", b'\r\n  {"schemaVersion" :2 , "layers":[ ]}'),
    "OCI index": (f"{OCI}.index.v1+json", '{"schemaVersion":2,"manifests":[],"x":"\u00e4\\u00e4"}'.encode()),
    "artifact": ("application/vnd.example.thing+json", b'{"a":1,"a":2}'),
}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("form", FORMS)
def test_manifests_are_byte_exact(shared, form, algorithm):
    far, server = shared
    media_type, content = FORMS[form]
    repo = f"{algorithm}/{form.lower().replace(' ', '-')}"
    digest = far.add_manifest(repo, "v1", content, media_type, algorithm)
    far.fault(repo, NoLength())
    for reference in ("v1", digest):
        for accept in ("*/*", "text/html", f"{OCI}.manifest.v1+json"):
            got = get(server, f"/v2/{repo}/manifests/{reference}", Accept=accept)
            assert got.is_blob(content)
            assert got.headers["Content-Type"] == media_type
            assert got.headers["Docker-Content-Digest"] == digest
            assert got.headers["Content-Length"] == str(len(content))
    assert far.count(contains=repo) == 1
    assert get(server, f"/v2/{repo}/blobs/{digest}").status == 404  # a manifest is no blob


def test_a_manifest_somebody_has_is_not_sent_again(tidegate, far):
    digest, _ = push(far, "one")
    server = tidegate(quick(far.url), workers=1)
    with client(server) as one:
        for _ in range(2):
            got = one.get(PATH, If_None_Match=f'"{digest}"')
            assert (got.status, got.body, got.headers["ETag"]) == (304, b"", f'"{digest}"')
