"""The Protocols between rooms, and the values that cross them.

A room is used through what stands here, so that one contract suite fits every implementation and a fake is honest.
Every method ends with the closed list of what it raises; nothing else may come out of it but a bug.
"""

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from proxy.errors import Unavailable
from proxy.oci.digest import Digest
from proxy.oci.media import Descriptor, Manifest
from proxy.oci.names import Reference, Repo, Tag
from proxy.oci.ranges import Span

T = TypeVar("T")

Result = Literal["hit", "miss", "coalesced", "revalidated", "stale", "not_found", "denied", "bypass", "error"]
"""How an answer came about; the `result` label of the metrics and of the access line."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Who is asked for, and what came with the question.

    `via` is the Via header as received (loops through other tidegates are told by it), `arrived` wall-clock seconds.
    """

    repo: Repo
    arrived: float
    via: str = ""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A value, how it came about, and a sentence for the Warning header where it is not what was asked for.

    `by` is the upstream that answered where the name alone did not say it.
    """

    value: T
    result: Result
    warning: str = ""
    by: str = ""


class OpenBlob:
    """A finished blob: complete and verified, read through its own descriptor, which `close` gives back."""

    __slots__ = ("digest", "fd", "size")

    def __init__(self, digest: Digest, fd: int, size: int) -> None:
        self.digest = digest
        self.fd = fd
        self.size = size

    def close(self) -> None:
        """Close the descriptor; a second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __repr__(self) -> str:
        return f"<OpenBlob {self.digest.short} {self.size} bytes>"


class Filling(Protocol):
    """A blob still arriving, as one reader sees it; http/ knows no more of a fill than this."""

    size: int | None
    fd: int

    async def wait(self, beyond: int) -> int:
        """How many bytes may be sent now, once that is more than `beyond`; `beyond` itself when there are no more.

        Raises BodyBroken.
        """
        ...

    async def complete(self) -> int:
        """The size, once everything is here and verified. Raises RegistryError."""
        ...

    async def bypass(self, span: Span) -> bytes | None:
        """The bytes of a span far ahead of the fill from a request of its own, None where waiting is better.

        Raises nothing: a bypass that fails is None.
        """
        ...

    def close(self) -> None:
        """This reader is done, or gone."""
        ...


class Registry(Protocol):
    """What http/ may call. Everything raises RegistryError, with the status a client should act on."""

    name: str

    async def resolve(self, ask: Ask, reference: Reference) -> Answer[Descriptor]:
        """What a tag or digest is, for HEAD. Raises ManifestUnknown, Denied, LoopDetected, Unavailable."""
        ...

    async def manifest(self, ask: Ask, reference: Reference) -> Answer[Manifest]:
        """A manifest's exact bytes. Raises ManifestUnknown, Denied, LoopDetected, Unavailable."""
        ...

    async def stat(self, ask: Ask, digest: Digest) -> Answer[Descriptor]:
        """A blob's size, for HEAD; never starts a fill. Raises BlobUnknown, Denied, LoopDetected, Unavailable."""
        ...

    async def blob(self, ask: Ask, digest: Digest) -> Answer[OpenBlob | Filling]:
        """A blob; the caller closes it. Raises BlobUnknown, Denied, LoopDetected, Unavailable."""
        ...

    async def tags(self, ask: Ask) -> Answer[Sequence[str]]:
        """All tags, sorted. Raises NameUnknown, Denied, LoopDetected, Unavailable."""
        ...

    async def referrers(self, ask: Ask, digest: Digest) -> Answer[Sequence[Mapping[str, Any]]]:
        """Descriptors of all manifests whose subject is `digest`. Raises Denied, LoopDetected, Unavailable."""
        ...


class Pushable(Registry, Protocol):
    """A registry that also takes content."""

    def holds(self, repo: Repo) -> bool:
        """Whether there is anything in a repository. Raises OSError."""
        ...

    async def add_blob(self, repo: Repo, digest: Digest, size: int) -> None:
        """A blob whose bytes are durable belongs to a repository. Raises OSError."""
        ...

    async def mount(self, repo: Repo, digest: Digest, source: Repo | None) -> bool:
        """Let a repository have a blob of another one, of any where None; whether there was one. Raises OSError."""
        ...

    async def put_manifest(self, repo: Repo, reference: Reference, manifest: Manifest, tags: Sequence[Tag]) -> None:
        """Store a manifest and its names. Raises ManifestInvalid, ManifestBlobUnknown, OSError."""
        ...

    async def delete_manifest(self, repo: Repo, reference: Reference) -> None:
        """A tag alone, or a manifest with its tags. Raises ManifestUnknown, OSError."""
        ...

    async def delete_blob(self, repo: Repo, digest: Digest) -> None:
        """A repository no longer has a blob. Raises BlobUnknown, OSError."""
        ...


