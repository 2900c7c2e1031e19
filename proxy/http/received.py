"""The bodies that clients send with a push. A network that goes away in the middle is told from a disk that fails."""

from collections.abc import AsyncIterator

from proxy.errors import TooLarge
from proxy.http.exchange import Exchange
from proxy.oci.media import MANIFEST_LIMIT

_HEARD = 2 * MANIFEST_LIMIT


async def whole(exchange: Exchange) -> bytes:
    """A manifest's body. Raises TooLarge, after taking as much again, so that a client hears it that sends before it
    listens; ConnectionError."""
    announced = exchange.request.content_length or 0
    if announced > _HEARD:
        raise TooLarge(f"a manifest of {announced} bytes; at most {MANIFEST_LIMIT}")
    pieces, size = [], 0
    async for chunk in body(exchange):
        size += len(chunk)
        if size <= MANIFEST_LIMIT:
            pieces.append(chunk)
        elif size > _HEARD:
            break
    if size > MANIFEST_LIMIT:
        raise TooLarge(f"a manifest of {announced or size} bytes; at most {MANIFEST_LIMIT}")
    return b"".join(pieces)


async def body(exchange: Exchange) -> AsyncIterator[bytes]:
    """Its chunks, after the 100 it may wait for. Raises ConnectionError."""
    request = exchange.request
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        async for chunk in request.content.iter_any():
            yield chunk
    except ConnectionError:
        raise
    except OSError as lost:  # a network that went away (ETIMEDOUT, EHOSTUNREACH) is no disk that failed
        raise ConnectionResetError(str(lost)) from lost
