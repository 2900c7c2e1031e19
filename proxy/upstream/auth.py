"""Challenges and tokens of one upstream.

Distribution token authentication: a 401 names a realm, a service and a scope; the realm gives a token for a while.
Tokens are kept per origin and scope and sent with the next request at once, so that there is no ping and no 401 per
pull; when one is missing it is fetched once for everybody who waits. A token goes only to the origin that asked for
it, the upstream's own user name and password only to its own hosts and to the realm they name.
"""

import asyncio
import base64
import json
import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from proxy.errors import Denied, Unavailable
from proxy.upstream.causes import host_of

_CHALLENGE = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9_-]*)(?=[\s,]|$)")
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")
_PARAM = re.compile(r'[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(?:,|$)?')
Ask = Callable[[URL, Mapping[str, str]], Awaitable[tuple[int, bytes]]]
"""Asks a token service, through the door: its status, and the whole body of a 200. Raises Unavailable."""

_MARGIN = 5.0
_KEPT = 1000
"""Tokens of one upstream: whoever asks for repositories that do not exist must not fill the memory with them."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a WWW-Authenticate header (RFC 9110 section 11.3)."""

    scheme: str
    params: Mapping[str, str]


def parse_challenges(headers: list[str]) -> list[Challenge]:
    """Every challenge that can be read; what cannot is passed over."""
    found: list[Challenge] = []
    for header in headers:
        at = 0
        while match := _CHALLENGE.match(header, at):
            at, params = match.end(), {}
            if skipped := _TOKEN68.match(header, at):
                at = skipped.end()
            while param := _PARAM.match(header, at):
                name, quoted, plain = param.groups()
                params[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                at = param.end()
            found.append(Challenge(match[1].lower(), params))
    return found


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    expires: float


def basic_account(username: str, password: str) -> str:
    """A user name and password as HTTP's Basic scheme sends them (RFC 7617, in UTF-8)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class Keyring:
    """What one upstream's requests are authorized with."""

    def __init__(self, origins: frozenset[URL], username: str, password: str) -> None:
        self._origins = origins
        self._basic = basic_account(username, password) if username else None
        self._tokens: dict[tuple[URL, str], _Token] = {}
        self._fetching: dict[tuple[URL, str], asyncio.Task[_Token]] = {}

    def home(self, origin: URL) -> bool:
        """Whether this is the upstream itself."""
        return origin in self._origins

    def known(self, origin: URL, scope: str, home: bool = True) -> str | None:
        """The header to send without being asked, where this origin has asked before. `home` is whether the chain of
        redirects has been nowhere else so far."""
        if self._keeps_back(origin, home):
            return None
        token = self._tokens.get((origin, scope))
        if token is None or token.expires < time.monotonic():
            return None
        return token.header

    def _keeps_back(self, origin: URL, home: bool) -> bool:
        """Who sends us back to our upstream has chosen the path, and must not choose what our account is used for."""
        return not home and self._basic is not None and origin in self._origins

    async def answer(self, ask: Ask, response: aiohttp.ClientResponse, scope: str, home: bool = True) -> str | None:
        """The header that answers a 401, None when nothing here does. Raises Denied, Unavailable."""
        origin = response.url.origin()
        if self._keeps_back(origin, home):
            return None
        sent, known = response.request_info.headers.get("Authorization"), self.known(origin, scope)
        if known is not None and known != sent:
            return known  # somebody else has renewed it since this request left
        self._tokens.pop((origin, scope), None)
        for challenge in parse_challenges(response.headers.getall("WWW-Authenticate", [])):
            if challenge.scheme == "bearer" and "realm" in challenge.params:
                return (await self._token(ask, origin, challenge.params, scope)).header
            if challenge.scheme == "basic" and self._basic is not None and origin in self._origins:
                return self._keep(origin, scope, _Token(self._basic, math.inf)).header
        return None

    def _keep(self, origin: URL, scope: str, token: _Token) -> _Token:
        """Room is made first: what has expired goes, and where that is not enough, the oldest."""
        now = time.monotonic()
        for key in [key for key, kept in self._tokens.items() if kept.expires < now]:
            del self._tokens[key]
        while len(self._tokens) >= _KEPT:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[origin, scope] = token
        return token

    async def _token(self, ask: Ask, origin: URL, params: Mapping[str, str], scope: str) -> _Token:
        """A token from the realm, fetched once for everybody who waits for it."""
        task = self._fetching.get((origin, scope))
        if task is None:
            url = realm_url(origin, params["realm"], params.get("service", ""), params.get("scope", scope))
            task = self._fetching[origin, scope] = asyncio.create_task(self._renew(ask, origin, scope, url))
        return await asyncio.shield(task)

    async def _renew(self, ask: Ask, origin: URL, scope: str, url: URL) -> _Token:
        """The token is kept before the task leaves its table: a 401 handled in between would find neither."""
        try:
            token = await _fetch(ask, url, self._basic if origin in self._origins else None)
            return self._keep(origin, scope, token)
        finally:
            del self._fetching[origin, scope]


def realm_url(origin: URL, realm: str, service: str, scope: str) -> URL:
    """Where to ask for a token. Raises Unavailable for a realm that is no URL, or plain http behind https."""
    try:
        url = URL(realm)
        asked = {key: value for key, value in (("service", service), ("scope", scope)) if value}
        url = url.update_query(asked)
        host = url.host  # decodes it, and may find that it cannot
    except (ValueError, IndexError):  # see egress.next_url
        raise Unavailable(f"{origin.host}: names a token service that is not a URL") from None
    if url.scheme not in ("http", "https") or not host or (origin.scheme == "https" and url.scheme == "http"):
        raise Unavailable(f"{origin.host}: names a token service that is not https")
    return url


async def _fetch(ask: Ask, url: URL, basic: str | None) -> _Token:
    headers = {"Authorization": basic} if basic is not None else {}
    status, body = await ask(url, headers)
    if status in (400, 401, 403, 404):
        raise Denied(f"{host_of(url)}: the token service refuses ({status}); check username and password")
    if status != 200:
        raise Unavailable(f"{host_of(url)}: the token service answered {status}", label="status")
    return read_token(url, body)


def read_token(url: URL, body: bytes) -> _Token:
    """The token in a token service's answer. Raises Unavailable when there is none."""
    try:
        document = json.loads(body)
        token = document.get("token") or document.get("access_token")
        lifetime = float(document.get("expires_in") or 60)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        token, lifetime = None, 0.0
    if not math.isfinite(lifetime) or not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise Unavailable(f"{host_of(url)}: the token service's answer holds no token")
    return _Token(f"Bearer {token}", time.monotonic() + max(lifetime - _MARGIN, 1.0))
