"""The one place that knows what an exception means for a client, and that tells metrics and log about every answer."""

import errno
import logging
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from proxy import metrics
from proxy.care.legacy import Legacy
from proxy.care.problems import Problems
from proxy.errors import BodyBroken, NoSpace, RegistryError, Unavailable
from proxy.http import respond, troubles
from proxy.http.access import AccessLog
from proxy.http.exchange import Exchange

_log = logging.getLogger("tidegate.http")
_COUNTED = frozenset(metrics.KINDS)


class Guard:
    """Wraps a handler: whatever comes out of it, the client gets an honest answer or a cut connection."""

    def __init__(
        self,
        handle: Callable[[Exchange], Awaitable[web.StreamResponse]],
        access: AccessLog,
        legacy: Legacy,
        problems: Problems,
    ) -> None:
        self._handle = handle
        self._access = access
        self._legacy = legacy
        self._problems = problems
        self.busy = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = Exchange(request)
        self.busy += 1
        try:
            answer = await self._answer(exchange)
            if not (request.content.is_eof() or answer.prepared):
                answer.force_close()  # nobody reads on: say so, instead of cutting what comes next
            return answer
        finally:
            self.busy -= 1
            self._account(exchange)

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        try:
            return await self._handle(exchange)
        except RegistryError as problem:
            exchange.result = problem.result
            return self._refused(exchange, problem)
        except BodyBroken as problem:
            exchange.result, exchange.error = "error", str(problem)
            respond.abort(exchange.request)
        except ConnectionError:
            exchange.error = getattr(exchange.request.protocol, "cut_for", "") or "the client left"
        except OSError as problem:
            exchange.result = "error"
            return self._refused(exchange, _disk(problem))
        except Exception:
            _log.exception("%s %s, trace %s", exchange.request.method, exchange.request.path, exchange.trace)
            exchange.result = "error"
            return self._refused(exchange, RegistryError("an internal error; the log of tidegate says more"))
        return web.Response(status=exchange.status or 499)

    def _refused(self, exchange: Exchange, problem: RegistryError) -> web.StreamResponse:
        if exchange.status:  # the answer had started
            respond.abort(exchange.request)
            exchange.error = problem.message
            return web.Response(status=exchange.status)
        exchange.upstream = problem.by or exchange.upstream
        return respond.error(exchange, problem)

    def _account(self, exchange: Exchange) -> None:
        if exchange.kind in _COUNTED and exchange.upstream:
            method = "HEAD" if exchange.request.method == "HEAD" else "GET"
            result = exchange.result or "error"
            # What an error says is no content: counted, an outage would look like bytes that the cache has saved.
            content = exchange.sent if exchange.status < 400 else 0
            metrics.answered(exchange.upstream, exchange.kind, method, result, content)
            metrics.first_byte(result, (exchange.first_byte or time.perf_counter()) - exchange.started)
            if exchange.alias:
                metrics.LEGACY.labels(exchange.alias).inc()
                if self._legacy.note(exchange.alias, exchange.client, _image(exchange)):
                    _log.warning(
                        "%s asks for %s by the old name: let it ask %s",
                        exchange.client,
                        _image(exchange),
                        exchange.upstream,
                    )
        if troubles.is_one(exchange):
            image, upstream = troubles.image(exchange), exchange.upstream
            self._problems.note(exchange.client, image, upstream, exchange.status, exchange.error)
        self._access.write(exchange)


def _image(exchange: Exchange) -> str:
    """The image as somebody wrote it in a manifest; a blob is named by its repository alone."""
    name = f"{exchange.alias}/{exchange.repo}"
    if exchange.kind == "tag":
        return f"{name}:{exchange.reference}"
    return f"{name}@{exchange.reference}" if exchange.kind == "manifest" else name


def _disk(problem: OSError) -> RegistryError:
    """What a disk that does not take something means to whoever sent it."""
    words = problem.strerror or str(problem)
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"there is no room for this here: {words}")
    return Unavailable(f"the disk cannot be used: {words}")
