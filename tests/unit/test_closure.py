"""What an image is made of, asked of a registry that is a dictionary; pins as files; which blobs go with an image."""

import asyncio
import json
import os
import time

import pytest

from proxy.care.closure import Survey, Target
from proxy.care.inventory import Inventory
from proxy.care.pins import DoesNotFit, Pin, Pins, check_set
from proxy.care.removal import plan
from proxy.care.shown import shown
from proxy.errors import ManifestUnknown, NameInvalid, Unavailable
from proxy.oci.digest import Digest
from proxy.oci.media import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest
from proxy.oci.names import Repo, Tag
from proxy.oci.platforms import Platform
from proxy.ports import Answer
from proxy.registry.content import keep_content


class Registry:
    """Manifests by digest and tag; whatever is an error there is raised."""

    name = "r"

    def __init__(self):
        self.manifests, self.lists, self.asked = {}, {}, []

    async def manifest(self, ask, reference):
        self.asked.append(str(reference))
        found = self.manifests.get(str(reference), ManifestUnknown("no"))
        if isinstance(found, Exception):
            raise found
        return Answer(found, "hit")

    async def referrers(self, ask, digest):
        found = self.lists.get(str(digest), [])
        if isinstance(found, Exception):
            raise found
        return Answer(found, "hit")

    def add(self, document, *names, media_type=OCI_MANIFEST):
        content = json.dumps(document).encode()
        made = Manifest(Descriptor(Digest.of(content), len(content), media_type), content)
        self.manifests |= dict.fromkeys((str(made.descriptor.digest), *names), made)
        return made

    def image(self, *layers, names=(), **more):
        rows = [row(layer) for layer in layers]
        return self.add({"config": row(b"config" + b"".join(layers)), "layers": rows, **more}, *names)

    def index(self, **images):
        rows = [
            row(image.content, OCI_MANIFEST) | {"platform": {"os": "linux", "architecture": name}}
            for name, image in images.items()
        ]
        return self.add({"manifests": rows}, media_type=OCI_INDEX)


def row(content, media_type="layer"):
    return {"digest": str(Digest.of(content)), "size": len(content), "mediaType": media_type}


def digest(manifest):
    return str(manifest.descriptor.digest)


async def survey(registry, root, *wanted):
    target = Target("r/app:1", "r/app", registry, Repo("app"), root)
    return await Survey(target, [Platform.parse(text) for text in wanted]).run()


async def test_an_index_with_its_platforms_signatures_and_referrers():
    registry = Registry()
    one, two = registry.image(b"one"), registry.image(b"two", b"base")
    root = registry.index(amd64=one, arm64=two)
    signature = registry.image(b"signed", names=[f"sha256-{digest(one)[7:]}.sig"])
    sbom = registry.image(b"sbom")
    registry.lists[digest(root)] = [{"digest": digest(sbom)}, {"digest": "nonsense"}]
    found = await survey(registry, root)
    assert found.missing == {}
    manifests = {text for text, part in found.parts.items() if part.manifest}
    assert manifests == {digest(each) for each in (root, one, two, signature, sbom)}
    assert len(found.parts) == len(manifests) + 2 + 3 + 2 + 2
    assert found.parts[digest(one)].platform == "linux/amd64"
    only = await survey(registry, root, "linux/arm64")
    assert digest(one) not in only.parts
    assert digest(two) in only.parts


async def test_what_cannot_be_learned_is_said_and_the_rest_is_there():
    registry = Registry()
    one, two = registry.image(b"one"), registry.image(b"two")
    root = registry.index(amd64=one, arm64=two)
    registry.manifests[digest(two)] = Unavailable("blocked")
    tag = f"sha256-{digest(root)[7:]}.att"
    registry.manifests[tag] = Unavailable("slow")
    registry.lists[digest(one)] = Unavailable("deaf")
    found = await survey(registry, root)
    assert found.missing == {digest(two): "blocked", tag: "slow", f"referrers of {digest(one)}": "deaf"}
    assert digest(two) in found.parts
    assert str(Digest.of(b"one")) in found.parts


