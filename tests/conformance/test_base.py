"""end-1, and what holds for all of them: names, methods, error documents."""

import re

import pytest

from tests.conformance.client import Registry, Repository
from tests.conformance.content import image
from tests.conformance.test_blobs import NOWHERE
from tests.conformance.test_chunks import UNKNOWN

SPECIFIED = frozenset(
    {
        *("BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN"),
        *("MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED"),
        *("DENIED", "UNSUPPORTED", "TOOMANYREQUESTS"),
    }
)
BAD_NAMES = {
    "upper-case": "Conformance/name",
    "trailing-dash": "conformance/name-",
    "leading-dot": "conformance/.name",
    "two-dots": "conformance/a..b",
    "three-underscores": "conformance/a___b",
    "space": "conformance/a%20b",
    "too-long": "conformance/" + "a" * 300,
}
GOOD_NAMES = {
    "dots-and-dashes": "conformance/a.b_c__d---e/0",
    "one-part": "conformance-one-part",
    "many-parts": "conformance/" + "/".join("abcdefghijkl"),
    "words-of-the-api": "conformance/blobs/uploads/manifests/tags/list",
}
WRONG_METHODS = {
    "ping": ("DELETE", "/v2/"),
    "tags": ("POST", "/v2/conformance/methods/tags/list"),
    "manifest": ("POST", "/v2/conformance/methods/manifests/v1"),
    "blob": ("PUT", f"/v2/conformance/methods/blobs/{NOWHERE}"),
    "referrers": ("PUT", f"/v2/conformance/methods/referrers/{NOWHERE}"),
}


def test_ping(registry: Registry) -> None:
    """end-1: /v2/ is 200 where the specification is implemented."""
    registry.ask("GET", "/v2/").expect(200)


def test_ping_says_its_version(registry: Registry) -> None:
    """end-1: the header older clients look for, Docker-Distribution-Api-Version, is there (optional)."""
    assert registry.ask("GET", "/v2/").header("Docker-Distribution-Api-Version") == "registry/2.0"


def test_another_version_is_not_found(registry: Registry) -> None:
    """end-1: a version that is not implemented is 404."""
    registry.ask("GET", "/v3/").expect(404)


@pytest.mark.parametrize("name", GOOD_NAMES.values(), ids=GOOD_NAMES)
def test_names(registry: Registry, name: str) -> None:
    """errors: every name of the specification's grammar can be pushed to and pulled from."""
    repo = registry.repository(name)
    content = repo.push_all(image(), "v1")
    assert repo.manifest("v1").expect(200).body == content.body


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bad_names(registry: Registry, method: str, name: str) -> None:
    """errors: a name outside the grammar is refused (400 NAME_INVALID) or not found, for pull and push alike."""
    rest = "manifests/v1" if method == "GET" else "blobs/uploads/"
    answer = registry.repository(name).ask(method, rest).expect(400, 404)
    if answer.status == 400:
        answer.refused(400, "NAME_INVALID")


@pytest.mark.parametrize("tag", [".hidden", "-dash", "a" * 129, "a%20b", "a+b"], ids=lambda tag: tag[:8])
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_bad_tags(repo: Repository, method: str, tag: str) -> None:
    """errors: so is a tag outside the grammar; pushing to it leaves nothing behind."""
    content = repo.push_all(image(), "v1")
    repo.ask(method, f"manifests/{tag}", content.body, Content_Type=content.media_type).expect(400, 404)
    assert repo.tags().expect(200).json()["tags"] == ["v1"]


@pytest.mark.parametrize("tag", ["_x", "9", "V1.0_rc-1", "a" * 128], ids=lambda tag: tag[:9])
def test_tags_of_the_grammar(repo: Repository, tag: str) -> None:
    """errors: every tag of the grammar, up to 128 characters, can be pushed and pulled; case counts."""
    content = repo.push_all(image(), tag)
    assert repo.manifest(tag).expect(200).body == content.body
    if tag.swapcase() != tag:
        repo.manifest(tag.swapcase()).expect(404)


@pytest.mark.parametrize("method, path", WRONG_METHODS.values(), ids=WRONG_METHODS)
def test_methods(registry: Registry, method: str, path: str) -> None:
    """errors: a method a resource does not have is 405, and Allow lists those it has (RFC 9110, 15.5.6)."""
    allowed = registry.ask(method, path).expect(405).header("Allow")
    assert method not in re.split(r"\s*,\s*", allowed)


def test_error_documents(repo: Repository) -> None:
    """errors: a body in JSON is {"errors": [{code, message, detail}]} with codes of the specification."""
    repo.push_all(image(), "v1")
    refusals = [
        repo.blob(NOWHERE),
        repo.manifest("nothing"),
        repo.manifest(NOWHERE),
        repo.registry.repository(f"{repo.name}/unknown").tags(),
        repo.finish(repo.session(), "sha256:abc", b"content"),
        repo.ask("PUT", "manifests/v2", b"{", Content_Type="application/json"),
        repo.ask("DELETE", f"blobs/{NOWHERE}"),
        repo.ask("GET", UNKNOWN),
    ]
    for answer in refusals:
        assert 400 <= answer.status < 500, answer
        assert answer.header("Content-Type").partition(";")[0] == "application/json", answer
        assert answer.codes() and set(answer.codes()) <= SPECIFIED, answer
        for error in answer.json()["errors"]:
            assert isinstance(error.get("message", ""), str), answer


def test_pushed_twice(repo: Repository) -> None:
    """end-6, end-7a: pushing what is there already is a success, for blobs and manifests."""
    content = repo.push_all(image(), "v1")
    repo.push_all(content, "v1")
    assert repo.manifest("v1").expect(200).body == content.body
