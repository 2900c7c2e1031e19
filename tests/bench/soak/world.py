"""What the upstream has, what the clients saw, and what was wrong. Everything here is values; no I/O.

The truth is complete: an answer that is not in it is wrong. Only tags may have several right answers, since they move
while somebody asks.
"""

import hashlib
import json
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.fakes.origin import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Repository, descriptor

KIB = 1 << 10
SAID = 15.0
"""Seconds after which nothing may be answered from an upstream's 404: refusals are remembered for 2 s, requests wait up
to 3 s for a first byte, and the rest is a busy machine's."""
_SIZES = (0, 1, 700, 64 * KIB, 300 * KIB, 1100 * KIB, 2500 * KIB)


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def image(rng: random.Random, layers: list[bytes]) -> tuple[bytes, dict[str, bytes]]:
    """The manifest of an image nobody has seen before, and its blobs."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "id": rng.random()}).encode()
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, config),
        "layers": [descriptor(OCI_LAYER, layer) for layer in layers],
    }
    return json.dumps(document).encode(), {digest_of(content): content for content in (config, *layers)}


@dataclass(slots=True)
class Report:
    """What happened, counted; `problems` is what should not have."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    bytes: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    wrong: int = 0  # complete bodies that were not what was asked for
    leaked: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    peak: float = 0.0
    upstream_bytes: int = 0
    asked: int = 0  # requests the upstream got, redirects and what they led to

    def problem(self, text: str) -> None:
        self.problems.append(text)


class Truth:
    """The upstream's content, and what it said to whom."""

    def __init__(self, rng: random.Random, repositories: int = 8) -> None:
        self.repos: dict[str, Repository] = {}
        self.ever: dict[tuple[str, str], list[str]] = defaultdict(list)  # every digest a tag has had, the last is now
        self.ours: set[str] = set()  # repositories whose unqualified name has been answered with a manifest
        self.said: dict[tuple[str, str, int], float] = {}  # (repository, reference, status) -> when, for the last time
        shared = [rng.randbytes(size) for size in _SIZES[:5]]
        self._lies: dict[str, float] = {}
        for number in range(repositories):
            repo = self.repos[f"soak/app{number}"] = Repository()
            for tag in ("v1", "v2", "v3", "latest"):
                layers = [rng.choice(shared), *(rng.randbytes(rng.choice(_SIZES[2:])) for _ in range(2))]
                manifest, blobs = image(rng, layers)
                repo.blobs.update(blobs)
                repo.manifests[digest_of(manifest)] = manifest, OCI_MANIFEST
                self.move(f"soak/app{number}", tag, digest_of(manifest))

    def move(self, repo: str, tag: str, digest: str) -> None:
        """The tag is another image's from now on."""
        self.ever[repo, tag].append(digest)
        self.repos[repo].tags[tag] = digest

    def note(self, repo: str, reference: str, status: int) -> None:
        """The upstream is about to refuse this."""
        self.said[repo, reference, status] = time.monotonic()

    def lie(self, reference: str) -> None:
        """The upstream is about to send something wrong under this name."""
        self._lies[reference] = time.monotonic()

    def lied_to(self, reference: str, began: float) -> bool:
        """Whether it did, to this request or shortly before."""
        return self._lies.get(reference, -SAID) > began - SAID

    def refused(self, repo: str, reference: str, status: int, began: float) -> bool:
        """Whether the upstream said so, to this request or shortly before."""
        names = [reference, *self.ever.get((repo, reference), ())]
        return any(self.said.get((repo, name, status), -SAID) > began - SAID for name in names)
