"""The only door out: where we connect, and redirects followed hop by hop.

Redirects are followed by hand because aiohttp's own following re-quotes signed URLs (`%2F` becomes `/`, and the CDN
answers 403), and because every hop decides anew what may be sent there: credentials and tokens go to the origin they
were meant for and nowhere else, and no longer there once the chain has left it: whoever sends us back has chosen the
path. A Location is used once and never kept: registry.k8s.io names another host next time.
"""

import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from proxy import metrics, policy
from proxy.config import Egress
from proxy.errors import Unavailable
from proxy.upstream.auth import Keyring
from proxy.upstream.body import whole
from proxy.upstream.causes import explained, host_of, untrusted
from proxy.upstream.issuer import issuer_of
from proxy.upstream.ledger import Hop, Ledger
from proxy.upstream.rules import Rules, literal

HOP_LIMIT = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ISSUER_MEMORY = 60.0
_TOKEN_LIMIT = 256 << 10
_HEADER_LIMIT = 64 << 10
"""Bytes of one header field we accept: pkg.dev's tokens fill a kilobyte of Location, others' are longer."""


class Door:
    """Connections of one upstream. `start` before use, `close` after."""

    def __init__(self, upstream: str, settings: Egress, keys: Keyring, rules: Rules, ledger: Ledger) -> None:
        self._upstream = upstream
        self._settings = settings
        self._rules = rules
        self._ledger = ledger
        self._keys = keys
        self._issuers: dict[str, tuple[str, float]] = {}
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Raises OSError when a certificate file cannot be read."""
        context = tls_context(self._settings)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ttl_dns_cache=30, ssl=context, resolver=_Checked(self._rules, named=True)
            ),
            timeout=aiohttp.ClientTimeout(
                # Until the first byte a proxy may scan a whole download; after it the body's own watch is stricter.
                total=None,
                connect=2 * self._settings.connect_timeout,  # the proxy's CONNECT and TLS come on top of TCP
                sock_connect=self._settings.connect_timeout,
                sock_read=max(policy.LAST_ATTEMPT, self._settings.stall_timeout),
            ),
            auto_decompress=False,
            requote_redirect_url=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_field_size=_HEADER_LIMIT,
            max_line_size=_HEADER_LIMIT,
            skip_auto_headers=("User-Agent",),
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def walk(
        self, method: str, url: URL, headers: Mapping[str, str], scope: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response at the end of the redirects, challenges answered for `scope`.

        Raises Denied when a token service refuses, Unavailable when there is no response.
        """
        home, named = True, True
        for _ in range(HOP_LIMIT):
            home = home and self._keys.home(url.origin())
            hop: Hop = "registry" if named and home else "redirect"
            response = await self._recorded(method, url, headers, scope, hop, home)
            try:
                if response.status not in _REDIRECTS or "Location" not in response.headers:
                    yield response
                    return
                url, named = next_url(url, response.headers["Location"]), False
            finally:
                response.release()
        raise Unavailable(f"{host_of(url)}: more than {HOP_LIMIT} redirects")

    async def _recorded(
        self, method: str, url: URL, headers: Mapping[str, str], scope: str, hop: Hop, home: bool
    ) -> aiohttp.ClientResponse:
        """One hop, allowed and written into the ledger, whatever comes of it."""
        return await self._told(url, hop, lambda: self._hop(method, url, headers, scope, home))

    async def _told(
        self, url: URL, hop: Hop, ask: Callable[[], Awaitable[aiohttp.ClientResponse]]
    ) -> aiohttp.ClientResponse:
        host = host_of(url)
        try:
            with explained(url, self._proxy(url)):
                await self._check(url, named=hop == "registry")
                response = await ask()
        except Unavailable as error:
            if isinstance(error.__cause__, aiohttp.ClientConnectorCertificateError):
                error = await self._with_issuer(url, error.__cause__)
            self._ledger.failure(self._upstream, host, hop, error.message.removeprefix(f"{host}: "))
            raise error from None
        self._ledger.hop(self._upstream, host, hop, response.status)
        return response

    async def _check(self, url: URL, *, named: bool) -> None:
        """As a name here, as addresses when it is resolved; but a place that is exempt there, and that somebody else
        has named this time, is looked up here: our connections to it may be open already. Raises Refused, OSError."""
        host, port = host_of(url), url.port or 0
        self._rules.check_host(host, port, named=named)
        if not named and self._proxy(url) is None and self._rules.exempt(host, port):
            await _Checked(self._rules, named=False).resolve(host, port)

    async def _with_issuer(self, url: URL, error: aiohttp.ClientConnectorCertificateError) -> Unavailable:
        """The same refusal with the name of who signed: that name tells an administrator whose firewall it is. Looked
        up once a host and minute."""
        host, now = host_of(url), time.monotonic()
        issuer, until = self._issuers.get(host, ("", 0.0))
        if now > until:
            issuer = await issuer_of(self._open, url, self._proxy(url))
            self._issuers[host] = issuer, now + _ISSUER_MEMORY
        return Unavailable(f"{host}: {untrusted(error, issuer)}; run tidegate doctor", label="tls")

    async def _hop(
        self, method: str, url: URL, headers: Mapping[str, str], scope: str, home: bool
    ) -> aiohttp.ClientResponse:
        """One request; a 401 with a challenge that can be answered is asked once more."""
        response = await self._send(method, url, headers, self._keys.known(url.origin(), scope, home))
        if response.status != 401:
            return response
        try:
            answer = await self._keys.answer(self._token, response, scope, home)
        except BaseException:
            response.close()
            raise
        if answer is None:
            return response
        response.release()
        return await self._send(method, url, headers, answer)

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], authorization: str | None
    ) -> aiohttp.ClientResponse:
        sent = dict(headers) if authorization is None else {**headers, "Authorization": authorization}
        response = await self._open.request(method, url, headers=sent, allow_redirects=False, proxy=self._proxy(url))
        metrics.asked(self._upstream, response.status)
        return response

    async def _token(self, url: URL, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """One request to a token service; it does not follow redirects. Raises Unavailable."""
        response = await self._told(
            url,
            "token",
            lambda: self._open.get(url, headers=headers, allow_redirects=False, proxy=self._proxy(url)),
        )
        async with response:
            if response.status != 200:
                return response.status, b""
            return 200, await whole(response, self._settings.stall_timeout, _TOKEN_LIMIT, "token")

    def _proxy(self, url: URL) -> str | None:
        return self._settings.proxy_for(url.host or "") or None

    @property
    def _open(self) -> aiohttp.ClientSession:
        assert self._session is not None, "Door.start has not been called"
        return self._session


def tls_context(settings: Egress) -> ssl.SSLContext:
    """Whom we trust, the system's authorities and the configured ones, and who we are. Raises OSError (ssl.SSLError
    among them) when a file is not there or not PEM."""
    context = ssl.create_default_context()
    if settings.ca_file:
        context.load_verify_locations(settings.ca_file)
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file or None)
    return context


