"""Forgetting names on the whole machine: the rows go, then every worker's memory is void."""

from collections.abc import Iterable

from proxy.store.board import Board
from proxy.store.index import Index


class Forget:
    """Knows where cached.py writes what a name means."""

    def __init__(self, index: Index, board: Board) -> None:
        self._index = index
        self._board = board

    async def __call__(self, repository: str, references: Iterable[str]) -> None:
        """Tags and digests of a repository, which is named with its upstream: the next one who asks makes us ask the
        upstream. The row goes before the word changes (store/board.py). Raises OSError."""
        keys = [key for each in references for key in (f"t:{repository}:{each}", f"l:{repository}@{each}")]
        await self._index.put(dict.fromkeys(keys))
        for key in keys:
            self._board.change(key)

    def answer(self, repository: str, digest: str) -> None:
        """Only what workers remember of a manifest; its rows stay."""
        self._board.change(f"t:{repository}:{digest}")
