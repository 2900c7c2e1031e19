"""The only door out: where we connect, and redirects followed hop by hop.

Redirects are followed by hand because aiohttp's own following re-quotes signed URLs (`%2F` becomes `/`, and the CDN
answers 403), and because every hop decides anew what may be sent there: credentials and tokens go to the origin they
were meant for and nowhere else. A Location is used once and never kept: registry.k8s.io names another host next time.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from proxy import metrics
from proxy.config import Egress
from proxy.errors import Unavailable
from proxy.upstream.auth import Keyring

HOP_LIMIT = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADER_LIMIT = 64 << 10
"""Bytes of one header field we accept: pkg.dev's tokens fill a kilobyte of Location, others' are longer."""


class Door:
    """Connections of one upstream. `start` before use, `close` after."""

    def __init__(self, upstream: str, settings: Egress, keys: Keyring) -> None:
        self._upstream = upstream
        self._settings = settings
        self._keys = keys
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Raises OSError when the CA file cannot be read."""
        context = tls_context(self._settings)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, ssl=context),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._settings.connect_timeout, sock_read=self._settings.stall_timeout
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
        for _ in range(HOP_LIMIT):
            with explained(url):
                response = await self._hop(method, url, headers, scope)
            try:
                if response.status not in _REDIRECTS or "Location" not in response.headers:
                    yield response
                    return
                url = next_url(url, response.headers["Location"])
            finally:
                response.release()
        raise Unavailable(f"{url.host}: more than {HOP_LIMIT} redirects")

    async def _hop(self, method: str, url: URL, headers: Mapping[str, str], scope: str) -> aiohttp.ClientResponse:
        """One request; a 401 with a challenge that can be answered is asked once more."""
        response = await self._send(method, url, headers, self._keys.known(url.origin(), scope))
        if response.status != 401:
            return response
        try:
            answer = await self._keys.answer(self._open, response, scope, self._proxy)
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
        metrics.UPSTREAM_REQUESTS.labels(self._upstream, str(response.status)).inc()
        return response

    def _proxy(self, url: URL) -> str | None:
        return self._settings.proxy_for(url.host or "") or None

    @property
    def _open(self) -> aiohttp.ClientSession:
        assert self._session is not None, "Door.start has not been called"
        return self._session


def tls_context(settings: Egress) -> ssl.SSLContext:
    """Whom we trust: the system's authorities and the configured ones. Raises OSError (ssl.SSLError among them)."""
    context = ssl.create_default_context()
    if settings.ca_file:
        context.load_verify_locations(settings.ca_file)
    return context


def next_url(current: URL, location: str) -> URL:
    """Where a Location leads, with its escapes untouched. Raises Unavailable for one that cannot be followed."""
    if any(not "!" <= c <= "~" for c in location):
        raise Unavailable(f"{current.host}: redirected to something that is not a URL")
    try:
        url = current.join(URL(location, encoded=True))
        host, port = url.host, url.port
    except ValueError:
        raise Unavailable(f"{current.host}: redirected to something that is not a URL") from None
    if url.scheme not in ("http", "https") or not host or port is None:
        raise Unavailable(f"{current.host}: redirected to something that is not http or https")
    if current.scheme == "https" and url.scheme == "http":
        raise Unavailable(f"{current.host}: redirected from https to plain http at {url.host}")
    return url.with_user(None) if url.raw_user is not None else url


class explained:  # used as a statement: `with explained(url):`
    """Turns whatever the network raises into one sentence that names the host. Never with a path or a token."""

    def __init__(self, url: URL) -> None:
        self._host = url.host or "?"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and isinstance(error, aiohttp.ClientError | OSError | asyncio.TimeoutError | ValueError):
            words, label = cause(error)
            raise Unavailable(f"{self._host}: {words}", label=label) from error


def cause(error: BaseException) -> tuple[str, str]:
    """A network error in a few words a person can act on, and its label in the metrics."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"certificate not trusted: {_certificate_error(error)}", "tls"
        case aiohttp.ClientConnectorDNSError():
            return "the name cannot be resolved", "dns"
        case aiohttp.ServerTimeoutError() | asyncio.TimeoutError():
            return "no answer in time", "timeout"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {error.status}", "connect"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno
            return f"no connection: {os.strerror(number) if number else error.os_error}", "connect"
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return "closed the connection without an answer", "body"
        case aiohttp.ClientPayloadError():
            return "the body broke off", "body"
        case _:
            return type(error).__name__, "other"


def _certificate_error(error: aiohttp.ClientConnectorCertificateError) -> str:
    inner = error.certificate_error
    return getattr(inner, "verify_message", "") or type(inner).__name__
