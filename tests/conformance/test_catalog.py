"""GET /v2/_catalog, which is no part of the specification but of every registry that lets itself be listed."""

from tests.conformance.client import Registry, Repository
from tests.conformance.content import image


def pages(registry: Registry, size: int) -> list[str]:
    """All names, page by page."""
    answer = registry.ask("GET", f"/v2/_catalog?n={size}").expect(200)
    found = list(answer.json()["repositories"])
    while (further := answer.next()) is not None:
        answer = registry.ask("GET", further).expect(200)
        page = answer.json()["repositories"] or []
        assert len(page) <= size
        found += page
    return found


def test_a_repository_is_listed(repo: Repository, other: Repository) -> None:
    """catalog: a repository with content is in it, under its full name; JSON with `repositories`."""
    repo.push_all(image(), "v1")
    other.push_all(image(), "v1")
    answer = repo.registry.ask("GET", "/v2/_catalog?n=1000").expect(200)
    assert answer.header("Content-Type").partition(";")[0] == "application/json"
    assert {repo.name, other.name} <= set(answer.json()["repositories"])


def test_the_order(repo: Repository, other: Repository) -> None:
    """catalog: names come in the order of their bytes, each once; a slash is a byte like any other."""
    for each in (repo, other, repo.registry.repository(f"{repo.name}-beside")):
        each.push_all(image(), "v1")
    found = pages(repo.registry, 1000)
    assert found == sorted(set(found))


def test_pages(repo: Repository, other: Repository) -> None:
    """catalog: n limits a page, Link leads to the next one, and all of them together are everything."""
    repo.push_all(image(), "v1")
    other.push_all(image(), "v1")
    assert pages(repo.registry, 1000) == pages(repo.registry, 7)


def test_after(repo: Repository, other: Repository) -> None:
    """catalog: last is a place in the order and not part of the answer."""
    repo.push_all(image(), "v1")
    other.push_all(image(), "v1")
    found = repo.registry.ask("GET", f"/v2/_catalog?n=1&last={repo.name}").expect(200).json()["repositories"]
    assert found == [other.name]


def test_nothing_pushed(repo: Repository) -> None:
    """catalog: a repository that was only asked about is not in it."""
    repo.manifest("v1").expect(404)
    assert repo.name not in pages(repo.registry, 1000)
