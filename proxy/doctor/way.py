"""The way to one host: allowed, resolved, connected, through the proxy, TLS. Every hop goes it anew.

The same decisions as upstream/egress.py takes for a pull, and the same rules; taken apart, so that the stage that
fails has a name.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from yarl import URL

from proxy.config import Egress, Upstream
from proxy.doctor import answer, tls, tunnel
from proxy.doctor.answer import Head
from proxy.doctor.dial import Line, dial
from proxy.doctor.limits import Budget
from proxy.doctor.names import resolve
from proxy.doctor.report import Problem, plain
from proxy.upstream.egress import tls_context
from proxy.upstream.issuer import anyone
from proxy.upstream.rules import Refused, Rules, literal

Passed = Callable[[str, str], None]
"""Told of every stage that is behind us: its name, and what there is to say."""


_CUT = "a proxy or firewall that limits size or time: ask its team about this host"


@dataclass(slots=True)
class Answered:
    """An answer whose body is still to come. `began`: when its first byte came, by the monotonic clock."""

    url: URL
    line: Line
    head: Head
    began: float = 0.0

    async def close(self) -> None:
        """Hang up; what has not been read stays unread."""
        await self.line.close()

    async def read(self, budget: Budget, step: str, limit: int, seconds: float = 0.0) -> bytes:
        """At most `limit` bytes of the body, once, within `seconds` or a step's time. Raises Problem."""
        host, content = self.url.raw_host, bytearray()
        seconds = seconds or budget.limits.step
        try:
            async with budget.within(step, seconds):
                async for piece in answer.body(self.line, self.head):
                    self.began = self.began or time.monotonic()
                    content += piece
                    if len(content) >= limit:
                        break
        except TimeoutError:
            what = f"the body stalls: {len(content)} bytes within {seconds:g} s"
            raise Problem(step, f"{host}: {what}", nodes_see="a pull that hangs", fix=_CUT) from None
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            what = f"the body is cut after {len(content)} bytes"
            raise Problem(step, f"{host}: {what}", nodes_see="unexpected EOF", fix=_CUT) from None
        return bytes(content[:limit])