class Gate(Protocol):
    """What this machine has learned of one way to an upstream, whichever worker learned it."""

    def enter(self) -> None:
        """Before each request. Raises Unavailable while the upstream is left alone, or asked to be."""
        ...

    def heard(self) -> None:
        """It answered."""
        ...

    def failed(self, error: Unavailable) -> None:
        """A request brought no answer, or broke off."""
        ...


class BlobStream(Protocol):
    """One response of one source: bytes from `start` on; `total` is the whole blob's size where the source says it."""

    start: int
    total: int | None
    host: str

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The bytes. Raises Unavailable when they stop coming."""
        ...


class BlobSource(Protocol):
    """Somewhere a blob can be had: one upstream under one repository name."""

    upstream: str
    key: str
    """Under which this source's refusals are remembered: upstream and repository."""
    image: str
    """Upstream and repository, as people name it."""
    size: int | None
    """The descriptor's size where a manifest of the same repository said it."""

    def open(self, digest: Digest, offset: int, stop: int | None) -> AbstractAsyncContextManager[BlobStream]:
        """Ask for the bytes from `offset` on, up to `stop` where that is given.

        Raises BlobUnknown, Denied, LoopDetected, Unavailable."""
        ...

    async def opened(self, digest: Digest, total: int | None) -> None:
        """This source delivered the digest's first byte, or all of it, verified, `total` bytes: remember who may see
        it. Raises nothing."""
        ...


@runtime_checkable
class Lead(Protocol):
    """The only writer of a digest on this machine, until closed or dead."""

    fd: int
    total: int | None
    """What an earlier life noted, then what was announced."""

    @property
    def offset(self) -> int:
        """Bytes in the file: what may be sent."""
        ...

    @property
    def received(self) -> int:
        """Bytes taken, the withheld one included: where the next byte belongs."""
        ...

    def on_progress(self, call: Callable[[], None]) -> None:
        """`call` is called whenever `offset` has grown."""
        ...

    def announce(self, total: int | None) -> None:
        """Tell followers that bytes are coming, and how many there will be."""
        ...

    async def write(self, chunk: bytes) -> None:
        """Hash and append; returns when there is room for more. Raises OSError."""
        ...

    async def settle(self) -> None:
        """Wait until everything written so far is in the file. Raises OSError."""
        ...

    async def seal(self) -> bool:
        """Everything is here: True, and the last byte is in the file, when the digest matches. Raises OSError."""
        ...

    async def publish(self) -> None:
        """Make the sealed file durable and final. Raises OSError."""
        ...

    async def close(self, *, discard: bool) -> None:
        """Give the lock up, after outstanding writes; `discard` removes what there is. Raises nothing."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What a follower sees of the leader's file: bytes there, bytes there will be, whether bytes are coming."""

    available: int
    total: int | None
    live: bool


@dataclass(frozen=True, slots=True)
class Gone:
    """The bytes that were followed have been discarded."""


@runtime_checkable
class Follow(Protocol):
    """Somebody else on this machine writes this digest."""

    fd: int

    def look(self, settled: Callable[[], None]) -> "Seen | Gone | Lead | OpenBlob":
        """What has become of it; a Lead when the leader has died. Raises what `settled` raises, and OSError."""
        ...

    def close(self) -> None: ...


class BlobStore(Protocol):
    """Finished blobs: present means complete and verified."""

    def open(self, digest: Digest) -> OpenBlob | None:
        """The finished blob, or None. Raises OSError."""
        ...

    def growing(self, digest: Digest) -> "Seen | None":
        """How far some process of this machine has come with it; None when none downloads it."""
        ...

    def claim(self, digest: Digest, settled: Callable[[], None]) -> "Lead | Follow | OpenBlob":
        """Lead, follow, or find it finished. `settled` is called under the lock and raises an outcome newer than the
        asker's arrival. Raises what `settled` raises, and OSError."""
        ...
