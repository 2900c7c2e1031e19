"""Asking one upstream: its URLs in order, once more where that may help, within the time a client waits."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from proxy import policy
from proxy.config import Upstream
from proxy.errors import RegistryError, Unavailable
from proxy.fill.outcomes import Outcomes
from proxy.upstream.client import Client

T = TypeVar("T")


class Asking:
    """One upstream, to be asked for what is small."""

    def __init__(self, settings: Upstream, clients: Sequence[Client], outcomes: Outcomes) -> None:
        self._settings = settings
        self._clients = clients
        self._outcomes = outcomes

    async def first(self, call: Callable[[Client], Awaitable[T]]) -> T:
        """The first answer of the upstream's URLs, in order; only one that is unavailable passes on to the next, and
        after the last one there is one more round. Raises RegistryError."""
        problem: Unavailable | None = None
        began, deadline = time.monotonic(), self._settings.egress.first_byte_deadline
        for pause in (policy.next_attempt(1), None):
            for left, client in zip(range(len(self._clients), 0, -1), self._clients, strict=True):
                budget = policy.attempt_budget(time.monotonic() - began, deadline, left)
                try:
                    async with asyncio.timeout(budget):
                        return await call(client)
                except TimeoutError:
                    problem = Unavailable(f"{client.host}: no answer within {budget:.0f} s", label="timeout")
                except Unavailable as error:
                    problem = error
            if pause is None or problem is None or problem.label == "timeout":
                break
            if not policy.worth_asking_again(problem.label):
                break
            await asyncio.sleep(pause)
        assert problem is not None, "an upstream has at least one URL"
        raise problem

    async def refusing(self, key: str, call: Callable[[Client], Awaitable[T]]) -> T:
        """`first`; a refusal is written down for everybody on this machine who asks the same now."""
        try:
            return await self.first(call)
        except RegistryError as error:
            await self._outcomes.refuse(key, error)
            raise

    async def in_time(self, answer: Awaitable[T], seconds: float = math.inf) -> T:
        """The deadline, or less, ends the answer, not the asking."""
        deadline = min(seconds, self._settings.egress.first_byte_deadline)
        try:
            async with asyncio.timeout(deadline):
                return await answer
        except TimeoutError:
            message = f"{self._settings.name}: no answer within {deadline:.0f} s"
            raise Unavailable(message, retry_after=10, label="timeout") from None