async def test_layers_that_no_registry_has_are_no_part():
    registry = Registry()
    foreign = row(b"windows", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    found = await survey(registry, registry.add({"config": row(b"c"), "layers": [foreign, row(b"own")]}))
    assert foreign["digest"] not in found.parts
    assert str(Digest.of(b"own")) in found.parts


async def test_an_index_within_an_index_ends():
    registry = Registry()
    root = registry.image(b"deep")
    for _ in range(10):
        root = registry.add({"manifests": [row(root.content, OCI_INDEX)]}, media_type=OCI_INDEX)
    found = await survey(registry, root)
    assert len(found.parts) == 5


async def test_schema_1_is_refused():
    registry = Registry()
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    with pytest.raises(ManifestUnknown, match="schema 1"):
        await survey(registry, registry.add({"fsLayers": []}, media_type=media_type))


def test_the_tags_asked_for_are_tags():
    assert Tag.parse(f"sha256-{'a' * 64}.sbom")


# Pins as files


@pytest.fixture
def pins(tmp_path):
    return Pins(str(tmp_path / "pins"))


def pin(reference="r/app:1", **blobs):
    return Pin(reference, "sha256:" + "d" * 64, (), {f"sha256:{name * 64}": size for name, size in blobs.items()})


def test_pins_are_kept_and_counted_in_blocks_each_digest_once(pins, tmp_path):
    pins.put("one", [pin(a=1, b=5000)], 10**6)
    pins.put("two", [pin("r/other:1", b=5000, c=0)], 10**6)
    assert sorted(pins.digests().values()) == [0, 4096, 8192]
    assert Pins(str(tmp_path / "pins")).sets() == pins.sets()
    assert sorted(os.listdir(tmp_path / "pins")) == [".making", "lock", "one.json", "two.json"]
    assert os.listdir(tmp_path / "pins" / ".making") == []


def test_the_same_reference_is_replaced_and_a_set_without_images_is_gone(pins):
    pins.put("one", [pin(a=1), pin("r/b:1", b=1)], 10**6)
    pins.put("one", [pin(c=1)], 10**6)
    assert [each.reference for each in pins.sets()["one"]] == ["r/b:1", "r/app:1"]
    assert set(pins.digests()) == {f"sha256:{name * 64}" for name in "bc"}
    assert pins.remove(["r/app:1", "r/none:1"]) == [("one", "r/app:1")]
    assert pins.remove(None, "one") == [("one", "r/b:1")]
    assert pins.sets() == {}
    assert pins.digests() == {}


def test_what_does_not_fit_changes_nothing(pins):
    pins.put("one", [pin(a=4096)], 8192)
    with pytest.raises(DoesNotFit) as caught:
        pins.put("one", [pin("r/b:1", a=4096, b=4096, c=1)], 8192)
    assert (caught.value.pinned, caught.value.more, caught.value.limit) == (4096, 8192, 8192)
    assert [each.reference for each in pins.sets()["one"]] == ["r/app:1"]


def test_a_reader_sees_every_change(pins, tmp_path):
    reader = Pins(str(tmp_path / "pins"))
    for number in range(200):
        pins.put("one", [pin(a=4096 * (number % 2), b=4096 * number)], 10**9)
        assert reader.digests() == pins.digests()


@pytest.mark.parametrize("name", ["", "A", ".a", "../a", "a/b", "a" * 65])
def test_names_of_sets(name):
    with pytest.raises(NameInvalid):
        check_set(name)


# What is here, and what goes


class World:
    """A store and its books, filled by hand."""

    def __init__(self, tmp_path, store, catalogue, pins):
        self.store, self.catalogue, self.registry = store, catalogue, Registry()
        self.inventory = Inventory(store.files, catalogue, pins)

    async def keep(self, *contents):
        for content in contents:
            await keep_content(self.store, Digest.of(content), content)

    async def manifest(self, made, reference="", repository="r/app"):
        await self.keep(made.content)
        self.catalogue.name(repository, reference or digest(made), digest(made))
        return made

    async def images(self):
        return await asyncio.to_thread(self.inventory.images)

    async def rows(self, *names):
        return shown(await self.images(), names)


@pytest.fixture
def world(tmp_path, store, catalogue, pins):
    return World(tmp_path, store, catalogue, pins)


async def test_an_index_is_whole_when_what_was_asked_for_is(world):
    one, two = world.registry.image(b"one"), world.registry.image(b"two")
    root = await world.manifest(world.registry.index(amd64=one, arm64=two), "1")
    assert [row["missing"] for row in await world.rows()] == [2], "no platform is here at all"
    await world.manifest(one)
    assert [(row["complete"], row["missing"]) for row in await world.rows()] == [(False, 2)]
    await world.keep(b"one", b"configone")
    (found,) = await world.rows()
    assert (found["complete"], found["platforms_here"], found["platforms"]) == (True, 1, 2)
    assert found["size"] == len(root.content) + len(one.content) + len(b"one" + b"configone")
    assert time.time() - found["used"] < 60


async def test_what_is_part_of_another_image_is_hidden_and_shown_when_named(world):
    one = world.registry.image(b"one")
    root = await world.manifest(world.registry.index(amd64=one), "1")
    await world.manifest(root)
    await world.manifest(one)
    await world.manifest(world.registry.image(b"signed"), f"sha256-{digest(one)[7:]}.sig")
    await world.manifest(world.registry.image(b"sbom", subject={"digest": digest(root)}))
    await world.manifest(world.registry.image(b"alone"))
    assert len(await world.rows()) == 2
    assert [row["digest"] for row in await world.rows(f"app@{digest(one)}")] == [digest(one)]
    for name in ("r/app", "r", "app"):
        assert len(await world.rows(name)) == 2
    assert await world.rows("r/other") == []


async def test_only_what_nobody_else_needs_goes(world, pins):
    one = await world.manifest(world.registry.image(b"shared", b"pinned", b"own"), "1")
    await world.manifest(world.registry.image(b"shared"), "1", "r/other")
    signature = await world.manifest(world.registry.image(b"signed"), f"sha256-{digest(one)[7:]}.sig")
    other = Pin("r/x:1", "sha256:" + "e" * 64, (), {str(Digest.of(b"pinned")): 6})
    await asyncio.to_thread(pins.put, "set", [other], 10**6)
    images = await world.images()
    doomed = plan(images, next(image for image in images if image.name == "r/app:1"))
    assert set(doomed.names) == {"1", f"sha256-{digest(one)[7:]}.sig"}
    assert set(doomed.manifests) == {digest(one), digest(signature)}
    assert str(Digest.of(b"own")) in doomed.digests
    assert str(Digest.of(b"signed")) in doomed.digests
    assert not {str(Digest.of(b"shared")), str(Digest.of(b"pinned"))} & set(doomed.digests)


async def test_a_platform_that_another_index_has_stays(world):
    one, two = world.registry.image(b"one"), world.registry.image(b"two")
    await world.manifest(world.registry.index(amd64=one, arm64=two), "1")
    await world.manifest(world.registry.index(amd64=one), "2")
    await world.manifest(one)
    await world.manifest(two)
    images = await world.images()
    doomed = plan(images, next(image for image in images if image.name == "r/app:1"))
    assert digest(one) not in (*doomed.names, *doomed.digests)
    assert digest(two) in doomed.names
    assert digest(two) in doomed.digests
