"""What the network's errors mean, in one sentence that names the host and what a person can do. Never with a path or
a token: these sentences end up in a node's events.
"""

import asyncio
import os

import aiohttp
from yarl import URL

from proxy.errors import Unavailable

_VERIFY = {
    9: "certificate is not valid yet, or this machine's clock is wrong",
    10: "certificate has expired, or this machine's clock is wrong",
    62: "certificate is for another name",
    64: "certificate is for another address",
}
"""OpenSSL's X509_V_ERR numbers."""


_ON_THE_WAY = (aiohttp.ClientHttpProxyError, aiohttp.ClientProxyConnectionError, aiohttp.ConnectionTimeoutError)


def host_of(url: URL) -> str:
    """A host as sentences, the ledger, the metrics and the rules name it: in ASCII, as it goes over the wire."""
    return (url.raw_host or "?").lower()


class explained:  # used as a statement: `with explained(url):`
    """Turns whatever the network raises into one sentence that names the host. Never with a path or a token."""

    def __init__(self, url: URL, proxy: str | None = None) -> None:
        self._host = host_of(url)
        self._proxy = URL(proxy).host if proxy else None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and isinstance(error, aiohttp.ClientError | OSError | asyncio.TimeoutError | ValueError):
            words, label = cause(error)
            if self._proxy and isinstance(error, _ON_THE_WAY):
                words = f"through proxy {self._proxy}: {words}"
            hint = "; run tidegate doctor" if label in ("tls", "dns", "connect") else ""
            raise Unavailable(f"{self._host}: {words}{hint}", label=label) from error


def cause(error: BaseException) -> tuple[str, str]:
    """A network error in a few words a person can act on, and its label in the metrics."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return untrusted(error), "tls"
        case aiohttp.ClientConnectorDNSError():
            return "the name cannot be resolved", "dns"
        case aiohttp.ConnectionTimeoutError():
            return "no connection in time", "connect"
        case aiohttp.ServerTimeoutError() | asyncio.TimeoutError():
            return "no answer in time", "timeout"
        case aiohttp.ClientHttpProxyError():
            return _connect_refused(error), "connect"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno
            return f"no connection: {os.strerror(number) if number else error.os_error}", "connect"
        case aiohttp.ServerDisconnectedError() | ConnectionResetError():
            return "closed the connection without an answer", "body"
        case aiohttp.ClientPayloadError():
            return "the body broke off", "body"
        case _:
            return type(error).__name__, "other"


def _connect_refused(error: aiohttp.ClientHttpProxyError) -> str:
    """What a proxy's answer to CONNECT asks for."""
    if error.status != 407:
        return f"CONNECT was answered {error.status}"
    offered = [] if error.headers is None else error.headers.getall("Proxy-Authenticate", [])
    schemes = ", ".join(sorted({text.split(" ")[0] for text in offered if text}))
    if "basic" in schemes.lower() or not schemes:
        return "CONNECT was answered 407: set [egress] proxy_username and proxy_password_file"
    return f"CONNECT was answered 407 and only {schemes} is offered; this speaks Basic, put a helper in front"


def untrusted(error: aiohttp.ClientConnectorCertificateError, issuer: str = "") -> str:
    """Why a certificate is not accepted; the commonest case in the words nodes use."""
    code = getattr(error.certificate_error, "verify_code", 0)
    why = _VERIFY.get(code, "certificate signed by unknown authority")
    return f"{why} (issuer {issuer})" if issuer else why
