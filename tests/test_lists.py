"""Lists, paged and filtered here because registry.k8s.io's redirects lose the query string."""

import json
from urllib.parse import quote

import pytest

from tests.fakes import Status, origin_in_thread
from tests.support import MIB, crowd, get, noise, quick, spread

REPO = "kube-apiserver"
TAGS = sorted(f"v1.{minor}.{patch}" for minor in range(5) for patch in range(5))
INDEX = "application/vnd.oci.image.index.v1+json"


def pages(server, path):
    """Every page's document, by following Link as a client does."""
    while path:
        got = get(server, path)
        assert got.status == 200
        yield json.loads(got.body)
        link = got.headers.get("Link")
        assert link is None or link.endswith('>; rel="next"')
        path = link and link[1:].partition(">")[0]


@pytest.fixture
def tagged(far):
    for tag in TAGS:
        far.add_manifest(REPO, tag, b"{}")
    return far


def test_tags_are_listed_whole_although_the_upstream_pages(tidegate, tagged):
    tagged.page = 4
    server = tidegate(quick(tagged.url), workers=4)
    with spread(server, 20) as clients:
        answers = crowd(clients, f"/v2/{REPO}/tags/list")
    assert all(json.loads(got.body) == {"name": REPO, "tags": TAGS} for got in answers)
    assert tagged.count() == 7
    get(server, f"/v2/{REPO}/tags/list?n=3")
    assert tagged.count() == 7  # fresh within the ttl, whatever page


