"""Values that an upstream may change: a tag's digest, a list of tags, a list of referrers.

Fresh within the TTL they are answered without asking. Then the upstream is asked, once per machine; when it fails or
is slow the known value is the answer, marked stale, and for a while nobody asks again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from proxy import policy
from proxy.config import Upstream
from proxy.errors import BlobUnknown, Denied, ManifestUnknown, NameUnknown, RegistryError, Unavailable
from proxy.fill.outcomes import Outcomes
from proxy.fill.turn import Turns
from proxy.policy import TagFacts, TagState
from proxy.ports import Answer, Ask
from proxy.store.board import Board

T = TypeVar("T")
STALE = '299 - "stale: the upstream could not confirm this"'
"""The Warning header of what is answered without being asked for."""
_GONE = (ManifestUnknown, NameUnknown, BlobUnknown, Denied)


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """A value, when the upstream last confirmed it, when asking last failed (0: not since)."""

    value: T
    checked_at: float
    failed_at: float = 0.0

    @property
    def facts(self) -> TagFacts:
        return TagFacts(self.checked_at, self.failed_at)


class Shelf(Protocol):
    """Where kept values stand: the index."""

    def kept(self, key: str) -> Kept[Any] | None: ...
    async def keep(self, key: str, kept: Kept[Any] | None) -> None: ...


Renew = Callable[[T | None], Awaitable[tuple[T, bool]]]
"""Asks the upstream, given what is known; the value, and whether it was only confirmed."""


class Renewals:
    """Keeps the values of one upstream current."""

    def __init__(
        self,
        settings: Upstream,
        shelf: Shelf,
        turns: Turns,
        outcomes: Outcomes,
        board: Board,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._shelf = shelf
        self._turns = turns
        self._outcomes = outcomes
        self._board = board
        self._clock = clock

    async def current(self, key: str, ask: Ask, renew: Renew[T]) -> Answer[T]:
        """The value under `key`. Raises what `renew` raises where nothing is known that may be answered."""
        kept: Kept[T] | None = self._shelf.kept(key)
        match self._state(kept):
            case TagState.FRESH if kept is not None:
                return Answer(kept.value, "hit")
            case TagState.HOLD if kept is not None:
                return _stale(kept)
        joined = self._turns.running(key)
        answer = await self._ask(key, ask, kept, renew)
        return replace(answer, result="coalesced") if joined and answer.result == "miss" else answer

    def _state(self, kept: Kept[T] | None) -> TagState:
        if kept is None:
            return TagState.ASK
        if self._settings.offline:
            return TagState.FRESH  # nobody can confirm it, and nobody will: no time limit makes sense
        return policy.tag_state(kept.facts, self._settings.tag_ttl, self._settings.stale_if_error, self._clock())

    async def _ask(self, key: str, ask: Ask, kept: Kept[T] | None, renew: Renew[T]) -> Answer[T]:
        usable = kept is not None and self._usable(kept)
        deadline = policy.REVALIDATION_DEADLINE if usable else self._settings.egress.first_byte_deadline
        try:
            async with asyncio.timeout(min(deadline, self._settings.egress.first_byte_deadline)):
                return await self._turns.run(key, lambda: self._look(key, ask), lambda: self._renew(key, renew))
        except TimeoutError:
            now: Kept[T] | None = self._shelf.kept(key)  # somebody else may have found it out meanwhile
            if now is not None and self._state(now) is TagState.FRESH:
                return Answer(now.value, "coalesced")
            if now is not None and self._usable(now):
                await self._change(key, replace(now, failed_at=self._clock()))
                return _stale(now)
            message = f"{self._settings.name}: no answer within {deadline:.0f} s"
            raise Unavailable(message, retry_after=10, label="timeout") from None

    def _look(self, key: str, ask: Ask) -> Answer[T] | None:
        """Under the lock: what somebody else has found out since this request arrived."""
        kept: Kept[T] | None = self._shelf.kept(key)
        match self._state(kept):
            case TagState.FRESH if kept is not None:
                return Answer(kept.value, "coalesced")
            case TagState.HOLD if kept is not None:
                return _stale(kept)
        if kept is None and (refusal := self._outcomes.refusal(key, ask.arrived)) is not None:
            raise refusal
        return None

    async def _renew(self, key: str, renew: Renew[T]) -> Answer[T]:
        kept: Kept[T] | None = self._shelf.kept(key)
        try:
            value, confirmed = await renew(None if kept is None else kept.value)
        except RegistryError as error:
            return await self._failed(key, kept, error)
        await self._change(key, Kept(value, self._clock()))
        return Answer(value, "revalidated" if confirmed else "miss")

    async def _failed(self, key: str, kept: Kept[T] | None, error: RegistryError) -> Answer[T]:
        """What is known, where it may still be answered, else the error for everybody who asks now."""
        obeyed = isinstance(error, _GONE) and self._settings.on_gone == "obey"
        if kept is not None and not obeyed and self._usable(kept):
            await self._change(key, replace(kept, failed_at=self._clock()))
            return _stale(kept)
        if kept is not None and obeyed:
            await self._change(key, None)
        await self._outcomes.refuse(key, error)
        raise error

    def _usable(self, kept: Kept[T]) -> bool:
        settings = self._settings
        return policy.usable_stale(kept.facts, settings.tag_ttl, settings.stale_if_error, self._clock())

    async def _change(self, key: str, kept: Kept[T] | None) -> None:
        """Commit, then make every worker look again, then the caller answers."""
        await self._shelf.keep(key, kept)
        self._board.change(key)


def _stale(kept: Kept[T]) -> Answer[T]:
    return Answer(kept.value, "stale", STALE)
