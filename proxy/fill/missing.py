"""What of a response is still missing: a server that does not know Range sends everything again."""

import contextlib
from collections.abc import AsyncGenerator

from proxy.ports import BlobStream


async def missing(stream: BlobStream, offset: int) -> AsyncGenerator[bytes, None]:
    """The chunks of a stream from `offset` on: a 200 to a Range request starts from zero, and what is here already
    comes as empty chunks, so that whoever waits knows that something comes."""
    skip = offset - stream.start
    async with contextlib.aclosing(stream.chunks()) as chunks:
        async for chunk in chunks:
            known = min(skip, len(chunk))
            skip -= known
            yield chunk[known:] if known else chunk