def test_tags_are_paged(tidegate, tagged):
    server = tidegate(quick(tagged.url), workers=1)
    for size in (1, 7, 24, 25, 26):
        found = list(pages(server, f"/v2/{REPO}/tags/list?n={size}"))
        assert [tag for page in found for tag in page["tags"]] == TAGS
        assert all(len(page["tags"]) == size for page in found[:-1])
        assert len(found) == -(-len(TAGS) // size)


def test_tags_after_a_last_one(tidegate, tagged):
    server = tidegate(quick(tagged.url), workers=1)
    for last in (TAGS[10], TAGS[10] + "-", "v1.2.0"):
        got = json.loads(get(server, f"/v2/{REPO}/tags/list?last={quote(last)}").body)
        assert got["tags"] == [tag for tag in TAGS if tag > last]
    assert json.loads(get(server, f"/v2/{REPO}/tags/list?n=0").body)["tags"] == []
    assert get(server, f"/v2/{REPO}/tags/list?n=many").status == 400


def test_a_page_repeats_the_name_and_the_ns_it_was_asked_by(tidegate, tagged):
    server = tidegate(quick(tagged.url), workers=1)
    for path, query in ((f"registry.k8s.io/{REPO}", ""), (REPO, "&ns=k8s.gcr.io")):
        got = get(server, f"/v2/{path}/tags/list?n=20{query}")
        assert json.loads(got.body)["name"] == path
        rest = list(pages(server, got.headers["Link"][1:].partition(">")[0]))
        assert rest == [{"name": path, "tags": TAGS[20:]}]


@pytest.mark.parametrize("absolute", [False, True])
def test_a_list_behind_a_redirect_goes_on_where_it_was_found(tidegate, far, absolute):
    """registry.k8s.io redirects every list, and what a Link means is relative to where it stood."""
    with origin_in_thread() as behind:
        for tag in TAGS[:7]:
            behind.add_manifest(f"images/{REPO}", tag, b"{}")
        path = f"/v2/images/{REPO}/tags/list"
        far.fault(f"/v2/{REPO}/tags/list", Status(307, {"Location": f"{behind.url}{path}"}))
        behind.page = 3
        if absolute:
            link = {"Link": f'<{behind.url}{path}?n=3&last={TAGS[2]}>; rel="next"'}
            first = json.dumps({"name": REPO, "tags": TAGS[:3]}).encode()
            behind.fault(path, Status(200, link, first), times=1)
        server = tidegate(quick(far.url), workers=1)
        assert json.loads(get(server, f"/v2/{REPO}/tags/list").body)["tags"] == TAGS[:7]
        assert (far.count(), behind.count()) == (1, 3)


@pytest.mark.parametrize("status", [404, 500])
def test_a_list_that_breaks_off_is_no_unknown_name(tidegate, tagged, status):
    tagged.page = 4
    tagged.fault("last=", Status(status))
    server = tidegate(quick(tagged.url), workers=1)
    got = get(server, f"/v2/{REPO}/tags/list")
    assert (got.status, tagged.count() >= 2) == (503, True)


def test_a_list_is_bounded_over_all_its_pages(tidegate, tagged):
    page = b'{"tags": []' + b" " * (25 * MIB) + b"}"
    link = {"Link": f'</v2/{REPO}/tags/list?more>; rel="next"'}
    rule = tagged.fault("/tags/list", Status(200, link, page))
    server = tidegate(quick(tagged.url), workers=1)
    got = get(server, f"/v2/{REPO}/tags/list")
    assert (got.status, "sent too much where a list was due" in got.reason) == (503, True)
    assert rule.used in (3, 6), "it may be asked twice"


def test_a_list_of_nothing_and_an_upstream_in_trouble(tidegate, tagged):
    server = tidegate(quick(tagged.url, tag_ttl="0s"), workers=2)
    unknown = get(server, "/v2/no/such/tags/list")
    assert (unknown.status, json.loads(unknown.body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")
    assert get(server, f"/v2/{REPO}/tags/list").status == 200
    tagged.fault("/v2/", Status(500))
    stale = get(server, f"/v2/{REPO}/tags/list")
    assert json.loads(stale.body)["tags"] == TAGS
    other = get(server, "/v2/other/tags/list")
    assert other.status == 503


@pytest.fixture
def signed(far):
    """An image, 5 signatures and 2 reports that refer to it."""
    image = far.add_image(REPO, "v1", noise(100))
    rows = []
    for kind, count in (("application/sig", 5), ("application/sbom", 2)):
        for number in range(count):
            document = {"schemaVersion": 2, "artifactType": kind, "subject": {"digest": image.digest}, "n": number}
            rows.append((far.add_manifest(REPO, None, json.dumps(document).encode()), kind))
    return image.digest, rows


def referred(server, digest, query=""):
    got = get(server, f"/v2/{REPO}/referrers/{digest}{query}")
    assert (got.status, got.headers["Content-Type"]) == (200, INDEX)
    document = json.loads(got.body)
    assert (document["schemaVersion"], document["mediaType"]) == (2, INDEX)
    return got, sorted((row["digest"], row["artifactType"]) for row in document["manifests"])


def test_referrers(tidegate, far, signed):
    digest, rows = signed
    server = tidegate(quick(far.url), workers=4)
    assert referred(server, digest)[1] == sorted(rows)
    got, signatures = referred(server, digest, "?artifactType=application%2Fsig")
    assert signatures == sorted(row for row in rows if row[1] == "application/sig")
    assert got.headers["OCI-Filters-Applied"] == "artifactType"
    assert referred(server, digest, "?artifactType=none")[1] == []
    found = list(pages(server, f"/v2/{REPO}/referrers/{digest}?n=2&artifactType=application/sig"))
    assert [len(page["manifests"]) for page in found] == [2, 2, 1]
    assert sorted(row["digest"] for page in found for row in page["manifests"]) == [row[0] for row in signatures]
    assert far.count() == 1
    assert get(server, f"/v2/{REPO}/referrers/sha256:short").status == 400


@pytest.mark.parametrize("fallback", [True, False], ids=["fallback tag", "none"])
def test_referrers_of_an_upstream_without_that_api(tidegate, far, signed, fallback):
    digest, rows = signed
    far.has_referrers = False
    if fallback:
        listed = [{"mediaType": "a/b", "digest": row, "size": 2, "artifactType": kind} for row, kind in rows]
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}
        far.add_manifest(REPO, digest.replace(":", "-"), json.dumps(document).encode(), INDEX)
    server = tidegate(quick(far.url), workers=2)
    assert referred(server, digest)[1] == (sorted(rows) if fallback else [])
    wanted = [row for row in sorted(rows) if row[1] == "application/sbom"] if fallback else []
    assert referred(server, digest, "?artifactType=application/sbom")[1] == wanted
    assert far.count() == 2
