"""One worker: which concrete class stands behind every Protocol. No behaviour of its own."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from yarl import URL

from proxy import __version__, clients, doctor, metrics
from proxy.care import census, plan
from proxy.care.arriving import Arriving
from proxy.care.books import Books
from proxy.care.days import Days
from proxy.care.evict import Janitor
from proxy.care.inventory import Inventory
from proxy.care.legacy import Legacy
from proxy.care.lost import images_to_keep
from proxy.care.pinning import Rooms as PinRooms
from proxy.care.pins import Pins
from proxy.care.problems import Problems
from proxy.care.removal import Remover
from proxy.care.scrub import Scrubber
from proxy.compose import limits, pushed, ways
from proxy.compose.chores import Chores
from proxy.compose.log import set_up_log
from proxy.compose.prepare import instance_of
from proxy.compose.pulse import beat
from proxy.config import Settings, Upstream
from proxy.errors import StartError
from proxy.fill.flight import Flights
from proxy.fill.outcomes import Outcomes
from proxy.fill.permits import Permits
from proxy.fill.turn import Turns
from proxy.http.access import AccessLog
from proxy.http.admin import Admin
from proxy.http.app import Api
from proxy.http.auth import Access
from proxy.http.collecting import Collecting
from proxy.http.desk import Desk
from proxy.http.front import Front
from proxy.http.guard import Guard
from proxy.http.keeping import Keeping
from proxy.http.looking import Looking
from proxy.http.pushing import Pushing
from proxy.http.scrubbing import Scrubbing
from proxy.http.setting_up import SettingUp
from proxy.http.spelling import Spelling
from proxy.http.state import State
from proxy.http.tls import LOOK, Certificates
from proxy.http.tokens import Token
from proxy.oci.digest import Digest
from proxy.ports import Registry
from proxy.registry import local
from proxy.registry.again import Again
from proxy.registry.allowed import within_rules
from proxy.registry.cached import Cached, Rooms
from proxy.registry.chain import Unqualified
from proxy.registry.forget import Forget
from proxy.registry.local import Local
from proxy.registry.memory import Memory
from proxy.registry.renewal import Renewals
from proxy.registry.route import Router, own_names
from proxy.registry.rows import Rows, is_everybodys
from proxy.store import catalogue, index
from proxy.store.board import Board
from proxy.store.ingest import Store
from proxy.store.quarantine import Quarantine
from proxy.upstream.client import Client
from proxy.upstream.ledger import Ledger

_THREADS = 4
_HOUSEKEEPING = 60.0
_log = logging.getLogger("tidegate")


def build(settings: Settings, slot: int) -> "Service":
    """One worker."""
    set_up_log(settings.log)
    try:
        metrics.use_slot(slot)
        return Service(settings, slot)
    except OSError as error:
        raise StartError(f"{settings.server.data} cannot be used: {error.strerror or error}") from error


class Service:
    """One worker's whole machinery. Satisfies what worker/ serves."""

    def __init__(self, settings: Settings, slot: int) -> None:
        self._settings = settings
        self._draining = False
        self._tasks: list[asyncio.Task[None]] = []
        self._certificates = Certificates(settings.tls)
        self.tls = self._certificates.context
        data = settings.server.data
        self._pool = ThreadPoolExecutor(_THREADS, "store")
        self._board = Board(os.path.join(data, "run", "board"))
        self._board.void()
        self._catalogue = catalogue.usable(os.path.join(data, "catalogue"), plan.rank, partial(census.demand, data))
        self._index = index.usable(os.path.join(data, "index"))
        self._sync_pool = ThreadPoolExecutor(_THREADS, "sync")
        known = partial(is_everybodys, self._index)
        self._store = Store(data, self._pool, self._sync_pool, self._catalogue, known)
        self._quarantine = Quarantine(data, self._store.files)
        self._outcomes = Outcomes(self._index)
        self._turns = Turns(os.path.join(data, "run", "turns"))
        self._ways, paces = ways.out(settings.upstreams.values(), self._board, os.path.join(data, "run", "ways"))
        self._janitor = self._keeper(data)
        care = data, self._store.files, self._quarantine, self._catalogue
        self._scrubber = Scrubber(*care, images_to_keep(self._catalogue, self._pins))
        permits = Permits(os.path.join(data, "run", "permits"), paces, self._janitor.make_room)
        self._flights = Flights(self._store, self._outcomes, permits, self._unkept)
        self._write_down(data, slot)
        self._clients: list[Client] = []
        instance = instance_of(data)
        self._memory = Memory(self._board)
        self._access_rules = Access(settings.auth)
        self._local = self._pushed(known) if settings.pushing else None
        router = self._router(instance)
        self._access = AccessLog(settings.log.format)
        self._guards = self._doors(router, instance)
        public, admin, desk = self._guards
        held = limits.of(settings)
        self.public, self.admin, self.desk = Front(public, held), Front(admin), Front(desk, held)
        aliases = [alias for upstream in settings.upstreams.values() for alias in upstream.aliases]
        metrics.prepare([*settings.upstreams, *([local.NAME] if self._local else [])], aliases, __version__)

    def _write_down(self, data: str, slot: int) -> None:
        """What is noted of all that happens, for people and across restarts."""
        self._ledger = Ledger()
        self._legacy = Legacy()
        self._problems = Problems()
        self._books = Books(self._index, slot, self._ledger, self._legacy, self._problems)
        run = os.path.join(data, "run")
        self._days = Days(self._index, os.path.join(run, "metrics"), os.path.join(run, "metrics.last"))
        self._arriving = Arriving(run, slot, self._flights, self._store.parts)

    def _doors(self, router: Router, instance: str) -> list[Guard]:
        """What the port answers, what the admin socket does, and what the operators' port does, where there is one."""
        state = self._state(instance)
        admin = self._admin(state)
        keeping = self._keeping(router, state.everybodys)
        admin.add(keeping.pages())
        admin.add(Scrubbing(self._scrubber, self._again.fetch).pages())
        admin.add(Collecting(pushed.collector(self._settings, self._local) if self._local else None).pages())
        setting_up = SettingUp(
            list(clients.WRITERS), self._settings.server.url, partial(clients.served, self._settings)
        )
        token = Token(self._settings.admin.token_file)
        desk = Desk(admin, token, {"/api/images": keeping.found, **Looking(state, keeping, token).pages()})
        elsewhere = bool(self._settings.admin.listen)
        pages = admin.probes() if elsewhere else desk.open
        api = Api(router, instance, pages, None if elsewhere else desk, self._access_rules, setting_up, self._pushing())
        return [Guard(handle, self._access, self._legacy, self._problems) for handle in (api, admin.private, desk)]

    def _state(self, instance: str) -> State:
        rooms = self._board, self._catalogue, self._janitor, self._ways, self._books, self._days, self._arriving
        return State(self._settings, instance, *rooms, self._local.uploads.yard if self._local else None)

    def _unkept(self, why: str) -> None:
        """Something could not be kept: readiness and metrics of the whole machine say so, and one line a minute."""
        metrics.UNKEPT.inc()
        if self._board.unkept(time.monotonic_ns()):
            _log.error("%s: what is fetched is passed through and not kept", why)

    def _keeper(self, data: str) -> Janitor:
        cache = self._settings.cache

        def shares(total: int) -> plan.Limits:
            return plan.Limits(cache.max_size.of(total), cache.min_free.of(total))

        self._pins = Pins(os.path.join(data, "pins"))
        return Janitor(data, self._store, self._catalogue, self._pins, shares)

    def _keeping(self, router: Router, everybodys: frozenset[str]) -> Keeping:
        """Pins, listing and removing."""
        forget = Forget(self._index, self._board)
        spelling = Spelling(router, self._settings.server.unqualified, self._own_names(), forget)
        inventory = Inventory(self._store.files, self._catalogue, self._pins)
        rooms = PinRooms(spelling, self._pins, self._janitor, self._store)
        remover = Remover(inventory, self._catalogue, self._janitor, forget)
        own = pushed.inventory(self._settings) if self._local is not None else None
        return Keeping(rooms, spelling, inventory, own, remover, lambda: self._draining, everybodys)

    def _admin(self, state: State) -> Admin:
        def examine(image: str) -> Awaitable[Mapping[str, Any]]:
            return doctor.examine(self._settings, image, inside=True)

        return Admin(state, self._books, lambda: self._draining, examine)

    def _router(self, instance: str) -> Router:
        settings = self._settings
        known = self._turns, self._outcomes, self._memory, self._catalogue
        rooms = Rooms(self._store, self._flights, *known, self._store.files, self._quarantine)
        registries: dict[str, Registry] = {
            name: self._cached(upstream, instance, rooms) for name, upstream in settings.upstreams.items()
        }
        self._again = Again(dict(registries), self._board)
        pairs = [(settings.upstreams[name], registry) for name, registry in registries.items()]
        if self._local is not None:
            registries[local.NAME] = self._local
        ordered = [registries[name] for name in settings.server.unqualified]
        self._others = [registry for registry in ordered if registry is not self._local]
        unqualified = Unqualified(ordered, self._index) if len(ordered) > 1 else ordered[0] if ordered else None
        return Router(pairs, unqualified, self._own_names(), self._local, settings.local.names)

    def _pushed(self, known: Callable[[Digest], bool]) -> Local:
        """The registry that is pushed to. What is cached and everybody's may be mounted from there."""
        cached = self._store.files

        def lend(digest: Digest) -> str | None:
            return cached.path(digest) if known(digest) and cached.has(digest) else None

        return pushed.registry(self._settings, self._pool, self._board, self._memory, lend)

    def _pushing(self) -> Pushing | None:
        if self._local is None:
            return None
        known, room = lambda name: bool(self._catalogue.images(name)), self._janitor.make_room
        return pushed.pushing(self._settings, self._local, self._others, known, room)

    def _own_names(self) -> Mapping[str, None]:
        server = self._settings.server
        return own_names(server.listen, server.names, URL(server.url).raw_authority)

    def _cached(self, upstream: Upstream, instance: str, rooms: Rooms) -> Registry:
        pairs = zip(upstream.urls, self._ways[upstream.name], strict=True)
        clients = [Client(upstream, url, instance, self._ledger, way) for url, way in pairs]
        self._clients += clients
        rows = Rows(self._index, upstream.name, upstream.public)
        renewals = Renewals(upstream, rows, self._turns, self._outcomes, self._board)
        return within_rules(upstream, Cached(upstream, clients, rows, renewals, rooms))

    async def start(self) -> None:
        """Open what needs a running loop."""
        for client in self._clients:
            await client.start()
        bandwidth = self._settings.cache.scrub_bandwidth
        scrub = partial(self._scrubber.watch, bandwidth, self._again.fetch)
        path = os.path.join(self._settings.server.data, "run", "chores")
        self._chores = Chores(path, (self._keep_house, self._janitor.watch, scrub, self._days.keep))
        self._chores_task = asyncio.create_task(self._chores.keep())
        own = [beat(self._connections), self._books.keep(), self._janitor.keep_uses(), self._index.watch()]
        own += [self._arriving.keep(), self._watch_certificate()]
        self._tasks = [self._chores_task, *map(asyncio.create_task, own)]

    async def _watch_certificate(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            await asyncio.to_thread(self._certificates.look, self._chores.ours)

    def _connections(self) -> int:
        return sum(len(front.connections) for front in (self.public, self.admin, self.desk))

    async def _keep_house(self) -> None:
        """What one worker does for the machine: bring files and catalogue together where that is needed, and forget
        outcomes that nobody can ask for any more."""
        while True:
            await asyncio.to_thread(census.settle, self._settings.server.data, self._store.files, self._catalogue)
            await asyncio.to_thread(self._index.expire)
            if self._local is not None:
                await asyncio.to_thread(self._local.sweep, self._settings.local.upload_ttl)
            await asyncio.sleep(_HOUSEKEEPING)

    async def drain(self, seconds: float) -> None:
        """Close idle connections, let running answers finish, at most `seconds`."""
        self._draining = True
        self._chores_task.cancel()  # whoever is there after us does them
        deadline = time.monotonic() + seconds
        fronts = (self.public, self.admin, self.desk)
        for front in fronts:
            front.pre_shutdown()
        while any(guard.busy for guard in self._guards) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for front in fronts:
            await front.shutdown(0.1)

    async def close(self) -> None:
        """Stop fills, leaving them resumable; close files and connections."""
        for task in self._tasks:
            task.cancel()
        await self._flights.close()
        await self._turns.close()
        for client in self._clients:
            await client.close()
        await self._books.save()
        self._access.flush()
        self._access_rules.close()
        await asyncio.to_thread(self._index.close)
        await asyncio.to_thread(self._catalogue.close)
        self._pool.shutdown(wait=True)
        self._sync_pool.shutdown(wait=True)
