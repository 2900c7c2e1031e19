"""Tokens: a challenge, and the service that answers it."""

from dataclasses import dataclass

from yarl import URL

from proxy.config import Upstream
from proxy.doctor.report import Problem, plain
from proxy.doctor.way import Answered, Way
from proxy.errors import Unavailable
from proxy.upstream.auth import basic_account, parse_challenges, read_token, realm_url

_LIMIT = 256 << 10


@dataclass(frozen=True, slots=True)
class Token:
    """What to send in Authorization, and what to say of it."""

    header: str
    text: str


async def answer(way: Way, challenged: Answered, scope: str, account: Upstream | None) -> Token | None:
    """What answers a 401, None when nothing here does; `account` is whose credentials may be used. Raises Problem."""
    basic = ""
    if account is not None and account.username:
        basic = basic_account(account.username, account.password.reveal())
    for challenge in parse_challenges(challenged.head.headers.getall("WWW-Authenticate", [])):
        if challenge.scheme == "bearer" and "realm" in challenge.params:
            wanted = challenge.params.get("scope", scope)
            try:
                url = realm_url(
                    challenged.url.origin(), challenge.params["realm"], challenge.params.get("service", ""), wanted
                )
            except Unavailable as error:
                raise Problem("token", plain(error.message, 160)) from None
            return await _fetch(way, url, basic)
        if challenge.scheme == "basic" and basic:
            return Token(basic, f"{challenged.url.raw_host} takes user name and password")
    return None


async def _fetch(way: Way, url: URL, basic: str) -> Token:
    """From the token service; it gets there by the same rules as every hop."""
    host = plain(url.raw_host or "?")
    try:
        answered = await way.ask("GET", url, {"Authorization": basic} if basic else {}, lambda *_: None)
    except Problem as problem:
        problem.step, problem.text = "token", f"the token service: {problem.text}"
        raise
    try:
        if answered.head.status != 200 or answered.head.is_page:
            raise _refused(host, answered, bool(basic))
        content = await answered.read(way.budget, "token", _LIMIT)
    finally:
        await answered.close()
    try:
        return Token(read_token(url, content).header, f"{host} gave one in {answered.head.seconds * 1000:.0f} ms")
    except Unavailable as error:
        raise Problem("token", plain(error.message, 160), nodes_see="failed to authorize") from None


def _refused(host: str, answered: Answered, named: bool) -> Problem:
    status = answered.head.status
    if answered.head.is_page:
        return Problem(
            "token",
            f"{host}: answered a web page ({status}) where a token was due: a block or login page",
            nodes_see="failed to authorize: failed to fetch anonymous token",
            fix=f"ask the firewall's or proxy's team to allow {host} for this machine",
        )
    return Problem(
        "token",
        f"{host}: the token service answered {status}",
        nodes_see=f"failed to authorize: failed to fetch {'oauth' if named else 'anonymous'} token: {status}",
        fix="check username and password_file of this upstream" if named else
            "set username and password_file of this upstream, if the image is not public",
    )  # fmt: skip
