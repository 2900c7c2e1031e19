"""One Fill per digest per process: lead or follow, until the blob is here or every source has failed.

A Fill is a task owned by the table, never by a request: a client that leaves, stalls or lies about itself cannot slow,
cancel or spoil it. Whether this process downloads or reads what another one downloads is decided by the store's claim
and may change in the middle, when a leader dies; readers (tail.py) see only how far the bytes reach.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from proxy import metrics, policy
from proxy.config import Upstream
from proxy.errors import CannotKeep, RegistryError, Unavailable
from proxy.fill.follow import follow
from proxy.fill.lead import Leader
from proxy.fill.outcomes import Outcomes
from proxy.fill.passing import Passages
from proxy.fill.permits import Abandoned, Permits
from proxy.fill.state import Fill
from proxy.oci.digest import Digest
from proxy.ports import BlobSource, BlobStore, Follow, Lead, OpenBlob

_PATIENCE = 5.0
_log = logging.getLogger("tidegate.fill")


class Flights:
    """The table of fills of this process."""

    def __init__(self, store: BlobStore, outcomes: Outcomes, permits: Permits, unkept: Callable[[str], None]) -> None:
        """`unkept` is told why something could not be kept."""
        self._store = store
        self._outcomes = outcomes
        self._permits = permits
        self._unkept = unkept
        self._full_until = 0.0
        self.passages = Passages()
        self._fills: dict[Digest, Fill] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def seen(self) -> dict[str, tuple[int, str]]:
        """Readers here, and the image as far as it is known, of every running fill."""
        return {str(digest): (fill.readers, fill.sources[0].image) for digest, fill in self._fills.items()}

    def running(self, digest: Digest) -> bool:
        return digest in self._fills

    def others(self, digest: Digest, source: BlobSource) -> bool | None:
        """Whether bytes have begun to come by somebody else's doing: to a fill without this source, to another
        process. None where there is no such download."""
        fill = self._fills.get(digest)
        if fill is not None:
            return None if any(known.key == source.key for known in fill.sources) else fill.live
        seen = self._store.growing(digest)
        return None if seen is None else seen.live

    def board(self, digest: Digest, sources: Sequence[BlobSource], arrived: float, upstream: Upstream) -> Fill:
        """The running Fill with one more reader, or a new one. The caller calls its `leave`."""
        fill = self._fills.get(digest)
        if fill is None:
            fill = self._fills[digest] = Fill(digest, arrived, self._ended)
            task = asyncio.create_task(self._fly(fill, upstream), name=f"fill {digest.short}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        fill.join(list(sources))
        return fill

    def _ended(self, fill: Fill) -> None:
        """Whoever asks from now on starts anew, or finds the finished blob."""
        if self._fills.get(fill.digest) is fill:
            del self._fills[fill.digest]

    async def _fly(self, fill: Fill, upstream: Upstream) -> None:
        metrics.FILLS.inc()
        try:
            while not fill.done:
                await self._claim(fill, upstream)
        except CannotKeep as error:
            self._remember(error.message)
            fill.fail(error)
        except RegistryError as error:
            level = logging.WARNING if isinstance(error, Unavailable) else logging.INFO
            _log.log(level, "fill %s: %s", fill.digest.short, error.message)
            fill.fail(error)
        except Abandoned:
            fill.fail(Unavailable("the download was put off because nobody waited for it"))
        except OSError as error:
            fill.fail(self.cannot_keep(error))
        except asyncio.CancelledError:
            fill.fail(Unavailable("tidegate is stopping", retry_after=1))
            raise
        except Exception:
            _log.exception("fill %s", fill.digest.short)
            fill.fail(Unavailable("an internal error; the log says more"))
        finally:
            metrics.FILLS.dec()

    @property
    def keeps(self) -> bool:
        """Whether the disk takes what is fetched, as far as is known: it is tried again every few seconds."""
        return time.monotonic() >= self._full_until

    def cannot_keep(self, error: OSError) -> CannotKeep:
        """The disk does not take something: say so, and what it means."""
        problem = CannotKeep(f"the cache cannot be written: {error.strerror or error}")
        self._remember(problem.message)
        return problem

    def _remember(self, why: str) -> None:
        self._full_until = time.monotonic() + policy.FULL_MEMORY
        self._unkept(why)

    async def _claim(self, fill: Fill, upstream: Upstream) -> None:
        """One pass: take what is there, follow who leads, or lead."""
        claimed: Lead | Follow | OpenBlob | None = self._store.claim(fill.digest, lambda: self._settled(fill))
        if isinstance(claimed, OpenBlob):
            fill.finish(claimed.fd, claimed.size)
            claimed.close()
            return
        if isinstance(claimed, Follow):
            patience = upstream.egress.stall_timeout + _PATIENCE
            claimed = await follow(fill, claimed, patience, lambda: self._settled(fill))
        if claimed is not None:
            await Leader(fill, claimed, upstream, self._outcomes, self._permits).run()

    def _settled(self, fill: Fill) -> None:
        """Raise when every source has refused this digest since the request arrived."""
        for source in fill.sources:
            error = self._outcomes.refusal(f"{source.key}@{fill.digest}", fill.arrived)
            if error is not None:
                fill.errors[source.key] = error
                fill.retired.add(source.key)
        if all(source.key in fill.retired for source in fill.sources):
            raise fill.errors[fill.sources[0].key]

    async def close(self) -> None:
        """Stop all fills; what they have stays and can be resumed."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.passages.close()
