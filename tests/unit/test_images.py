"""Names of images as people and programs write them, and the platforms of an index."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import DigestInvalid, ManifestUnknown, NameInvalid
from proxy.oci.images import ImageName, images_in
from proxy.oci.platforms import Platform, choose, entries

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "name", "suffix"),
    [
        ("nginx", "nginx", ":latest"),
        ("pause:3.9", "pause", ":3.9"),
        ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause", ":3.9"),
        ("localhost:5000/a/b", "localhost:5000/a/b", ":latest"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b", ":1"),
        (f"a/b@sha256:{HEX}", "a/b", f"@sha256:{HEX}"),
        (f"a/b:1@sha256:{HEX}", "a/b", f":1@sha256:{HEX}"),
    ],
)
def test_a_name_is_taken_apart(text, name, suffix):
    image = ImageName.parse(text)
    assert (image.name, image.suffix) == (name, suffix)
    assert str(image.reference) == suffix.rpartition("@")[2].removeprefix(":")


@pytest.mark.parametrize(
    "text", ["", ":1", "A", "a//b", "a:b:c", f"sha256:{HEX}", "http://a/b", "a b", "a/", "/a", "a:"]
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(NameInvalid):
        ImageName.parse(text)


def test_a_digest_that_is_none_is_refused():
    with pytest.raises(DigestInvalid):
        ImageName.parse("a@sha256:1")


@given(st.text())
def test_any_text_is_a_list_or_a_sentence(text):
    try:
        assert all(ImageName.parse(name) for name in images_in(text))
    except NameInvalid as error:
        assert "\n" not in error.message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a:1\n\n  # no\nb:2 # why\na:1\n", ["a:1", "b:2"]),
        ("NAMESPACE  NAME  IMAGE\nkube-system  dns-1  registry.k8s.io/coredns/coredns:v1\n", None),
        ("web-1   1/1   Running   0   5d   nginx:1,envoy/envoy:2\n", ["nginx:1", "envoy/envoy:2"]),
        ("NAME READY UP-TO-DATE IMAGES SELECTOR\ndns 2/2 2 a/dns:1 app.kubernetes.io/name=dns\n", ["a/dns:1"]),
        ('{"items": [{"spec": {"containers": [{"image": "a:1"}, {"image": "b/c"}]}}]}', ["a:1", "b/c"]),
        ('{"images": ["registry.k8s.io/pause:3.9"]}', ["registry.k8s.io/pause:3.9"]),
        ('["a:1", "b:2"]', ["a:1", "b:2"]),
        (f'{{"image": "sha256:{HEX}", "images": ["a:1"]}}', ["a:1"]),
    ],
)
def test_lists_of_other_programs(text, found):
    assert images_in(text) == (found or ["registry.k8s.io/coredns/coredns:v1"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a:1\nnginx\n", "line 2 names no image: 'nginx'; write its tag too"),
        ("web-1 1/1 Running 0 5d", "line 1 names .* 5d'; a table without images: use kubectl ... -o json"),
        ("{]", "the list begins like JSON and is none"),
        ('{"kind": "List"}', "the JSON names no image"),
    ],
)
def test_a_line_without_an_image_is_named(text, sentence):
    with pytest.raises(NameInvalid, match=sentence):
        images_in(text)


# Platforms


def index(*rows):
    """The entries of an index; a row is a platform, or what a manifest attests to."""
    listed = []
    for number, row in enumerate(rows):
        entry = {"digest": f"sha256:{number:064x}", "size": 1, "mediaType": "m"}
        if row.startswith("sha256:"):
            entry |= {
                "platform": {"os": "unknown", "architecture": "unknown"},
                "annotations": {"vnd.docker.reference.digest": row},
            }
        elif row:
            words = dict(zip(("os", "architecture", "variant"), row.split("/"), strict=False))
            entry |= {"platform": words}
        listed.append(entry)
    return entries(json.dumps({"manifests": listed}).encode())


def chosen(found, *wanted):
    return [int(str(entry.said.digest)[7:], 16) for entry in choose(found, [Platform.parse(text) for text in wanted])]


def test_platforms_are_chosen_with_what_attests_to_them():
    found = index("linux/amd64", "linux/arm64/v8", f"sha256:{0:064x}", f"sha256:{1:064x}", "", "linux/arm/v7")
    assert chosen(found) == [0, 1, 2, 3, 4, 5]
    assert chosen(found, "linux/amd64") == [0, 2, 4]
    assert chosen(found, "linux/arm64") == [1, 3, 4]
    assert chosen(found, "linux/arm/v7", "linux/arm64/v8") == [1, 3, 4, 5]


def test_a_platform_there_is_not_names_those_there_are():
    with pytest.raises(ManifestUnknown, match=r"there is no linux/arm/v6 of it; there are linux/amd64, linux/arm/v7"):
        chosen(index("linux/amd64", "linux/arm/v7"), "linux/amd64", "linux/arm/v6")


@pytest.mark.parametrize("text", ["linux", "linux/", "a/b/c/d", "linux/am d64", ""])
def test_a_platform_that_is_none(text):
    with pytest.raises(NameInvalid):
        Platform.parse(text)


@pytest.mark.parametrize(
    "document",
    ["[]", '{"manifests": 1}', '{"manifests": [1, {"digest": "x"}]}', '{"manifests": [{"size": true}]}', "{"],
)
def test_nonsense_has_no_entries(document):
    assert entries(document.encode()) == []
