"""Who vouches for a host we do not trust: the name an administrator recognises, for the sentence a node shows.

Python's ssl describes only certificates it has verified. So after a failed verification there is a second handshake,
on the same way through the same proxy, that verifies nothing, reads the certificate and ends before a byte of HTTP is
sent: the handshake itself raises what was asked for.
"""

import asyncio
import ssl
from collections.abc import Mapping

import aiohttp
from yarl import URL

from proxy.upstream import der

_PATIENCE = 5.0


class _Read(ssl.SSLError):
    """The handshake went through; `issuer` is who signed."""

    issuer = ""


class _Looking(ssl.SSLObject):
    """A handshake that ends by telling whose certificate it was shown."""

    def do_handshake(self) -> None:
        super().do_handshake()
        seen = _Read("looked")
        seen.issuer = issuer_name(self.getpeercert(binary_form=True) or b"")
        raise seen


def anyone() -> ssl.SSLContext:
    """A context that verifies nothing, to look at a certificate and send nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def issuer_of(session: aiohttp.ClientSession, url: URL, proxy: str | None) -> str:
    """The issuer of the certificate at a URL's origin, "" where it cannot be told. Raises nothing."""
    context = anyone()
    context.sslobject_class = _Looking
    try:
        async with asyncio.timeout(_PATIENCE):
            async with session.head(url.origin(), ssl=context, proxy=proxy, allow_redirects=False):
                return ""
    except aiohttp.ClientConnectorError as error:
        return error.os_error.issuer if isinstance(error.os_error, _Read) else ""
    except (aiohttp.ClientError, OSError, TimeoutError):
        return ""


def issuer_name(certificate: bytes) -> str:
    """The authority's name for people, "" when these bytes are no certificate."""
    try:
        return _shown(der.issuer(certificate))
    except ValueError:
        return ""


def _shown(names: Mapping[str, str]) -> str:
    """What browsers list first may be as little as "WR2"."""
    organization, common = names.get("O", ""), names.get("CN", "")
    short = len(common) <= 4 or not organization
    return (organization or common or names.get("OU", "unnamed")) if short else common
