"""Several registries for unqualified names: only a clean 404 moves on, and the owner is remembered."""

import pytest

from proxy.errors import BlobUnknown, Denied, LoopDetected, ManifestUnknown, NameUnknown, Unavailable
from proxy.oci.digest import Digest
from proxy.oci.names import Tag
from proxy.ports import Answer
from proxy.registry.chain import Unqualified
from proxy.registry.route import Router
from tests.unit.builders import ask, upstream

DIGEST = Digest.of(b"x")
TAG = Tag("v1")


class Scripted:
    """A registry whose every answer is one value or one error; it notes what it is asked."""

    def __init__(self, name, answer):
        self.name = name
        self.answer = answer
        self.asked = []

    async def _say(self, call, ask):
        self.asked.append((call, str(ask.repo)))
        if isinstance(self.answer, Exception):
            raise self.answer
        return Answer(self.answer, "hit")

    async def resolve(self, ask, reference):
        return await self._say("resolve", ask)

    async def manifest(self, ask, reference):
        return await self._say("manifest", ask)

    async def stat(self, ask, digest):
        return await self._say("stat", ask)

    async def blob(self, ask, digest):
        return await self._say("blob", ask)

    async def tags(self, ask):
        return await self._say("tags", ask)

    async def referrers(self, ask, digest):
        return await self._say("referrers", ask)


def searches(chain, repo="a"):
    return {
        "resolve": lambda: chain.resolve(ask(repo), TAG),
        "manifest": lambda: chain.manifest(ask(repo), TAG),
        "tags": lambda: chain.tags(ask(repo)),
    }


def followers(chain, repo="a"):
    return {
        "stat": lambda: chain.stat(ask(repo), DIGEST),
        "blob": lambda: chain.blob(ask(repo), DIGEST),
        "referrers": lambda: chain.referrers(ask(repo), DIGEST),
    }


@pytest.mark.parametrize("call", ["resolve", "manifest", "tags", "stat", "blob", "referrers"])
async def test_an_error_names_who_made_it(index, call):
    first, second = Scripted("local", ManifestUnknown("no")), Scripted("far", Unavailable("down"))
    chain = Unqualified([first, second], index)
    await index.note({"o:a": "far"})
    with pytest.raises(Unavailable) as raised:
        await {**searches(chain), **followers(chain)}[call]()
    assert raised.value.by == "far"


@pytest.mark.parametrize("call", ["resolve", "manifest", "tags"])
@pytest.mark.parametrize("error", [ManifestUnknown, NameUnknown, BlobUnknown])
async def test_a_clean_404_moves_on(index, call, error):
    first, second, third = Scripted("one", error("no")), Scripted("two", "found"), Scripted("three", "other")
    answer = await searches(Unqualified([first, second, third], index))[call]()
    assert (answer.value, answer.by) == ("found", "two")
    assert [len(registry.asked) for registry in (first, second, third)] == [1, 1, 0]


@pytest.mark.parametrize("call", ["resolve", "manifest", "tags"])
@pytest.mark.parametrize("error", [Unavailable, Denied, LoopDetected])
async def test_any_other_failure_ends_the_search(index, call, error):
    first, second = Scripted("one", error("not now")), Scripted("two", "found")
    with pytest.raises(error):
        await searches(Unqualified([first, second], index))[call]()
    assert second.asked == []


async def test_a_failure_behind_a_404_is_the_answer(index):
    chain = Unqualified([Scripted("one", ManifestUnknown("no")), Scripted("two", Unavailable("down"))], index)
    with pytest.raises(Unavailable):
        await chain.manifest(ask(), TAG)


async def test_nobody_has_it(index):
    chain = Unqualified([Scripted("one", ManifestUnknown("first")), Scripted("two", ManifestUnknown("second"))], index)
    with pytest.raises(ManifestUnknown, match="first"):
        await chain.manifest(ask(), TAG)


@pytest.mark.parametrize("call", ["stat", "blob", "referrers"])
async def test_the_owner_found_at_the_manifest_is_followed(index, call):
    first, second = Scripted("one", ManifestUnknown("no")), Scripted("two", "found")
    chain = Unqualified([first, second], index)
    await chain.manifest(ask("a"), TAG)
    first.asked.clear()
    answer = await followers(chain)[call]()
    assert (answer.value, answer.by) == ("found", "two")
    assert first.asked == []
    # another worker with the same index knows it too, and another repository has another owner
    other = Unqualified([first, second], index)
    await followers(other)[call]()
    assert first.asked == []
    with pytest.raises(ManifestUnknown):
        await followers(other, "b")[call]()


@pytest.mark.parametrize("call", ["stat", "blob", "referrers"])
async def test_an_owner_that_says_no_is_believed(index, call):
    first, second = Scripted("one", "found"), Scripted("two", "found")
    chain = Unqualified([first, second], index)
    await chain.manifest(ask(), TAG)
    first.answer = BlobUnknown("gone")
    with pytest.raises(BlobUnknown):
        await followers(chain)[call]()
    assert second.asked == []


async def test_an_owner_that_is_configured_no_more_is_forgotten(index):
    await index.put({"o:a": "three"})
    first = Scripted("one", "found")
    assert (await Unqualified([first, Scripted("two", "x")], index).blob(ask(), DIGEST)).by == "one"


@pytest.mark.parametrize("order", [("docker.io", "registry.k8s.io"), ("registry.k8s.io", "docker.io")])
async def test_one_word_names_get_library_at_docker_io_and_nowhere_else(index, order):
    registries = {name: Scripted(name, ManifestUnknown("no")) for name in order}
    chain = Unqualified([registries[name] for name in order], index)
    router = Router([(upstream(name), registries[name]) for name in order], chain, ())
    route = router.route("", None, "alpine")
    with pytest.raises(ManifestUnknown):
        await route.registry.manifest(ask(str(route.repo)), TAG)
    assert registries["docker.io"].asked == [("manifest", "library/alpine")]
    assert registries["registry.k8s.io"].asked == [("manifest", "alpine")]
