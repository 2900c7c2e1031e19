"""Whatever method and path a client sends is a call or a clean 4xx."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import RegistryError
from proxy.oci.calls import PAGE_LIMIT, GetBlob, GetManifest, ListReferrers, ListTags, Ping, Request, parse
from proxy.oci.digest import Digest
from proxy.oci.names import Tag

D256 = f"sha256:{'ab' * 32}"
D512 = f"sha512:{'cd' * 64}"


@pytest.mark.parametrize(
    ("path", "call"),
    [
        ("/v2/", Ping()),
        ("/v2", Ping()),
        ("http://cache.corp:5000/v2/", Ping()),
        ("HTTPS://cache.corp/v2/a/tags/list?n=50&last=v1", ListTags("a", 50, "v1")),
        ("/v2/pause/manifests/3.9", GetManifest("pause", Tag("3.9"))),
        (f"/v2/a/b/c/manifests/{D256}", GetManifest("a/b/c", Digest(D256))),
        (f"/v2/pause/manifests/{D256.replace(':', '%3A')}", GetManifest("pause", Digest(D256))),
        (f"/v2/pause/blobs/{D512}", GetBlob("pause", Digest(D512))),
        ("/v2/localhost:5001/x/manifests/a", GetManifest("localhost:5001/x", Tag("a"))),
        ("/v2/manifests/manifests/manifests", GetManifest("manifests", Tag("manifests"))),
        ("/v2/a/tags/list/tags/list", ListTags("a/tags/list", None, None)),
        ("/v2/a/tags/list", ListTags("a", None, None)),
        ("/v2/a/tags/list?n=0", ListTags("a", 0, None)),
        ("/v2/a/tags/list?n=50&last=v1.0", ListTags("a", 50, "v1.0")),
        ("/v2/a/tags/list?n=999999999", ListTags("a", PAGE_LIMIT, None)),
        ("/v2/a/tags/list?n=5&last=", ListTags("a", 5, None)),
        (f"/v2/a/referrers/{D256}", ListReferrers("a", Digest(D256), None, None, None)),
        (
            f"/v2/a/referrers/{D256}?artifactType=application%2Fx%2Bjson&n=1",
            ListReferrers("a", Digest(D256), "application/x+json", 1, None),
        ),
    ],
)
def test_calls_of_the_specification(path, call):
    assert parse("GET", path) == Request(call, None, False)
    assert parse("HEAD", path) == Request(call, None, True)


def test_the_namespace_is_kept_as_sent():
    assert parse("HEAD", "/v2/pause/manifests/3.9?ns=Registry.K8s.IO%3A443").namespace == "Registry.K8s.IO:443"
    assert parse("HEAD", "/v2/pause/manifests/3.9?ns=").namespace is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW", "get"])
@pytest.mark.parametrize("path", ["/v2/", "/v2/a/manifests/v1", f"/v2/a/blobs/{D256}", "/v2/a/tags/list"])
def test_writes_are_405(method, path):
    with pytest.raises(RegistryError) as refused:
        parse(method, path)
    assert (refused.value.status, refused.value.code) == (405, "UNSUPPORTED")


@pytest.mark.parametrize("path", ["/v2/a/blobs/uploads/", "/v2/a/blobs/uploads", "/v2/a/b/blobs/uploads/some-id"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET"])
def test_uploads_are_405(method, path):
    with pytest.raises(RegistryError) as refused:
        parse(method, path)
    assert refused.value.status == 405


HOSTILE = {
    "parent": "/v2/../manifests/v1",
    "parent inside": "/v2/a/../../etc/passwd/manifests/v1",
    "escaped parent": "/v2/%2e%2e/manifests/v1",
    "escaped parent inside": "/v2/a/%2e%2e/%2E%2E/blobs/" + D256,
    "escaped slash": "/v2/a%2f..%2fb/manifests/v1",
    "parent as reference": "/v2/a/manifests/..",
    "escaped parent as reference": "/v2/a/manifests/%2e%2e",
    "parent as digest": "/v2/a/blobs/../../../etc/passwd",
    "file as digest": "/v2/a/blobs/sha256:../../../../etc/passwd",
    "null": "/v2/a\0b/manifests/v1",
    "escaped null": "/v2/a%00b/manifests/v1",
    "null in reference": "/v2/a/manifests/v%001",
    "newline": "/v2/a%0d%0ab/manifests/v1",
    "newline in reference": "/v2/a/manifests/v1%0d%0aX: y",
    "not utf-8": "/v2/%ff/manifests/%ff",
    "lone surrogate": "/v2/\udcff/manifests/\udcff",
    "escaped percent": "/v2/a/manifests/%252e%252e",
    "long name": f"/v2/{'a' * 5000}/manifests/v1",
    "many segments": f"/v2/{'a/' * 20000}manifests/v1",
    "many segments to nowhere": f"/v2/{'a/' * 20000}b",
    "many keywords": f"/v2/{'manifests/' * 5000}",
    "long reference": f"/v2/a/manifests/{'v' * 129}",
    "short digest": f"/v2/a/blobs/{D256[:-1]}",
    "long digest": f"/v2/a/blobs/{D256}0",
    "upper case digest": f"/v2/a/blobs/sha256:{'AB' * 32}",
    "unknown algorithm": f"/v2/a/blobs/md5:{'ab' * 16}",
    "empty name": "/v2//manifests/v1",
    "no name": "/v2/manifests/v1",
    "no reference": "/v2/a/manifests/",
    "no digest": "/v2/a/referrers/",
    "catalog": "/v2/_catalog",
    "root": "/",
    "nothing": "",
    "old api": "/v1/_ping",
    "other case": "/V2/",
    "another scheme": "ftp://elsewhere/v2/",
    "negative n": "/v2/a/tags/list?n=-1",
    "word n": "/v2/a/tags/list?n=ten",
    "other digits": "/v2/a/tags/list?n=%D9%A1",
    "huge n": f"/v2/a/tags/list?n={'9' * 6000}",
    "last no tag": "/v2/a/tags/list?last=..%2f",
    "query not utf-8": "/v2/a/tags/list?n=%ff",
    "thousands of fields": "/v2/a/tags/list?" + "&".join(f"x{i}=1" for i in range(5000)),
}


@pytest.mark.parametrize("path", HOSTILE.values(), ids=HOSTILE)
def test_hostile_paths_are_clean_4xx_and_quick(path):
    began = time.process_time()
    with pytest.raises(RegistryError) as refused:
        parse("GET", path)
    assert 400 <= refused.value.status < 500
    assert "\n" not in refused.value.reason()
    refused.value.body().decode("ascii")
    assert time.process_time() - began < 0.5


PIECE = st.sampled_from(
    [
        "v2",
        "a",
        "manifests",
        "blobs",
        "uploads",
        "tags",
        "list",
        "referrers",
        "..",
        ".",
        "",
        "%2e%2e",
        "%00",
        "%ff",
        "%",
    ]
    + [D256, D512, "sha256:", "v1", "\0", "\udcff", "\xe4", "?", "#", "ns=x"]
)
QUERY = st.lists(
    st.sampled_from(
        ["n=1", "n=", "n=x", "last=a", "last=%ff", "ns=a", "ns=%00", "artifactType=%zz", "&", "=", ";", "%"]
    ),
    max_size=5,
).map("&".join)
PATH = st.text(max_size=60) | st.builds(
    lambda parts, query: f"/v2/{'/'.join(parts)}?{query}", st.lists(PIECE, max_size=8), QUERY
)


@given(st.sampled_from(["GET", "HEAD", "PUT", "\xe4", ""]), PATH)
def test_anything_is_a_call_or_a_registry_error(method, path):
    try:
        request = parse(method, path)
    except RegistryError as error:
        assert 400 <= error.status < 500
    else:
        assert method in ("GET", "HEAD")
        assert isinstance(request.call, Ping | GetBlob | GetManifest | ListTags | ListReferrers)
