"""Whether one repository may show a blob: what its rows say, else what its upstream says when it is asked.

Only an answer of this upstream for this repository is a proof. That a manifest lists a digest, that the bytes lie here,
that somebody else downloads them now: none of it is one, and none of it may be told apart from the outside. No bytes
pass through here.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable

from proxy import policy
from proxy.errors import Denied, Unavailable
from proxy.fill.outcomes import Outcomes
from proxy.fill.turn import Turns
from proxy.oci.digest import Digest
from proxy.oci.media import Descriptor
from proxy.ports import Ask, BlobStore
from proxy.registry.asking import Asking
from proxy.registry.rows import Rows

_MOMENT = 2.0
"""Seconds for the first byte of a download that may be ours. A silent upstream costs a crowd one HEAD more."""
_POLL = 0.015


class Proof:
    """The proofs of one upstream's repositories."""

    def __init__(self, rows: Rows, asking: Asking, store: BlobStore, turns: Turns, outcomes: Outcomes) -> None:
        self._rows = rows
        self._asking = asking
        self._store = store
        self._turns = turns
        self._outcomes = outcomes

    def stands(self, ask: Ask, digest: Digest) -> bool:
        """Whether this repository may show the blob, as far as is known."""
        return self._rows.blob(ask.repo, digest) is not None

    def size(self, ask: Ask, digest: Digest) -> int | None:
        """The size of a blob this repository may show: as verified, as it lies here, as this repository was told. What
        a manifest told of a blob that nobody has confirmed is no answer: a GET of it would say another thing."""
        said = self._rows.blob(ask.repo, digest)
        if said is None:
            return None
        if said.size is None and (opened := self._store.open(digest)) is not None:
            opened.close()
            return opened.size
        return self._rows.told_size(ask.repo, digest) if said.size is None else said.size

    async def get(self, ask: Ask, digest: Digest, seconds: float = math.inf) -> Descriptor:
        """Ask the upstream whether this repository has this blob, within `seconds` or the time an answer may take, and
        remember it. Raises RegistryError."""
        key = f"b:{self._rows.full(ask.repo)}@{digest}"

        def look() -> Descriptor | None:
            permitted = self.stands(ask, digest)
            if not permitted and (refusal := self._outcomes.refusal(key, ask.arrived)) is not None:
                raise refusal
            size = self.size(ask, digest) if permitted else None
            return None if size is None else Descriptor(digest, size)

        async def head() -> Descriptor:
            said = await self._asking.refusing(key, lambda client: client.blob_size(ask, digest))
            await self._rows.put_blob(ask.repo, digest, told=said.size)
            return said

        return await self._asking.in_time(self._turns.run(key, look, head), seconds)

    async def before_joining(self, ask: Ask, digest: Digest, others: Callable[[], bool | None]) -> None:
        """Where somebody else downloads it: a repository that has no such blob must not wait with them, fail with them
        or lend its source to them, because all that tells that there is something. Raises RegistryError when the
        upstream says so; anything less clear (it is away or slow, or its store refuses a HEAD) is left to be found out
        when there is a byte to be shown, so that nobody who may have it fails here.

        `others` says whether such a download has begun, None where there is none. One for this very repository proves
        with its first byte what we would ask for: until then it gets a moment, so that a crowd costs one request.
        """
        until = time.monotonic() + _MOMENT
        while not self.stands(ask, digest) and (begun := others()) is not None:
            if self.stands(ask, digest):
                return  # it began between the two looks: the row is written before the first byte is announced
            if begun or time.monotonic() > until:
                with contextlib.suppress(Unavailable, Denied, TimeoutError):
                    async with asyncio.timeout(policy.REVALIDATION_DEADLINE):
                        await self.get(ask, digest)
                return
            await asyncio.sleep(_POLL)