class Way:
    """Connections as one upstream's pulls would make them. `dated` holds the first head that carried a Date."""

    def __init__(self, upstream: Upstream, budget: Budget, origins: Mapping[str, str]) -> None:
        egress = upstream.egress
        self.egress: Egress = egress
        self.budget = budget
        self.dated: Head | None = None
        self._origin = origins.get(f"upstreams.{upstream.name}.proxy") or origins.get("egress.proxy", "")
        self._step = min(egress.connect_timeout, budget.limits.step)
        self.rules = Rules.of(egress.allow, egress.deny, egress.allow_private, upstream.urls, egress.proxy)
        self._context: ssl.SSLContext | None = None

    async def start(self) -> None:
        """Reads the certificates. Raises Problem when a file cannot be used."""
        try:
            self._context = await asyncio.to_thread(tls_context, self.egress)
        except OSError as error:
            raise Problem(
                "config",
                f"[egress] ca_file, cert_file or key_file cannot be used: {error.strerror or error}",
                fix="each must name a PEM file that this service may read",
            ) from None

    async def ask(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        passed: Passed,
        wait: float | None = None,
        *,
        named: bool = False,
    ) -> Answered:
        """One request, redirects not followed; `wait` seconds for its answer, which the caller closes. `named`: the
        configuration sends us there. Raises Problem."""
        line = await self._reach(url, passed, named)
        try:
            await answer.send(line, method, url, headers)
            seconds = self.budget.limits.step if wait is None else wait
            head = await answer.read_head(line, self.budget, "answer", url.raw_host or "?", seconds)
            self._note(head)
            if line.absolute and head.status == 407:
                raise tunnel.refused(head, URL(self.egress.proxy_for(url.host or "")), f"{url.raw_host}:{url.port}")
        except BaseException:
            await line.close()
            raise
        return Answered(url, line, head)

    def _note(self, head: Head) -> None:
        if self.dated is None and "Date" in head.headers:
            self.dated = head

    async def _reach(self, url: URL, passed: Passed, named: bool) -> Line:
        """A connection to speak HTTP on."""
        host, port = url.raw_host or "", url.port or 0
        self._check(lambda: self.rules.check_host(host, port, named=named))
        line = await self._connected(url, passed, named)
        if url.scheme != "https":
            return line
        assert self._context is not None, "Way.start has not been called"
        try:
            line.issuer = await tls.handshake(line, self._context, host, self.budget, self._step)
        except tls.Untrusted as found:
            await line.close()
            raise tls.untrusted(host, found.error, await self._whose(url, named), self.egress.ca_file) from None
        except BaseException:
            await line.close()
            raise
        passed("tls", f'{host}, issuer "{line.issuer}"')
        return line

    async def _whose(self, url: URL, named: bool) -> str:
        """The issuer of a certificate that did not verify; "?" when the second look fails."""
        assert self._context is not None
        try:
            line = await self._connected(url, lambda *_: None, named)
        except Problem:
            return "?"
        try:
            return await tls.handshake(line, anyone(), url.raw_host or "", self.budget, self._step)
        except (Problem, tls.Untrusted):
            return "?"
        finally:
            await line.close()

    async def _connected(self, url: URL, passed: Passed, named: bool) -> Line:
        """TCP, through the proxy where there is one: behind it the name of the host is the proxy's to resolve."""
        host, port = url.raw_host or "", url.port or 0
        proxy = URL(self.egress.proxy_for(url.host or "") or "")
        if not proxy.raw_host:
            addresses = await self._addresses(host, port, passed)
            self._check(lambda: self._allowed(host, port, addresses, named))
            return await self._dialled(host, addresses, port, passed)
        addresses = await self._addresses(proxy.raw_host, proxy.port or 0, passed)
        line = await self._dialled(proxy.raw_host, addresses, proxy.port or 0, passed)
        try:
            await self._through(line, proxy, url, passed)
        except BaseException:
            await line.close()
            raise
        return line

    async def _addresses(self, host: str, port: int, passed: Passed) -> list[str]:
        addresses = await resolve(host, port, self.budget, self._step)
        if addresses != [host]:
            passed("dns", f"{host} is {', '.join(addresses[:4])}{' ...' if len(addresses) > 4 else ''}")
        return addresses

    async def _dialled(self, host: str, addresses: list[str], port: int, passed: Passed) -> Line:
        line = await dial(host, addresses, port, self.budget, self._step)
        passed("tcp", f"{host} port {port} connects")
        return line

    async def _through(self, line: Line, proxy: URL, url: URL, passed: Passed) -> None:
        if proxy.scheme == "https":
            await self._proxy_tls(line, proxy)
        shown = f"{proxy.scheme}://{proxy.raw_host}:{proxy.port}{self._from()}"
        if url.scheme == "http":
            line.absolute, line.authorization = True, tunnel.credentials(proxy)
            passed("proxy", f"{shown}, asked without CONNECT for plain http")
            return
        host = f"[{url.raw_host}]" if ":" in (url.raw_host or "") else url.raw_host
        self._note(await tunnel.connect(line, proxy, f"{host}:{url.port}", self.budget, self._step))
        passed("proxy", f"{shown}, CONNECT allowed")

    async def _proxy_tls(self, line: Line, proxy: URL) -> None:
        assert self._context is not None
        host = proxy.raw_host or ""
        try:
            await tls.handshake(line, self._context, host, self.budget, self._step)
        except tls.Untrusted as found:
            raise tls.untrusted(f"proxy {host}", found.error, "?", self.egress.ca_file) from None

    def _from(self) -> str:
        return f" (from {self._origin})" if self._origin not in ("", "default") else ""

    def _allowed(self, host: str, port: int, addresses: list[str], named: bool) -> None:
        for text in addresses:
            address = literal(text)
            if address is not None:
                self.rules.check_address(host, port, address, named=named)

    def _check(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Refused as error:
            raise _off_limits(error) from None


def _off_limits(error: Refused) -> Problem:
    """Our own rules keep us from a host that somebody named."""
    host = plain(error.host)
    if error.rule == "allow":
        fix = f'if {host} belongs to the registry, add "{host}" to [egress] allow; else it is a block or login page'
    elif error.rule.startswith("deny"):
        fix = f"take {host} out of [egress] deny if it belongs to the registry"
    else:
        fix = f"set [egress] allow_private = true if {host} is meant to be inside; else DNS or a firewall diverts it"
    return Problem("rules", f"{host}: not allowed by [egress] {plain(error.rule)}", fix=fix)
