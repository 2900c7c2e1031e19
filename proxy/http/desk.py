"""/api/ and the pages beside it over TCP: who may see and do what there.

With the token everything the admin socket has. Without it what `open` lists, made for everybody; nothing is ever
changed without. A page of another site cannot make its visitor's browser ask: a browser says where it comes from.
Where a listener of its own is set, all of this is there and no longer on the registry's port.
"""

from urllib.parse import urlsplit

from aiohttp import web

from proxy.errors import Denied, NoSuchPath, TokenNeeded
from proxy.http.admin import Admin, Page
from proxy.http.exchange import Exchange
from proxy.http.tokens import Token

PREFIX = "/api/"
_OURS = frozenset({"same-origin", "none"})


class Desk:
    """Satisfies what a guard wraps."""

    def __init__(self, admin: Admin, token: Token, more: dict[str, Page]) -> None:
        """`more` are further pages for everybody, by path, read with GET."""
        self._admin = admin
        self._token = token
        self.open = {**admin.probes(), **admin.public(), **more}

    async def __call__(self, exchange: Exchange) -> web.StreamResponse:
        """Raises NoSuchPath, TokenNeeded, Denied, and what the pages do."""
        request = exchange.request
        exchange.kind = "admin"
        if request.path.startswith(PREFIX):
            _check_site(request)
            if self._token.check(request):
                return await self._admin.private(exchange)
        page = self.open.get(request.path) if request.method in ("GET", "HEAD") else None
        if page is not None:
            return await page(exchange)
        if request.path.startswith(PREFIX) and self._admin.find(exchange) is not None:
            raise TokenNeeded("this takes the token of admin.token_file, or the admin socket")
        raise NoSuchPath(f"{request.method} {request.path[:80]!r} is no page of this port")


def _check_site(request: web.BaseRequest) -> None:
    """Raises Denied for what a page of another site made a browser ask."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
    if site not in _OURS or (origin is not None and _authority(origin) != request.headers.get("Host", "").lower()):
        raise Denied("a page of another site may not ask for this")


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
