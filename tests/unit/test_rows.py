"""Rows that this program did not write: every one is as if it were not there, and is written over."""

import json

import pytest

from proxy.errors import BlobUnknown, Denied
from proxy.fill.outcomes import Outcomes
from proxy.oci.digest import Digest
from proxy.oci.media import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest, own_media_type
from proxy.oci.names import Repo
from proxy.registry.renewal import Kept
from proxy.registry.rows import Rows, is_everybodys

REPO, CONTENT = Repo.parse("pause"), b'{"schemaVersion": 2, "config": {}, "layers": []}'
DIGEST = Digest.of(CONTENT)
TAG, TAGS, REFERRERS = "t:up/pause:3.9", "l:up/pause", f"l:up/pause@{DIGEST}"
PLANTED = [
    "", " ", "no json", "{", "nan", "NaN", "null", "true", "-1", "1.5", "1e999", "9" * 5000, '"text"', "{}", "[]",
    "[1]",
    "[1, 2]", "[1, 2, 3]", "[1, 2, 3, 4]", '["a", "b"]', '["a", 1, 2, 3]', '["a\\r\\nX: y", 3]', '["\\u00e4", 3]',
    '["x/y", -3]', '["x/y", true]', '["x/y", "3"]', '[null, null, null]', '["sha256:12", 1, 2]', '[["a"], "x", 0]',
    '[{"a": 1}, NaN, 0]', '[[1], 1, 1]', '{"a": [1, 2]}', "[" * 100_000, "\0",
]  # fmt: skip


@pytest.fixture
def rows(index):
    return Rows(index, "up", True)


async def test_a_planted_row_is_a_row_that_is_not_there(index, rows):
    for planted in PLANTED:
        await plant(index, rows, planted)


async def plant(index, rows, planted):
    keys = [f"m:@{DIGEST}", f"s:up/pause@{DIGEST}", TAG, TAGS, REFERRERS, "r:a", "x:a", f"b:@{DIGEST}"]
    await index.put(dict.fromkeys(keys, planted))
    assert rows.manifest(REPO, DIGEST) is None
    assert rows.told_size(REPO, DIGEST) is None
    assert rows.kept(TAG) is None
    assert rows.kept(TAGS) in (None, Kept([], 0.0))
    assert rows.kept(REFERRERS) in (None, Kept([], 0.0))
    assert Outcomes(index).refusal("a", 0.0) is None
    assert Outcomes(index).mismatches("a", 0.0) in (0, 2)
    assert rows.blob(REPO, DIGEST) == (Descriptor(DIGEST, None) if planted == "null" else None)
    await heal(index, rows)


async def heal(index, rows):
    """The next write makes it right."""
    await rows.put_manifest(REPO, Manifest(Descriptor(DIGEST, len(CONTENT), "x/y"), CONTENT))
    await rows.put_blob(REPO, DIGEST, verified=7, told=7)
    assert rows.manifest(REPO, DIGEST) == Descriptor(DIGEST, len(CONTENT), "x/y")
    assert rows.blob(REPO, DIGEST) == Descriptor(DIGEST, 7)
    assert rows.told_size(REPO, DIGEST) == 7
    for key, value in ((TAG, str(DIGEST)), (TAGS, ["a"]), (REFERRERS, [{"a": 1}])):
        await rows.keep(key, Kept(value, 5.0, 6.0))
        assert rows.kept(key) == Kept(value, 5.0, 6.0)
    outcomes = Outcomes(index, lambda: 1000.0)
    await outcomes.refuse("a", Denied("no"))
    assert isinstance(outcomes.refusal("a", 1000.0), Denied)
    await outcomes.mismatch("a", 1)
    assert outcomes.mismatches("a", 1000.0) == 1


@pytest.mark.parametrize("row", ['[1000.0, "BlobUnknown", "gone", null]', '[1000, "BlobUnknown", "gone", 5]'])
async def test_an_outcome_that_can_be_read(index, row):
    await index.put({"r:a": row})
    assert isinstance(Outcomes(index).refusal("a", 1000.0), BlobUnknown)


async def test_what_is_everybodys(index):
    assert not is_everybodys(index, DIGEST)
    await index.put({f"b:@{DIGEST}": "no row"})
    assert not is_everybodys(index, DIGEST)
    await Rows(index, "up", False).put_blob(REPO, DIGEST, verified=1)
    assert not is_everybodys(index, DIGEST), "it came with credentials"
    await Rows(index, "other", True).put_blob(REPO, DIGEST)
    assert is_everybodys(index, DIGEST)


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"schemaVersion": 2, "mediaType": OCI_INDEX}, OCI_INDEX),
        ({"schemaVersion": 2, "mediaType": DOCKER_LIST}, DOCKER_LIST),
        ({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST}, DOCKER_MANIFEST),
        ({"schemaVersion": 2, "manifests": []}, OCI_INDEX),
        ({"schemaVersion": 2, "config": {}, "layers": []}, OCI_MANIFEST),
        ({"schemaVersion": 2, "config": {}}, None),
        ({"schemaVersion": 2, "mediaType": "text/html", "manifests": []}, None),
        ({"schemaVersion": 2, "mediaType": ["a"], "manifests": []}, None),
        ({"schemaVersion": 1, "manifests": []}, None),
        ({"architecture": "amd64", "rootfs": {}}, None),
        ([], None),
    ],
)
def test_what_a_manifest_says_that_it_is(document, media_type):
    assert own_media_type(json.dumps(document).encode()) == media_type
