"""What workers know and a restart must not lose: the ledger of hosts, who asks by old names, problems. A row a
page and slot.

A row of its own for each worker, written by that worker alone, needs no lock and no merge when it is written; whoever
reads adds the rows up.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from proxy.care import legacy, problems
from proxy.store.index import Index
from proxy.upstream import ledger

_EVERY = 0.5
_SAVING = 0.1
_SLOTS = 256
_LEDGER, _LEGACY, _PROBLEMS = "e", "g", "q"
_log = logging.getLogger("tidegate.care")


class Page(Protocol):
    """One worker's table."""

    changed: bool

    def restore(self, rows: Iterable[Mapping[str, Any]]) -> None: ...
    def rows(self) -> list[dict[str, Any]]: ...


class Books:
    """The kept tables of one data folder, and this worker's pages in them."""

    def __init__(
        self, index: Index, slot: int, hosts: ledger.Ledger, old_names: legacy.Legacy, met: problems.Problems
    ) -> None:
        self._index = index
        self._slot = slot
        self._pages: Mapping[str, Page] = {_LEDGER: hosts, _LEGACY: old_names, _PROBLEMS: met}
        for kind, page in self._pages.items():
            page.restore(_rows(index, kind, slot))

    async def keep(self) -> None:
        """Write the pages down whenever they have changed, for ever."""
        while True:
            await asyncio.sleep(_EVERY)
            await self.save()

    async def save(self) -> None:
        """Write the pages down now. A disk that is full costs the page, nothing else."""
        changed = {kind: page for kind, page in self._pages.items() if page.changed}
        rows = {_key(kind, self._slot): json.dumps(page.rows()) for kind, page in changed.items()}
        if rows:
            try:
                await self._index.put(rows)
            except OSError as error:
                _log.warning("%s", error)

    async def hosts(self) -> list[ledger.Entry]:
        """The whole machine's ledger."""
        await self._complete()
        return kept_hosts(self._index)

    async def seen_hosts(self) -> list[ledger.Entry]:
        """The whole machine's ledger, half a second old at most."""
        return ledger.merged(ledger.read(rows) for rows in await self._all(_LEDGER))

    async def _all(self, kind: str) -> list[list[dict[str, Any]]]:
        """Every worker's table."""
        found = await self._index.read(_key(kind, slot) for slot in range(_SLOTS))
        return [_entries(row) for row in found.values()]

    async def old_names(self) -> list[legacy.Sighting]:
        """Who asks by an old name, on the whole machine."""
        await self._complete()
        return kept_old_names(self._index)

    async def problems(self) -> list[problems.Problem]:
        """The last problems of the whole machine, half a second old at most."""
        await self.save()
        return problems.merged(problems.read(rows) for rows in await self._all(_PROBLEMS))

    async def _complete(self) -> None:
        """Wait until every worker has written down what it has seen by now."""
        await self.save()
        await asyncio.sleep(_EVERY + _SAVING)


def kept_hosts(index: Index) -> list[ledger.Entry]:
    """The machine's ledger as it is kept, also where nothing runs."""
    return ledger.merged(ledger.read(_rows(index, _LEDGER, slot)) for slot in range(_SLOTS))


def kept_old_names(index: Index) -> list[legacy.Sighting]:
    """Who asked by an old name, as it is kept, also where nothing runs."""
    return legacy.merged(legacy.read(_rows(index, _LEGACY, slot)) for slot in range(_SLOTS))


def _rows(index: Index, kind: str, slot: int) -> list[dict[str, Any]]:
    return _entries(index.get(_key(kind, slot)))


def _entries(row: str | None) -> list[dict[str, Any]]:
    with contextlib.suppress(ValueError):
        found = json.loads(row) if row is not None else []
        if isinstance(found, list):
            return [entry for entry in found if isinstance(entry, dict)]
    return []


def _key(kind: str, slot: int) -> str:
    return f"{kind}:{slot}"
