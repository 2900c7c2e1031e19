"""Serving an aiohttp application on a free port, and the log of what it was asked. No fake's behaviour stands here."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from tests.fakes.log import Log, Request

Handler = Callable[[web.BaseRequest, Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, log: Log) -> AsyncIterator[str]:
    """The base URL of a server that answers everything with `handler` and writes every request to `log`.

    The handler gets the log's entry too: one that streams its body counts it there.
    """

    async def logged(request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        entry = Request(request.method, path, query, {name.lower(): value for name, value in request.headers.items()})
        log.append(entry)
        response = await handler(request, entry)
        entry.status = response.status
        if isinstance(response, web.Response) and request.method != "HEAD":
            entry.sent = response.content_length or 0
        return response

    # A server without routes: yarl's and the router's decoding would hide exactly the escapes that matter here.
    runner = web.ServerRunner(web.Server(logged), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
