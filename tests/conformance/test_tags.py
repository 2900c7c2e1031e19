"""end-8a, end-8b and end-7b: lists of tags, page by page, and several tags in one push."""

import pytest

from tests.conformance.client import Repository, is_about
from tests.conformance.content import Content, image
from tests.conformance.test_blobs import NOWHERE

TAGS = ["10", "9", "V2", "a", "a-b", "a.b", "a_b", "aa", "b", "v1", "v10", "v2"]


def tagged(repo: Repository, tags: list[str]) -> Content:
    """One image under all of these."""
    content = repo.push_all(image())
    for tag in tags:
        repo.push(content, tag)
    return content


def listed(repo: Repository, **query: str | int) -> list[str]:
    document = repo.tags(**query).expect(200).json()
    assert document["name"] == repo.name
    return list(document["tags"])


def test_the_list(repo: Repository) -> None:
    """end-8a: 200 and JSON with the name of the repository and all its tags."""
    tagged(repo, ["v1", "latest"])
    answer = repo.tags().expect(200)
    assert answer.header("Content-Type").partition(";")[0] == "application/json"
    document = answer.json()
    assert document["name"] == repo.name and sorted(document["tags"]) == ["latest", "v1"]


def test_the_order(repo: Repository) -> None:
    """end-8a: tags come in lexical order, of bytes or regardless of case."""
    tagged(repo, TAGS[1::2] + TAGS[::2])
    assert listed(repo) in (sorted(TAGS), sorted(TAGS, key=str.lower))


def test_an_unknown_repository(repo: Repository) -> None:
    """end-8a: a repository that does not exist is 404 NAME_UNKNOWN."""
    repo.tags().refused(404, "NAME_UNKNOWN")


def test_no_tags(repo: Repository) -> None:
    """end-8a: a repository of untagged manifests exists: 200 and an empty list."""
    repo.push_all(image())
    assert listed(repo) == []


def test_a_page(repo: Repository) -> None:
    """end-8b: n asks for so many from the beginning; there are that many, and a Link if there are more."""
    tagged(repo, TAGS)
    everything = listed(repo)
    answer = repo.tags(n=5).expect(200)
    assert answer.json()["tags"] == everything[:5]
    assert answer.next() is not None


@pytest.mark.parametrize("size", [1, 5, 12])
def test_all_pages(repo: Repository, size: int) -> None:
    """end-8b: following Link, resolved against the request, leads through all tags, each once."""
    tagged(repo, TAGS)
    answer = repo.tags(n=size).expect(200)
    found = answer.json()["tags"]
    assert len(found) <= size
    while (further := answer.next()) is not None:
        answer = repo.registry.ask("GET", further).expect(200)
        page = answer.json()["tags"] or []
        assert len(page) <= size
        found += page
    assert found == listed(repo)


@pytest.mark.parametrize("size", [12, 13, 100, 1000])
def test_more_than_there_are(repo: Repository, size: int) -> None:
    """end-8b: a page all tags fit in has them all, and no Link to a page of nothing."""
    tagged(repo, TAGS)
    answer = repo.tags(n=size).expect(200)
    assert len(answer.json()["tags"]) == 12
    assert answer.next() is None


def test_a_page_of_none(repo: Repository) -> None:
    """end-8b: n=0 is an empty list, and never a Link."""
    tagged(repo, TAGS)
    answer = repo.tags(n=0).expect(200)
    assert answer.json()["tags"] == []
    assert answer.headers.get("Link") is None


def test_after(repo: Repository) -> None:
    """end-8b: last without n is everything behind that tag, the tag itself left out."""
    tagged(repo, TAGS)
    everything = listed(repo)
    assert listed(repo, last=everything[4]) == everything[5:]


def test_after_and_so_many(repo: Repository) -> None:
    """end-8b: last and n together are a page in the middle."""
    tagged(repo, TAGS)
    everything = listed(repo)
    assert listed(repo, n=3, last=everything[4]) == everything[5:8]


def test_after_a_tag_that_is_not_there(repo: Repository) -> None:
    """end-8b: last need not exist, it is a place in the order."""
    tagged(repo, ["a", "c", "e"])
    assert listed(repo, last="b") == ["c", "e"]


def test_after_the_last(repo: Repository) -> None:
    """end-8b: behind the last one there is nothing, and no Link."""
    tagged(repo, ["a", "b"])
    answer = repo.tags(n=5, last="b").expect(200)
    assert not answer.json()["tags"]
    assert answer.next() is None


# Several tags in one push


def accepted(header: list[str]) -> set[str]:
    return {tag.strip() for value in header for tag in value.split(",")}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_tags_of_a_digest(repo: Repository, algorithm: str, count: int) -> None:
    """end-7b: PUT by digest with tag parameters, ten at least, sets them all; OCI-Tag names each (main branch)."""
    content = repo.push_all(image(algorithm=algorithm))
    tags = [f"v{number}" for number in range(count)]
    answer = repo.put_manifest(content, tag=tags).expect(201)
    assert accepted(answer.headers.get_all("OCI-Tag", [])) == set(tags)
    assert answer.header("Docker-Content-Digest") == content.digest
    for tag in tags:
        is_about(repo.manifest(tag), content)
    assert listed(repo) == tags


def test_more_tags_than_ten(repo: Repository) -> None:
    """end-7b: more than ten are accepted, or 414 (431) says that they are too many (main branch)."""
    content = repo.push_all(image())
    tags = [f"v{number}" for number in range(11)]
    answer = repo.put_manifest(content, tag=tags).expect(201, 414, 431)
    assert answer.status != 201 or accepted(answer.headers.get_all("OCI-Tag", [])) == set(tags)


def test_no_tags_of_the_wrong_digest(repo: Repository) -> None:
    """end-7b: a push that is refused sets no tag."""
    content = repo.push_all(image(), "v1")
    repo.put_manifest(content, NOWHERE, tag=["v2"]).refused(400, "DIGEST_INVALID")
    assert listed(repo) == ["v1"]


def test_no_tag_that_is_none(repo: Repository) -> None:
    """end-7b: a tag outside the grammar is 400 and sets none of them (main branch)."""
    content = repo.push_all(image(), "v1")
    repo.put_manifest(content, tag=["v2", "-v3"]).expect(400)
    assert listed(repo) == ["v1"]
