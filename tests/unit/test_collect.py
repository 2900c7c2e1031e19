"""gc between the steps of a push: whatever comes between two looks is seen, and what leans on a blob keeps it."""

import json
import os
import time

import pytest

from proxy.care import reach
from proxy.care.collect import Collector, Order
from proxy.care.reach import Said
from proxy.care.sift import Shelves, Sift
from proxy.oci.digest import Digest
from proxy.store.files import Files
from proxy.store.links import BLOBS, MANIFESTS, REFERRERS, TAGS, Links, file_of
from proxy.store.yard import Yard

OLD = time.time() - 3 * 86400
TTL = 86400.0
REPO = "app"


@pytest.fixture
def shelves(tmp_path):
    yard = Yard(str(tmp_path / "yard"), [0] * 4, lambda: 0)
    locks = tmp_path / "locks"
    locks.mkdir()
    files, links = Files(str(tmp_path / "blobs")), Links(str(tmp_path / "links"))
    return Shelves(files, links, str(locks), yard, lambda *_: None)


@pytest.fixture
def collector(shelves, tmp_path):
    return Collector(shelves, TTL, str(tmp_path / "gc.lock"))


def put(shelves, content, kind=BLOBS, at=OLD):
    """A file and, with a kind, its link, both as old as that."""
    digest = Digest.of(content)
    path = shelves.files.path(digest)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.utime(path, (at, at))
    if kind:
        link(shelves, digest, kind, at)
    return digest


def link(shelves, digest, kind=BLOBS, at=OLD, repo=REPO):
    shelves.links.put("", repo, kind, file_of(digest))
    os.utime(os.path.join(shelves.links.folder, repo, kind, file_of(digest)), (at, at))


def manifest(shelves, *layers, at=OLD, **fields):
    content = json.dumps({"layers": [{"digest": str(digest)} for digest in layers], **fields}).encode()
    return put(shelves, content, MANIFESTS, at)


def has(shelves, digest, kind=BLOBS, repo=REPO):
    return shelves.links.get(repo, kind, file_of(digest)) is not None


def sift(shelves, untagged=False):
    return Sift(shelves, REPO, time.time() - TTL, untagged)


def test_a_manifest_that_comes_between_two_looks_keeps_its_blobs(shelves):
    needed, other = put(shelves, b"needed"), put(shelves, b"other")
    looking = sift(shelves)
    assert set(looking.look().blobs) == {needed, other}
    manifest(shelves, needed, at=time.time())
    assert [going.blobs for going in looking.remove()] == [[other]]
    assert has(shelves, needed)


def test_a_manifest_that_comes_between_two_batches_keeps_its_blobs(shelves, monkeypatch):
    monkeypatch.setattr("proxy.care.sift._BATCH", 1)
    blobs = {put(shelves, b"one"), put(shelves, b"two"), put(shelves, b"three")}
    removing = sift(shelves).remove()
    (gone,) = next(removing).blobs
    manifest(shelves, *(blobs - {gone}), at=time.time())
    assert list(removing) == []
    assert all(has(shelves, digest) for digest in blobs - {gone})


def test_a_blob_that_somebody_asks_for_after_the_look_stays(shelves, monkeypatch):
    asked, other = put(shelves, b"asked"), put(shelves, b"other")
    looking = sift(shelves)
    seen = looking.look()
    assert set(seen.blobs) == {asked, other}
    shelves.links.touch(REPO, BLOBS, file_of(asked))
    monkeypatch.setattr(Sift, "look", lambda _: seen)
    assert [going.blobs for going in looking.remove()] == [[other]]
    assert has(shelves, asked)


