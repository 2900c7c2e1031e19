"""Lists in pages: following the Link headers gives every entry once, whatever the page size."""

import json
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import LoopDetected
from proxy.http.exchange import Exchange
from proxy.http.handlers import answer, check_loop
from proxy.oci.calls import parse
from proxy.oci.digest import Digest
from proxy.ports import Answer
from proxy.registry.route import Route
from tests.unit.builders import ask

DIGEST = Digest.of(b"subject")
LINK = re.compile(r'<(/v2/[!-~]+)>; rel="next"\Z')


class Lists:
    """A registry that has these lists."""

    name = "registry.k8s.io"

    def __init__(self, tags=(), referrers=()):
        self._tags, self._referrers = sorted(tags), list(referrers)

    async def tags(self, ask):
        return Answer(self._tags, "hit")

    async def referrers(self, ask, digest):
        return Answer(self._referrers, "hit")


async def get(registry, path):
    """One page and where the next one is."""
    asked = parse("GET", path)
    who = ask("pause")
    exchange = Exchange(make_mocked_request("GET", path))
    response = await answer(exchange, asked, asked.call, Route(registry, who.repo), who)
    link = response.headers.get("Link")
    return response, json.loads(response.body), LINK.match(link)[1] if link else None


async def walk(registry, path, field):
    pages, seen = [], 0
    while path is not None:
        _, document, path = await get(registry, path)
        pages.append(document[field])
        seen += 1
        assert seen < 200
    return pages


TAGS = st.sets(st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,3}", fullmatch=True), max_size=25)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_pages_of_tags_are_the_whole(size):
    tags = {f"v{n}.{m}" for n in range(5) for m in range(3)} | {"A", "_", "latest", "sha256-ab.sig"}
    pages = await walk(Lists(tags), f"/v2/pause/tags/list?n={size}", "tags")
    assert [tag for page in pages for tag in page] == sorted(tags)
    assert all(len(page) == size for page in pages[:-1])
    assert pages[-1]


@given(TAGS, st.integers(1, 9), st.none() | st.from_regex(r"[a-z0-9]{1,3}", fullmatch=True))
def test_any_tags_any_size_any_start(tags, size, last):
    def drive(coroutine):
        try:
            coroutine.send(None)
        except StopIteration as done:
            return done.value
        raise AssertionError("a list in memory waits for nothing")

    start = f"/v2/pause/tags/list?n={size}" + (f"&last={last}" if last else "")
    pages = drive(walk(Lists(tags), start, "tags"))
    assert [tag for page in pages for tag in page] == [tag for tag in sorted(tags) if not last or tag > last]


async def test_all_tags_without_n_and_none_with_zero():
    _, document, link = await get(Lists(["b", "a"]), "/v2/pause/tags/list")
    assert (document, link) == ({"name": "pause", "tags": ["a", "b"]}, None)
    _, document, link = await get(Lists(["b", "a"]), "/v2/pause/tags/list?n=0")
    assert (document["tags"], link) == ([], None)


@pytest.mark.parametrize("name", ["pause", "quay.io/a/b", "registry.corp:8443/a"])
@pytest.mark.parametrize("ns", [None, "registry.k8s.io", "Registry.K8s.IO:443"])
async def test_name_and_link_repeat_what_was_asked(name, ns):
    path = f"/v2/{name}/tags/list?n=1" + (f"&ns={ns}" if ns else "")
    _, document, link = await get(Lists(["a", "b"]), path)
    assert document["name"] == name
    assert urlsplit(link).path == f"/v2/{name}/tags/list"
    expected = {"n": ["1"], "last": ["a"]} | ({"ns": [ns]} if ns else {})
    assert parse_qs(urlsplit(link).query) == expected


def entry(n, kind="type/a"):
    return {"digest": f"sha256:{n:064x}", "size": n, "mediaType": "x", "artifactType": kind}


async def test_referrers_are_filtered_and_paged():
    entries = [entry(n, "type/a+b" if n % 2 else "type/c") for n in range(9, 0, -1)]
    path = f"/v2/pause/referrers/{DIGEST}"
    response, document, link = await get(Lists(referrers=entries), path)
    assert (document["schemaVersion"], document["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    assert response.content_type == document["mediaType"]
    assert [found["size"] for found in document["manifests"]] == list(range(1, 10))
    assert link is None
    assert "OCI-Filters-Applied" not in response.headers
    filtered = f"{path}?artifactType=type%2Fa%2Bb&n=2"
    response, _, _ = await get(Lists(referrers=entries), filtered)
    assert response.headers["OCI-Filters-Applied"] == "artifactType"
    pages = await walk(Lists(referrers=entries), filtered, "manifests")
    assert [[found["size"] for found in page] for page in pages] == [[1, 3], [5, 7], [9]]


async def test_no_referrers_are_an_empty_index():
    response, document, _ = await get(Lists(), f"/v2/pause/referrers/{DIGEST}?artifactType=x")
    assert response.status == 200
    assert document["manifests"] == []


async def test_referrers_come_in_pages_unasked():
    entries = [entry(n) for n in range(2500)]
    pages = await walk(Lists(referrers=entries), f"/v2/pause/referrers/{DIGEST}", "manifests")
    assert [found["size"] for page in pages for found in page] == list(range(2500))
    assert len(pages) > 1


# Loops


@pytest.mark.parametrize(
    "via", ["", "1.1 other", "1.1 nginx, 1.0 squid (x)", "1.1 me-too", "garbage,,", "HTTP/1.1 meme"]
)
def test_no_loop(via):
    check_loop(via, "me")


@pytest.mark.parametrize("via", ["1.1 me", "1.1 me, 1.1 other", "1.1 other,1.1  me ,1.0 third"])
def test_a_loop_names_both_ends(via):
    with pytest.raises(LoopDetected) as found:
        check_loop(via, "me")
    assert found.value.status == 508
    assert "me" in found.value.message
    assert via.split(",")[-1].split()[-1] in found.value.message
