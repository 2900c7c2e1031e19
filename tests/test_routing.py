"""Which registry answers for a name, end to end: two origins with an image of the same name and different bytes.

The rules themselves are tested in tests/unit/test_route.py; here it is one configuration file, one server and what the
origins were asked.
"""

import json
import re

import pytest

from tests.fakes import origin_in_thread
from tests.fakes.origin import OCI_MANIFEST
from tests.support import get, quick

K8S, QUAY = "registry.k8s.io", "quay.io"
TAGS = [f"v{number}" for number in range(1, 6)]


@pytest.fixture
def quay():
    with origin_in_thread() as running:
        yield running


@pytest.fixture
def served(far, quay):
    """{registry: image}: `app` in both, `only` in quay alone."""
    quay.add_image("only", "v1", b"only in quay")
    found = {}
    for name, origin in ((K8S, far), (QUAY, quay)):
        for tag in TAGS:
            image = origin.add_image("app", tag, f"{name} {tag}".encode())
            found.setdefault(name, image)
    return found


@pytest.fixture
def cache(tidegate, served, far, quay):
    return tidegate(f"""
        server.names = ["cache.example:5000"]
        server.unqualified = ["{K8S}", "{QUAY}"]
        [upstreams."{K8S}"]
        urls = ["{far.url}"]
        hosts = ["k8s.cache.example"]
        prefix = "k8s"
        [upstreams]
        "{QUAY}" = {{urls = ["{quay.url}"]}}
        """)


@pytest.mark.parametrize(
    ("path", "host", "who"),
    [
        (f"/v2/{K8S}/app/manifests/v1", None, K8S),
        ("/v2/k8s/app/manifests/v1", None, K8S),
        ("/v2/k8s.gcr.io/app/manifests/v1", None, K8S),
        (f"/v2/{QUAY}/app/manifests/v1", None, QUAY),
        (f"/v2/app/manifests/v1?ns={QUAY}", None, QUAY),
        ("/v2/app/manifests/v1?ns=QUAY.io:443", None, QUAY),
        (f"/v2/{QUAY}/app/manifests/v1?ns={QUAY}", None, QUAY),
        (f"/v2/k8s/app/manifests/v1?ns={K8S}", None, K8S),
        (f"/v2/{QUAY}/app/manifests/v1?ns=cache.example:5000", None, QUAY),
        ("/v2/app/manifests/v1", "k8s.cache.example", K8S),
        ("/v2/app/manifests/v1", "K8S.cache.example:80", K8S),
        (f"/v2/app/manifests/v1?ns={QUAY}", "k8s.cache.example", QUAY),
        ("/v2/app/manifests/v1", None, K8S),
    ],
)
def test_who_answers(cache, served, path, host, who):
    got = get(cache, path, **({"Host": host} if host else {}))
    assert (got.status, got.body) == (200, served[who].manifest)
    assert got.headers["OCI-Namespace"] == (who if "ns=" in path else None)


def test_a_name_without_registry_goes_on_after_a_404_and_its_blobs_follow(cache, quay, far):
    got = get(cache, "/v2/only/manifests/v1")
    assert got.status == 200
    config = json.loads(got.body)["config"]["digest"]
    assert get(cache, f"/v2/only/blobs/{config}").status == 200
    assert far.count(contains=config) == 0
    assert quay.count("GET", config) == 1


@pytest.mark.parametrize(
    "path",
    ["/v2/app/manifests/v1?ns=ghcr.io", "/v2/ghcr.io/app/manifests/v1", "/v2/localhost/app/manifests/v1",
     "/v2/127.0.0.1:1/app/tags/list", "/v2/app/manifests/v1?ns=169.254.169.254", "/v2/app/tags/list?ns=a/../b"],
)  # fmt: skip
def test_what_nobody_configured_is_refused_and_never_dialled(cache, far, quay, path):
    got = get(cache, path)
    assert got.status == 403
    assert all(name in got.reason for name in (K8S, QUAY, "k8s.gcr.io", "k8s"))
    assert far.count() + quay.count() == 0


def test_two_names_that_contradict_each_other(cache, far, quay):
    got = get(cache, f"/v2/{QUAY}/app/manifests/v1?ns={K8S}")
    assert got.status == 403
    assert K8S in got.reason and QUAY in got.reason
    assert far.count() + quay.count() == 0


def pages(cache, path):
    """(names, tags) of all pages, by following Link as a client does."""
    names, tags = set(), []
    while path:
        got = get(cache, path)
        assert got.status == 200, got
        document = json.loads(got.body)
        names.add(document["name"])
        tags.append(document["tags"])
        link = got.headers["Link"]
        path = re.fullmatch(r'<(/v2/\S+)>; rel="next"', link)[1] if link else None
    return names, tags


@pytest.mark.parametrize(
    ("name", "more", "who"),
    [
        ("app", "", 0),
        ("k8s/app", "", 0),
        (f"{QUAY}/app", "", 1),
        ("app", f"&ns={QUAY}", 1),
        (f"{K8S}/app", f"&ns={K8S}", 0),
    ],
)
def test_pages_of_tags_keep_the_name_they_were_asked_by(cache, far, quay, name, more, who):
    assert pages(cache, f"/v2/{name}/tags/list?n=2{more}") == ({name}, [TAGS[:2], TAGS[2:4], TAGS[4:]])
    assert pages(cache, f"/v2/{name}/tags/list?n=2&last=v3{more}") == ({name}, [TAGS[3:]])
    assert [far.count(), quay.count()] == ([1, 0], [0, 1])[who]  # paged here: the redirector would lose the query


def test_pages_of_referrers_keep_ns_and_type(cache, quay, served):
    subject = served[QUAY].digest
    for number in range(3):
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": "example/sbom", "layers": [number],
                    "subject": {"mediaType": OCI_MANIFEST, "digest": subject, "size": 1}}  # fmt: skip
        quay.add_manifest("app", None, json.dumps(document).encode())
    path, found = f"/v2/app/referrers/{subject}?artifactType=example%2Fsbom&n=2&ns={QUAY}", []
    while path:
        got = get(cache, path)
        assert got.headers["OCI-Filters-Applied"] == "artifactType"
        found += [row["digest"] for row in json.loads(got.body)["manifests"]]
        link = got.headers["Link"]
        path = re.fullmatch(r'<(/v2/app/referrers/\S+)>; rel="next"', link)[1] if link else None
    assert len(found) == len(set(found)) == 3


@pytest.mark.parametrize(
    ("url", "ns"), [("http://bücher.example:5000", "xn--bcher-kva.example:5000"), ("http://my_cache", "")]
)
def test_a_name_of_our_own_that_clients_write_otherwise_or_cannot_write(tidegate, far, url, ns):
    image = far.add_image("app", "v1", b"content")
    server = tidegate({"server": {"url": url}, **quick(far.url)}, workers=1)
    assert get(server, f"/v2/app/manifests/v1?ns={ns}").body == image.manifest
