"""Challenges and tokens of one upstream.

Distribution token authentication: a 401 names a realm, a service and a scope; the realm gives a token for a while.
Tokens are kept per origin and scope and sent with the next request at once, so that there is no ping and no 401 per
pull; when one is missing it is fetched once for everybody who waits. A token goes only to the origin that asked for
it, the upstream's own user name and password only to its own hosts and to the realm they name.
"""

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from proxy.errors import Denied, Unavailable

_CHALLENGE = re.compile(r"[\s,]*([A-Za-z][A-Za-z0-9_-]*)(?=[\s,]|$)")
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9._~+/-]+=*\s*(?=,|$)")
_PARAM = re.compile(r'[\s,]*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))\s*(?:,|$)?')
Proxy = Callable[[URL], str | None]
"""The HTTP proxy on the way to a URL, None when there is none."""

_MARGIN = 5.0
_TOKEN_LIMIT = 256 << 10


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


class Keyring:
    """What one upstream's requests are authorized with."""

    def __init__(self, origins: frozenset[URL], username: str, password: str) -> None:
        self._origins = origins
        self._basic = aiohttp.BasicAuth(username, password).encode() if username else None
        self._tokens: dict[tuple[URL, str], _Token] = {}
        self._fetching: dict[tuple[str, str, str], asyncio.Task[_Token]] = {}

    def known(self, origin: URL, scope: str) -> str | None:
        """The header to send without being asked, where this origin has asked before."""
        token = self._tokens.get((origin, scope))
        if token is None or token.expires < time.monotonic():
            return None
        return token.header

    async def answer(
        self, session: aiohttp.ClientSession, response: aiohttp.ClientResponse, scope: str, proxy: Proxy
    ) -> str | None:
        """The header that answers a 401, None when nothing here does. Raises Denied, Unavailable."""
        origin = response.url.origin()
        sent, known = response.request_info.headers.get("Authorization"), self.known(origin, scope)
        if known is not None and known != sent:
            return known  # somebody else has renewed it since this request left
        self._tokens.pop((origin, scope), None)
        for challenge in parse_challenges(response.headers.getall("WWW-Authenticate", [])):
            if challenge.scheme == "bearer" and "realm" in challenge.params:
                token = await self._token(session, origin, challenge.params, scope, proxy)
            elif challenge.scheme == "basic" and self._basic is not None and origin in self._origins:
                token = _Token(self._basic, float("inf"))
            else:
                continue
            self._tokens[origin, scope] = token
            return token.header
        return None

    async def _token(
        self, session: aiohttp.ClientSession, origin: URL, params: Mapping[str, str], scope: str, proxy: Proxy
    ) -> _Token:
        realm, service, scope = params["realm"], params.get("service", ""), params.get("scope", scope)
        key = (realm, service, scope)
        task = self._fetching.get(key)
        if task is None:
            basic = self._basic if origin in self._origins else None
            url = realm_url(origin, realm, service, scope)
            task = self._fetching[key] = asyncio.create_task(_fetch(session, url, basic, proxy))
            task.add_done_callback(lambda _: self._fetching.pop(key, None))
        return await asyncio.shield(task)


def realm_url(origin: URL, realm: str, service: str, scope: str) -> URL:
    """Where to ask for a token. Raises Unavailable for a realm that is no URL, or plain http behind https."""
    try:
        url = URL(realm)
        asked = {key: value for key, value in (("service", service), ("scope", scope)) if value}
        url = url.update_query(asked)
        host = url.host  # decodes it, and may find that it cannot
    except ValueError:
        raise Unavailable(f"{origin.host}: names a token service that is not a URL") from None
    if url.scheme not in ("http", "https") or not host or (origin.scheme == "https" and url.scheme == "http"):
        raise Unavailable(f"{origin.host}: names a token service that is not https")
    return url


async def _fetch(session: aiohttp.ClientSession, url: URL, basic: str | None, proxy: Proxy) -> _Token:
    headers = {"Authorization": basic} if basic is not None else {}
    try:
        async with session.get(url, headers=headers, allow_redirects=False, proxy=proxy(url)) as response:
            if response.status in (400, 401, 403, 404):
                raise Denied(f"{url.host}: the token service refuses ({response.status}); check username and password")
            if response.status != 200:
                raise Unavailable(f"{url.host}: the token service answered {response.status}")
            return read_token(url, await response.content.read(_TOKEN_LIMIT))
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"{url.host}: the token service cannot be reached ({type(error).__name__})") from error


def read_token(url: URL, body: bytes) -> _Token:
    """The token in a token service's answer. Raises Unavailable when there is none."""
    try:
        document = json.loads(body)
        token = document.get("token") or document.get("access_token")
        lifetime = float(document.get("expires_in") or 60)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        token, lifetime = None, 0.0
    if not math.isfinite(lifetime) or not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise Unavailable(f"{url.host}: the token service's answer holds no token")
    return _Token(f"Bearer {token}", time.monotonic() + max(lifetime - _MARGIN, 1.0))
