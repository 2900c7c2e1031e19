"""Where what is pushed lies below the data folder, and who shares it: for a worker, for the start, for gc alone."""

import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor

from proxy.care.collect import Collector
from proxy.care.inventory import Inventory
from proxy.care.pushed import PushedNames
from proxy.care.sift import Shelves
from proxy.config import Settings
from proxy.http.pushing import Pushing
from proxy.oci.digest import Digest
from proxy.ports import Registry
from proxy.registry import local
from proxy.registry.local import Local
from proxy.registry.memory import Memory
from proxy.registry.owner import Ownership
from proxy.store.board import PUSHED, Board
from proxy.store.files import Files
from proxy.store.links import Links
from proxy.store.uploads import Uploads
from proxy.store.yard import Yard


def folder(settings: Settings) -> str:
    return os.path.join(settings.server.data, "local")


def files(settings: Settings) -> Files:
    return Files(os.path.join(folder(settings), "blobs"))


def links(settings: Settings) -> Links:
    return Links(os.path.join(folder(settings), "repositories"))


def locks(settings: Settings) -> str:
    """The folder of the repositories' locks."""
    return os.path.join(settings.server.data, "run", "repositories")


def yard(settings: Settings, words: memoryview | list[int]) -> Yard:
    """`words` are the board's."""

    def limit() -> int:
        most = settings.local.max_size
        if not most.fraction:
            return most.bytes
        found = os.statvfs(settings.server.data)
        return most.of(found.f_blocks * found.f_frsize)

    return Yard(os.path.join(settings.server.data, "run", "pushed"), words, limit)


def registry(
    settings: Settings, pool: Executor, board: Board, memory: Memory, lend: Callable[[Digest], str | None]
) -> Local:
    """The registry that is pushed to; `lend` gives the file of what may be mounted from the cache."""
    uploads = Uploads(os.path.join(folder(settings), "uploads"), pool, yard(settings, board.words))
    names = links(settings), uploads, locks(settings)
    shelves = local.Shelves(files(settings), *names, lend, settings.local.upload_ttl, settings.local.sparse)
    return Local(shelves, memory, board)


def inventory(settings: Settings) -> Inventory:
    """The images that were pushed."""
    names = PushedNames(links(settings))
    return Inventory(files(settings), names, names)


def count(settings: Settings, board: Board) -> None:
    """Write down how much there is, once, before anybody pushes; also where nothing can be pushed, for a reload may
    change that. Blocks. Raises OSError."""
    if not os.path.isdir(folder(settings)):
        return
    total = sum(state.st_size for _, state in files(settings).walk())
    with contextlib.suppress(FileNotFoundError), os.scandir(os.path.join(folder(settings), "uploads")) as entries:
        total += sum(entry.stat().st_size for entry in entries if not entry.name.endswith(".session"))
    board.words[PUSHED] = total


def pushing(
    settings: Settings,
    registry: Local,
    others: Sequence[Registry],
    cached: Callable[[str], bool],
    room: Callable[[int], Awaitable[bool]],
) -> Pushing:
    """What takes pushes: `others` answer for unqualified names too, `cached` whether something of a repository is."""
    return Pushing(registry, Ownership(registry, others, settings.local.own, cached), room)


def collector(settings: Settings, local: Local) -> Collector:
    """gc beside everybody else."""
    shelves = Shelves(files(settings), links(settings), locks(settings), local.uploads.yard, local.forget)
    return _collector(settings, shelves)


def collector_alone(settings: Settings) -> Collector:
    """gc where no service runs: nobody remembers anything, and the next start counts anew."""
    os.makedirs(locks(settings), exist_ok=True)
    shared = yard(settings, [0] * (PUSHED + 1))
    return _collector(settings, Shelves(files(settings), links(settings), locks(settings), shared, lambda *_: None))


def _collector(settings: Settings, shelves: Shelves) -> Collector:
    return Collector(shelves, settings.local.upload_ttl, os.path.join(settings.server.data, "run", "gc.lock"))
