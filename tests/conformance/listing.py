"""Which test belongs to which end-N, read from the docstrings, and the specification's list of them."""

import re

import pytest

from tests.conformance.targets import TARGETS

ENDPOINTS = {
    "end-1": "GET /v2/",
    "end-2": "GET, HEAD blobs/<digest>",
    "end-3": "GET, HEAD manifests/<reference>",
    "end-4a": "POST blobs/uploads/",
    "end-4b": "POST blobs/uploads/?digest=",
    "end-4c": "POST blobs/uploads/?digest-algorithm=",
    "end-5": "PATCH blobs/uploads/<id>",
    "end-6": "PUT blobs/uploads/<id>?digest=",
    "end-7a": "PUT manifests/<reference>",
    "end-7b": "PUT manifests/<digest>?tag=",
    "end-8a": "GET tags/list",
    "end-8b": "GET tags/list?n=&last=",
    "end-9": "DELETE manifests/<reference>",
    "end-10": "DELETE blobs/<digest>",
    "end-11": "POST blobs/uploads/?mount=&from=",
    "end-12a": "GET referrers/<digest>",
    "end-12b": "GET referrers/<digest>?artifactType=",
    "end-13": "GET blobs/uploads/<id>",
    "end-14": "DELETE blobs/uploads/<id>",
    "errors": "names, methods, error bodies",
    "catalog": "GET _catalog (extension)",
}
_NAMED = re.compile(r"(end-\d+[abc]?|errors|catalog)((?:, (?:end-\d+[abc]?))*): ")


def key(item: pytest.Item) -> tuple[str, str]:
    """The target of a test, "" when it has none, and its name without it, as deviations.py writes it."""
    for target in TARGETS:
        for written in (f"[{target}]", f"{target}-", f"-{target}"):
            if written in item.name:
                return target, f"{item.path.stem}::{item.name.replace(written, '', 1)}"
    return "", f"{item.path.stem}::{item.name}"


def endpoints(docstring: str | None) -> list[str]:
    """What a test's docstring says it belongs to: `end-4a, end-6: ...`; empty when it says nothing."""
    named = _NAMED.match(docstring or "")
    return [named[1], *named[2].split(", ")[1:]] if named else []
