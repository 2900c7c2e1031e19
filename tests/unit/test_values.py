"""Digests, names and what a manifest says: whatever text comes in, a valid value or one kind of error comes out."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import DigestInvalid, NameInvalid
from proxy.oci import media
from proxy.oci.digest import Digest
from proxy.oci.names import Repo, Tag, looks_like_host, parse_reference, registry_name

HEX64, HEX128 = "0123456789abcdef" * 4, "0123456789abcdef" * 8


@given(st.binary(max_size=200), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_of_content_is_its_hash_and_parses_back(content, algorithm):
    digest = Digest.of(content, algorithm)
    assert digest.text == f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
    assert Digest.parse(str(digest)) == digest
    assert digest.path == f"{algorithm}/{digest.hex[:2]}/{digest.hex}"
    assert digest.matches(content)
    assert not digest.matches(content + b"x")
    hasher = digest.hasher()
    hasher.update(content)
    assert hasher.hexdigest() == digest.hex


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        f"sha256:{HEX64[:-1]}",
        f"sha256:{HEX64}0",
        f"sha256:{HEX64.upper()}",
        f"SHA256:{HEX64}",
        f"sha512:{HEX64}",
        f"sha256:{HEX128}",
        f"sha384:{HEX64}00000000000000000000000000000000",
        f"sha256:{HEX64}\n",
        f" sha256:{HEX64}",
        f"sha256:{HEX64[:-1]}g",
        f"sha256:{HEX64[:-1]}\u0661",
        f"sha256:../../{HEX64[:58]}",
        HEX64,
    ],
)
def test_what_is_no_digest_is_refused(text):
    with pytest.raises(DigestInvalid):
        Digest.parse(text)


@given(st.text(max_size=150))
def test_any_text_is_a_digest_or_refused(text):
    try:
        assert str(Digest.parse(text)) == text
    except DigestInvalid as error:
        assert error.status == 400


@pytest.mark.parametrize(
    "name", ["a", "pause", "sig-storage/csi-provisioner", "a.b/c_d/e__f/g---h", "0/1", "a" * 255, "a/" * 127 + "a"]
)
def test_repository_names(name):
    assert Repo.parse(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "A", "a/", "/a", "a//b", "a..b", "a/../b", ".", "..", "-a", "a-", "a___b", "a._b", "a b", "a\n", "\xe4", "a:b"]
    + ["a" * 256, "a/b\0", "a?b", "a%2fb"],
)
def test_what_is_no_repository_name(name):
    with pytest.raises(NameInvalid):
        Repo.parse(name)


@pytest.mark.parametrize("tag", ["v1", "3.9", "_", "A-b.C", "sha256-ab.sig", "x" * 128])
def test_tags(tag):
    assert parse_reference(tag) == Tag(tag)
    assert isinstance(parse_reference(tag), Tag)


@pytest.mark.parametrize("tag", ["", ".", "..", "-a", ".a", "x" * 129, "a/b", "a b", "v1\n", "\xe4", "a\0", "%2e"])
def test_what_is_no_tag(tag):
    with pytest.raises(NameInvalid):
        parse_reference(tag)


def test_a_colon_makes_a_reference_a_digest():
    assert parse_reference(f"sha256:{HEX64}") == Digest(f"sha256:{HEX64}")
    with pytest.raises(DigestInvalid):
        parse_reference("a:b")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Registry.K8s.IO", "registry.k8s.io"),
        ("registry.k8s.io:443", "registry.k8s.io"),
        ("registry.k8s.io:80", "registry.k8s.io"),
        ("localhost:5001", "localhost:5001"),
        ("localhost:4430", "localhost:4430"),
        ("10.0.0.1:8080", "10.0.0.1:8080"),
        ("[::1]:5000", "[::1]:5000"),
        ("[::1]:443", "[::1]"),
        ("[fe80::80]", "[fe80::80]"),
    ],
)
def test_a_registry_has_one_spelling(text, name):
    assert registry_name(text) == name
    assert registry_name(name) == name


@pytest.mark.parametrize(
    "text",
    ["", ":443", "a/b", "http://a", "a:b", "a:123456", "a b", "-a", "a-", "a@b", "a:1:2", "a\n", "\xe4.de", "a\0", "["],
)
def test_what_is_no_registry(text):
    with pytest.raises(NameInvalid):
        registry_name(text)


@pytest.mark.parametrize(
    ("segment", "host"),
    [("quay.io", True), ("cache:5000", True), ("localhost", True), ("library", False), ("localhosts", False)],
)
def test_which_first_segment_is_a_host(segment, host):
    assert looks_like_host(segment) is host


# Manifests

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "digest": st.sampled_from([f"sha256:{HEX64}", f"sha512:{HEX128}", "sha256:x", 7, None]),
        "size": st.sampled_from([0, 1, 2**70, -1, True, "1", 1.5, None]),
        "mediaType": JSON,
    },
)
DOCUMENT = st.fixed_dictionaries(
    {},
    optional={
        "config": ENTRY | JSON,
        "layers": st.lists(ENTRY | JSON, max_size=3) | JSON,
        "blobs": st.lists(ENTRY, max_size=3) | JSON,
        "manifests": st.lists(ENTRY, max_size=3) | JSON,
        "mediaType": JSON,
    },
)


@given(st.binary(max_size=100) | JSON.map(json.dumps).map(str.encode) | DOCUMENT.map(json.dumps).map(str.encode))
def test_any_bytes_have_valid_children_or_none(content):
    for child in media.children(content):
        assert Digest.parse(str(child.digest)) == child.digest
        assert type(child.size) is int
        assert child.size >= 0
        assert isinstance(child.media_type, str)
    assert all(isinstance(entry, dict) for entry in media.listed(content))
    assert isinstance(media.manifest_type(content, "text/plain"), str | None)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"layers":' * 50_000, b"1" * 10_000, b"\xff\xfe{}", b"", b"null"]
)
def test_hostile_documents_have_no_children(content):
    assert media.children(content) == []


def test_children_of_a_manifest_in_order_and_without_the_subject():
    def entry(n, **more):
        return {"digest": f"sha256:{n:064x}", "size": n, "mediaType": f"type/{n}", **more}

    document = {
        "mediaType": media.OCI_MANIFEST,
        "config": entry(1),
        "layers": [entry(2), {"digest": "nonsense", "size": 1}, entry(3)],
        "subject": entry(4),
    }
    content = json.dumps(document).encode()
    assert [(child.digest.hex, child.size, child.media_type) for child in media.children(content)] == [
        (f"{n:064x}", n, f"type/{n}") for n in (1, 2, 3)
    ]
    assert media.listed(content) == []
    index = json.dumps({"manifests": [entry(5, platform={"os": "linux"})]}).encode()
    assert [child.size for child in media.children(index)] == [5]
    assert media.listed(index)[0]["platform"] == {"os": "linux"}


@pytest.mark.parametrize(
    ("document", "said", "expected"),
    [
        ({"mediaType": media.DOCKER_MANIFEST, "layers": []}, media.OCI_MANIFEST, media.DOCKER_MANIFEST),
        ({"mediaType": media.DOCKER_MANIFEST, "layers": []}, "application/vnd.evil", media.DOCKER_MANIFEST),
        ({"layers": []}, f"{media.DOCKER_MANIFEST}; charset=utf-8", media.DOCKER_MANIFEST),
        ({"layers": []}, "application/vnd.evil", media.OCI_MANIFEST),
        ({"layers": []}, "", media.OCI_MANIFEST),
        ({"manifests": []}, "text/plain", media.OCI_INDEX),
        ({"mediaType": "no type", "manifests": []}, "", media.OCI_INDEX),
        ({"fsLayers": []}, "application/vnd.docker.distribution.manifest.v1+prettyjws", None),
        ({"fsLayers": []}, "nonsense\x00", media.OCI_MANIFEST),
    ],
)
def test_a_manifests_type_is_what_its_bytes_say_first(document, said, expected):
    assert media.manifest_type(json.dumps(document).encode(), said) == (expected or said)


@pytest.mark.parametrize("content", [b"", b"<html>", b"Access to this site is blocked", b"[]", b"1", b"null", b"{}"])
def test_what_is_no_json_object_is_no_manifest(content):
    assert media.manifest_type(content, media.OCI_MANIFEST) is None