def next_url(current: URL, location: str) -> URL:
    """Where a Location leads, with its escapes untouched. Raises Unavailable for one that cannot be followed."""
    if any(not "!" <= c <= "~" for c in location):
        raise Unavailable(f"{current.host}: redirected to something that is not a URL")
    try:
        url = current.join(URL(location, encoded=True))
        host, port = url.host, url.port
    except (ValueError, IndexError):  # yarl 1.25 finds no first character in the host of "[]@"
        raise Unavailable(f"{current.host}: redirected to something that is not a URL") from None
    if url.scheme not in ("http", "https") or not host or port is None:
        raise Unavailable(f"{current.host}: redirected to something that is not http or https")
    if current.scheme == "https" and url.scheme == "http":
        raise Unavailable(f"{current.host}: redirected from https to plain http at {url.host}")
    return url.with_user(None) if url.raw_user is not None else url


class _Checked(ThreadedResolver):
    """Resolves once, checks every address, and gives those to connect to: no second look-up in between."""

    def __init__(self, rules: Rules, *, named: bool) -> None:
        super().__init__()
        self._rules = rules
        self._named = named

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises Refused, OSError."""
        found = await super().resolve(host, port, family)
        for result in found:
            address = literal(result["host"])
            if address is not None:
                self._rules.check_address(host, port, address, named=self._named)
        return found
