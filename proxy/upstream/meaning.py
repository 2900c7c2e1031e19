"""What a registry's status means for whoever asked: a domain error that says what to do next.

404 only when the registry itself said so; 401 and 403 are Denied; everything else is Unavailable, so that no client
ever learns "there is no such image" from a firewall.
"""

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import aiohttp

from proxy.errors import BlobUnknown, Denied, LoopDetected, ManifestUnknown, NameUnknown, RegistryError, Unavailable
from proxy.oci.names import Repo

_LONGEST_PAUSE = 300
"""Seconds of a Retry-After that are believed: whoever says an hour by mistake is not gone for an hour."""


def meaning(response: aiohttp.ClientResponse, repo: Repo, unknown: type[RegistryError]) -> RegistryError:
    """What a status above 299 tells the client to do."""
    host, status = response.url.host, response.status
    match status:
        case 404:
            return unknown(f"{host} has no such {_WHAT[unknown]} in {repo}")
        case 401 | 403:
            return Denied(f"{host} answered {status} for {repo}")
        case 429:
            pause = _retry_after(response)
            return Unavailable(f"{host} is throttling (429)", retry_after=pause or 30, label="throttled", pause=pause)
        case 508:
            return LoopDetected(f"{host} answered 508: {_sentence(response)}")
        case _:
            # A CDN has refused Range with 400 in the middle of an incident; another attempt finds another host.
            ranged = "Range" in response.request_info.headers
            label = "status" if status >= 500 else "body" if ranged else "answer"
            pause = _retry_after(response)
            return Unavailable(f"{host} answered {status} for {repo}", retry_after=pause or 5, label=label, pause=pause)


_WHAT: Mapping[type[RegistryError], str] = {BlobUnknown: "blob", ManifestUnknown: "manifest", NameUnknown: "repository"}


def _sentence(response: aiohttp.ClientResponse) -> str:
    return (response.reason or "a loop").removeprefix("tidegate: ")


def _retry_after(response: aiohttp.ClientResponse) -> int:
    """Seconds to stay away, 0 where that is not said. RFC 9110 section 10.2.3: a number, or a date."""
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit() and len(text) < 9:
        return min(int(text), _LONGEST_PAUSE)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0
    return max(0, min(math.ceil(seconds), _LONGEST_PAUSE))