@pytest.mark.parametrize("jumped", [False, True], ids=["clock", "clock-jumped"])
def test_a_file_that_is_mounted_after_all_links_were_listed_stays(shelves, collector, monkeypatch, jumped):
    mounted, gone = put(shelves, b"mounted", ""), put(shelves, b"gone", "")
    changing = Yard.changing

    def mount_first(yard, digest):
        if digest == mounted:
            shelves.files.touch(mounted)
            link(shelves, mounted, repo="elsewhere")
            if jumped:
                os.utime(shelves.files.path(mounted), (OLD, OLD))
        return changing(yard, digest)

    monkeypatch.setattr(Yard, "changing", mount_first)
    *_, last = collector.run(Order(delete=True))
    assert last["files"] == 1
    assert shelves.files.has(mounted)
    assert not shelves.files.has(gone)


def test_a_file_whose_link_came_before_all_were_listed_again_stays(shelves, collector):
    mounted = put(shelves, b"mounted", "")
    run = collector.run(Order(delete=True))
    assert next(run)["files"] == 0
    link(shelves, mounted, repo="elsewhere")
    *_, last = run
    assert last["files"] == 0
    assert shelves.files.has(mounted)


def test_links_are_gone_for_certain_before_a_file_is(shelves, collector, monkeypatch):
    order = []
    digest = put(shelves, b"orphan")
    removed = Files.remove
    monkeypatch.setattr(Links, "settle", lambda _, *parts: order.append(parts))
    monkeypatch.setattr(Files, "remove", lambda files, each: order.append(each) or removed(files, each))
    list(collector.run(Order(delete=True)))
    assert order == [(REPO, BLOBS), digest]


@pytest.mark.parametrize("steps", range(8))
def test_stopped_after_any_step_nothing_stands_without_what_it_needs(shelves, collector, steps):
    layer = put(shelves, b"layer")
    child = manifest(shelves, layer)
    index = manifest(shelves, manifests=[{"digest": str(child)}])
    run = collector.run(Order(delete=True, untagged=True))
    for _ in zip(range(steps), run, strict=False):
        pass
    run.close()
    assert has(shelves, child, MANIFESTS) or not has(shelves, index, MANIFESTS)
    assert has(shelves, layer) or not has(shelves, child, MANIFESTS)
    for digest, kind in ((layer, BLOBS), (child, MANIFESTS), (index, MANIFESTS)):
        assert shelves.files.has(digest) or not has(shelves, digest, kind)
    list(collector.run(Order(delete=True, untagged=True)))
    assert not any(shelves.files.has(digest) for digest in (layer, child, index))


def test_a_file_that_somebody_reads_stays_for_this_time(shelves, collector):
    digest = put(shelves, b"read", "")
    opened = shelves.files.open(digest)
    *_, last = collector.run(Order(delete=True))
    assert last["files"] == 0
    opened.close()
    *_, last = collector.run(Order(delete=True))
    assert last["files"] == 1


def test_a_tag_that_cannot_be_read_keeps_everything(shelves):
    manifest(shelves)
    shelves.links.put("gibberish", REPO, TAGS, "v1")
    with pytest.raises(Exception, match="tag v1"):
        sift(shelves, untagged=True).look()
    assert sift(shelves).look().manifests == []


def test_referrers_of_what_goes_go_too(shelves, collector):
    subject = manifest(shelves)
    artifact = manifest(shelves, subject={"digest": str(subject)})
    shelves.links.put("", REPO, REFERRERS, file_of(subject), file_of(artifact))
    list(collector.run(Order(delete=True, untagged=True)))
    assert shelves.links.names(REPO, REFERRERS, file_of(subject)) == []


def name(number):
    return Digest.of(str(number).encode())


def test_reach():
    index, image, signature, lone = map(name, range(4))
    said = {
        index: Said(frozenset({image}), None),
        image: Said(frozenset({name(10)}), None),
        signature: Said(frozenset({image, name(11)}), image),
        lone: Said(frozenset({name(12)}), name(99)),
    }
    assert reach.standing(said, [index]) == {index, image, signature}
    assert reach.standing(said, [name(99)]) == set(), "what is not there leads nowhere"
    assert reach.blobs(said, [index, image]) == {image, name(10)}
    order = reach.parents_first(said, {index, image, signature, lone})
    assert order.index(image) > max(order.index(index), order.index(signature))
