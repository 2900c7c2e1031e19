"""Hops: one thing asked of the registry, and everywhere it sends us, a challenge answered on the way.

Redirects are followed as upstream/egress.py follows them, with the same functions for what may be followed. A hop that
looks like one already reported is not reported again.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from yarl import URL

from proxy.doctor import token
from proxy.doctor.answer import Head
from proxy.doctor.image import Image
from proxy.doctor.report import Problem, Report, plain
from proxy.doctor.way import Answered, Way
from proxy.errors import Unavailable
from proxy.upstream.egress import HOP_LIMIT, next_url

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ON_THE_WAY = frozenset({"rules", "dns", "tcp", "proxy", "tls", "answer"})
_WANTED: Mapping[str, str] = {"api": "/v2/", "manifest": "a manifest", "blob": "a blob"}
_PAGE_SEEN: Mapping[str, str] = {
    "api": "invalid character '<' looking for beginning of value",
    "manifest": "unexpected media type text/html: not found",
    "blob": "unexpected commit digest: failed precondition",
}


class Walk:
    """All requests to one source of one upstream. The first connection is reported stage by stage."""

    def __init__(self, way: Way, image: Image, base: str, report: Report) -> None:
        self.way = way
        self._image = image
        self._base = URL(base)
        self._report = report
        self._tokens: dict[URL, str] = {}
        self._shown: set[tuple[str, str, int]] = set()
        self._first = True

    @asynccontextmanager
    async def to(
        self, kind: str, path: str, headers: Mapping[str, str], wait: float | None = None
    ) -> AsyncIterator[Answered]:
        """The answer at the end of the redirects to `path` below /v2/. Raises Problem."""
        url = self._url(path)
        home = True
        for number in range(HOP_LIMIT):
            home = home and url.origin() == self._base.origin()
            with self._named(url):
                answered = await self._hop(url, headers, wait, home, named=number == 0)
                self._first = False
                try:
                    following = self._next(kind, answered)
                except BaseException:
                    await answered.close()
                    raise
            if following is not None:
                await answered.close()
                url = following
                continue
            try:
                yield answered
            finally:
                await answered.close()
            return
        raise Problem("hop", f"{url.raw_host}: more than {HOP_LIMIT} redirects", nodes_see="stopped after 10 redirects")

    def _named(self, url: URL) -> "_Naming":
        return _Naming("" if self._first else f"hop {len(self._shown) + 1}", url.raw_host or "?")

    def _next(self, kind: str, answered: Answered) -> URL | None:
        """Where it goes on, None at the end. Raises Problem."""
        location = answered.head.headers.get("Location")
        if answered.head.status not in _REDIRECTS or location is None:
            judge(kind, answered.url.raw_host or "?", answered.head, str(self._image))
            self._hop_ok(kind, answered)
            return None
        try:
            following = next_url(answered.url, location)
        except Unavailable as error:
            raise Problem(
                "answer",
                plain(error.message, 160),
                nodes_see="a redirect that cannot be followed",
                fix="a block page, or a broken proxy: ask its team about this host",
            ) from None
        self._hop_ok(kind, answered)
        return following

    def _hop_ok(self, kind: str, answered: Answered) -> None:
        head, host = answered.head, answered.url.raw_host or "?"
        key = (kind, host, head.status)
        if kind == "api" or key in self._shown:
            return
        self._shown.add(key)
        vouched = f"issuer {answered.line.issuer}" if answered.line.issuer else "plain http"
        text = f"{kind:<8}  {head.status} in {max(head.seconds * 1000, 1):.0f} ms    {vouched}"
        self._report.ok(f"hop {len(self._shown)}", text, host)

    async def _hop(
        self, url: URL, headers: Mapping[str, str], wait: float | None, home: bool, *, named: bool
    ) -> Answered:
        """One request, asked once more when it is challenged and we have an answer. `home` is whether the chain has
        been nowhere else: once it has, nothing of the account is sent (upstream/auth.py)."""
        back = not home and url.origin() == self._base.origin() and not self._image.upstream.public
        known = "" if back else self._tokens.get(url.origin(), "")
        answered = await self._ask(url, headers, wait, known, named)
        if answered.head.status != 401 or back:
            return answered
        await answered.close()
        scope = f"repository:{self._image.repo}:pull"
        found = await token.answer(self.way, answered, scope, self._image.upstream if home else None)
        if found is None or self._tokens.get(url.origin()) == found.header:
            return answered
        self._tokens[url.origin()] = found.header
        self._report.ok("token", found.text)
        return await self._ask(url, headers, wait, found.header, named)

    async def _ask(
        self, url: URL, headers: Mapping[str, str], wait: float | None, authorization: str, named: bool
    ) -> Answered:
        sent = {**headers, **({"Authorization": authorization} if authorization else {})}
        return await self.way.ask("GET", url, sent, self._passed, wait, named=named)

    def _passed(self, stage: str, text: str) -> None:
        if self._first:
            self._report.ok(stage, text)

    def _url(self, path: str) -> URL:
        """As upstream/client.py builds it: the base's own path stands behind /v2/, a mirror is told the registry."""
        origin = str(self._base.origin())
        if not path:
            return URL(f"{origin}/v2/", encoded=True)
        prefix = str(self._base).rstrip("/")[len(origin) :]
        mirror = self._base.host != self._image.upstream.name.partition(":")[0]
        return URL(f"{origin}/v2{prefix}/{path}{f'?ns={self._image.upstream.name}' if mirror else ''}", encoded=True)


class _Naming:
    """Gives a problem on the way the name of the hop it belongs to; "" is the first connection, whose stages have
    names of their own."""

    def __init__(self, name: str, host: str) -> None:
        self._name = name
        self._host = host

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Problem) or error.step not in _ON_THE_WAY:
            return
        if not self._name:
            error.step = "api" if error.step == "answer" else error.step
        else:
            error.step, error.host = self._name, self._host
            error.text = error.text.removeprefix(f"{self._host}: ")


def judge(kind: str, host: str, head: Head, image: str) -> None:
    """Whether a last answer is what was due. Raises Problem."""
    wanted, status = _WANTED[kind], head.status
    if head.is_page:
        raise Problem(
            "answer",
            f"{host}: answered a web page ({status}) where {wanted} was due: a block or login page",
            nodes_see=_PAGE_SEEN[kind],
            fix=f"ask the firewall's or proxy's team to allow {host} for this machine",
        )
    if status in (200, 206) or (kind == "api" and status in (401, 404)):
        return
    seen, fix = _advice(status, image)
    raise Problem("answer", f"{host}: answered {status} for {wanted}", nodes_see=seen, fix=fix)


def _advice(status: int, image: str) -> tuple[str, str]:
    match status:
        case 404:
            return f"{image}: not found", "is the name spelled as its registry spells it?"
        case 401:
            return "401 Unauthorized", "set username and password_file of this upstream"
        case 403:
            return "403 Forbidden", "a firewall, a block by country, or an account without the right to pull this"
        case 429:
            return (
                "429 Too Many Requests",
                "wait, or set username and password_file of this upstream: accounts get more",
            )
        case 407:
            return "Proxy Authentication Required", "see [egress] proxy"
        case _:
            return f"unexpected status {status}", "the registry, or a proxy before it, is in trouble: try again later"
