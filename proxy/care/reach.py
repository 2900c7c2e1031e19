"""What the manifests of one repository reach, and so what may go. Decisions only: facts in, names out.

A manifest reaches every digest it names: layers, config, children, its subject; a subject reaches what refers to it.
All manifests stand unless those that nothing tags may go too; then they are reached from tags, and from whatever is so
young that somebody may still be about to tag it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from proxy.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Said:
    """What one manifest says: every digest it `names`, and the one it refers to."""

    names: frozenset[Digest]
    subject: Digest | None


def standing(manifests: Mapping[Digest, Said], roots: Iterable[Digest]) -> set[Digest]:
    """The manifests that are reached from these."""
    referrers: dict[Digest, list[Digest]] = {}
    for digest, said in manifests.items():
        if said.subject is not None:
            referrers.setdefault(said.subject, []).append(digest)
    reached, waiting = set(), list(roots)
    while waiting:
        digest = waiting.pop()
        if digest in reached or digest not in manifests:
            continue
        reached.add(digest)
        waiting += [*manifests[digest].names, *referrers.get(digest, ())]
    return reached


def blobs(manifests: Mapping[Digest, Said], stand: Collection[Digest]) -> set[Digest]:
    """Everything the manifests that stand need."""
    return {name for digest in stand for name in manifests[digest].names}


def parents_first(manifests: Mapping[Digest, Said], going: Collection[Digest]) -> list[Digest]:
    """The order in which manifests go, so that at no moment one stands without its child: a digest cannot be named
    before it is known, so there is no circle."""
    left, order = set(going), []
    while left:
        below = {name for digest in left for name in manifests[digest].names if name != digest}
        first = (left - below) or left
        order += sorted(first, key=str)
        left -= first
    return order
