"""The first look at every request: what is asked, of whom, by whom. Connections are front.py's.

aiohttp's low-level server without Application: one catch-all handler needs no router, and the difference is 20 % of
the requests per second. Parsing and routing of a path are remembered per worker, because nodes ask the same few
thousand paths over and over; the remembered value says nothing about content.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from aiohttp import web

from proxy.errors import Unsupported
from proxy.http import handlers, respond
from proxy.http.auth import Access
from proxy.http.desk import PREFIX as API
from proxy.http.exchange import Exchange
from proxy.http.pushing import Pushing
from proxy.http.setting_up import PREFIX, SettingUp
from proxy.oci import calls
from proxy.oci.calls import GetBlob, GetManifest, ListReferrers, ListRepositories, ListTags, Ping
from proxy.oci.pushes import Push, StartUpload
from proxy.ports import Ask
from proxy.registry.route import Route, Router

Page = Callable[[Exchange], Awaitable[web.StreamResponse]]
_REMEMBERED = 8192
_MEMORABLE = 512


class Api:
    """Requests of the registry API, and the few pages beside it."""

    def __init__(
        self,
        router: Router,
        instance: str,
        pages: Mapping[str, Page],
        desk: Page | None,
        access: Access,
        setting_up: SettingUp,
        pushes: Pushing | None = None,
    ) -> None:
        """`pages` by path, read with GET; `desk` answers everything below /api/, None where another port does."""
        self._setting_up = setting_up
        self._desk = desk
        self._access = access
        self._guarded = access.guarded
        self._router = router
        self._instance = instance
        self._pages = pages
        self._pushes = pushes
        self._seen: OrderedDict[tuple[str, str, str], tuple[calls.Request, Route | None]] = OrderedDict()

    async def __call__(self, exchange: Exchange) -> web.StreamResponse:
        """Raises RegistryError, BodyBroken, ConnectionError."""
        request = exchange.request
        path = request.raw_path.partition("?")[0]
        page = self._pages.get(path)
        if self._desk is not None and path.startswith(API):
            return await self._desk(exchange)
        if page is None and path.startswith(PREFIX):
            page = self._setting_up.answer
        if page is not None and request.method in ("GET", "HEAD"):
            return await page(exchange)
        asked, route = self._parse(request.method, request.raw_path, request.headers.get("Host", ""))
        handlers.describe(exchange, asked.call)
        match asked.call:
            case Ping():
                if self._guarded:
                    self._access.may_ping(await self._access.caller(request))
                return respond.document(exchange, {}, "application/json")
            case ListRepositories():
                return await self._catalog(exchange, asked, asked.call)
        assert route is not None, "only what names a repository has a route"
        exchange.upstream, exchange.repo, exchange.alias = route.registry.name, route.repo, route.alias
        via = request.headers.get("Via", "")
        if via:
            handlers.check_loop(via, self._instance)
        if isinstance(asked.call, GetBlob | GetManifest | ListTags | ListReferrers):
            if self._guarded:
                self._access.may_pull(await self._access.caller(request), route.repo, route.pushable)
            return await handlers.answer(exchange, asked, asked.call, route, Ask(route.repo, time.time(), via))
        return await self._push(exchange, asked, asked.call, route)

    async def _catalog(self, exchange: Exchange, asked: calls.Request, call: ListRepositories) -> web.StreamResponse:
        assert self._pushes is not None, "without it nothing is parsed as a catalog"
        found = await self._pushes.repositories()
        if self._guarded:
            caller = await self._access.caller(exchange.request)
            self._access.may_pull(caller, "the catalog")
            found = [repository for repository in found if self._access.sees(caller, repository)]
        return handlers.catalog(exchange, asked, call, found)

    async def _push(self, exchange: Exchange, asked: calls.Request, call: Push, route: Route) -> web.StreamResponse:
        """Raises Unsupported where nothing can be pushed under this name."""
        if self._pushes is None or not route.pushable:
            name = getattr(asked.call, "name", "")
            raise Unsupported(f"{name} is a mirror and read-only: push to the registry it mirrors")
        exchange.upstream = self._pushes.name
        caller = await self._access.caller(exchange.request)
        self._access.may_push(caller, route.repo)
        if isinstance(call, StartUpload) and not self._access.sees(caller, call.source):
            call = replace(call, mount=None)  # a digest somebody knows is no way to what they may not pull
        await self._pushes.check(call, route)
        return await self._pushes.answer(exchange, asked, call, route.repo)

    def _parse(self, method: str, raw_path: str, host: str) -> tuple[calls.Request, Route | None]:
        key = (method, raw_path, host)
        seen = self._seen.get(key)
        if seen is not None:
            self._seen.move_to_end(key)
            return seen
        asked = calls.parse(method, raw_path, self._pushes is not None)
        nameless = isinstance(asked.call, Ping | ListRepositories)
        route = None if nameless else self._router.route(host, asked.namespace, getattr(asked.call, "name", ""))
        if len(raw_path) + len(host) > _MEMORABLE or method not in ("GET", "HEAD"):
            return asked, route
        self._seen[key] = asked, route
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return asked, route
