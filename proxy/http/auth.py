"""Who asks, and whether they may push or pull: `[auth]`, RFC 7617 Basic against a users file, loopback without one.

What must not live here: how a password is proved (passwords), what counts as this machine (whence), and which
repositories there are. Every refusal says what to set, because it is the only text a pusher sees; none of them, no
log line and no repr holds a password or says whether a name exists.
"""

import base64
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aiohttp import web

from proxy.config import Auth
from proxy.errors import Denied, Unauthorized
from proxy.http.passwords import Check, Passwords
from proxy.http.whence import whence


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a proved name or "" for anonymous; the client's address, "" when it is not known; why they do not
    count as this machine, "" when they do."""

    name: str
    address: str
    foreign: str

    @property
    def is_loopback(self) -> bool:
        """Whether every sign says that a tool on this machine asks."""
        return not self.foreign


class Access:
    """The rules of `[auth]`. One a worker, used from its loop."""

    def __init__(self, auth: Auth, check: Check | None = None) -> None:
        """Reads the users file: blocks; raises ConfigError. `check` stands in for bcrypt's."""
        self._auth = auth
        self._trusted = [ipaddress.ip_network(text) for text in auth.trusted_proxies]
        self._may_push = _grants(auth.push_names)
        self._may_pull = _grants(auth.pull_names)
        self._passwords = Passwords(auth.users_file, check) if auth.users_file else None

    @property
    def guarded(self) -> bool:
        """Whether reading has to ask who asks: where it does not, a hit costs nothing more."""
        return "users" in (self._auth.push, self._auth.pull)

    def close(self) -> None:
        """Ends the threads; nobody may be asked about after this."""
        if self._passwords is not None:
            self._passwords.close()

    async def caller(self, request: web.BaseRequest) -> Caller:
        """Who asks. Without a users file nothing can be said of credentials, and they are not looked at.

        Raises Unauthorized where they are wrong, Unavailable where too many wait to be checked.
        """
        found = whence(request, self._trusted)
        sent = request.headers.getall("Authorization", [])
        if self._passwords is None or not sent:
            return Caller("", found.address, found.foreign)
        user, password = _credentials(sent)
        if (user or password) and not await self._passwords.belong(user, password, found.address):
            raise Unauthorized("name and password do not match")
        return Caller(user, found.address, found.foreign)

    def may_ping(self, caller: Caller) -> None:
        """/v2/ itself: docker, podman and skopeo send a password only to who asked for it there.

        Raises Unauthorized.
        """
        if self.guarded and not caller.name:
            raise Unauthorized("a user is needed; log in")

    def may_pull(self, caller: Caller, repository: str, pushed: bool = False) -> None:
        """`pushed`: it is a name that can be pushed to here. Raises Unauthorized, Denied."""
        if self._auth.pull == "users" and not caller.name:
            raise Unauthorized(f"pulling {repository} needs a user; log in")
        if pushed and not self.sees(caller, repository):
            raise Denied(f"{caller.name} may not pull {repository}; auth.pull_names has no entry that allows it")

    def sees(self, caller: Caller, repository: str | None) -> bool:
        """Whether a caller who may pull at all may pull this, which is pushed here, or None: whatever there is. Who is
        let push a name by an entry of its own has to see what is there: tools ask before they send."""
        if not self._may_pull:
            return True
        return repository is not None and _granted([*self._may_pull, *self._may_push], caller, repository)

    def may_push(self, caller: Caller, repository: str) -> None:
        """Raises Unauthorized, Denied."""
        match self._auth.push:
            case "nobody":
                raise Denied('nobody may push here; set auth.push to "loopback" or "users"')
            case "loopback":
                if caller.foreign:
                    raise Denied(f'only tools on this machine may push: {caller.foreign}; set auth.push = "users"')
            case "users":
                self._may_user_push(caller, repository)

    def _may_user_push(self, caller: Caller, repository: str) -> None:
        if not caller.name:
            raise Unauthorized(f"pushing {repository} needs a user; log in")
        if self._may_push and not _granted(self._may_push, caller, repository):
            raise Denied(f"{caller.name} may not push {repository}; auth.push_names has no entry that allows it")


def _grants(written: Sequence[str]) -> list[tuple[str, str]]:
    """User and pattern of each "user=pattern"."""
    return [(user, pattern) for user, _, pattern in (text.rpartition("=") for text in written)]


def _granted(grants: Sequence[tuple[str, str]], caller: Caller, repository: str) -> bool:
    return any(user in (caller.name, "*") and fnmatchcase(repository, pattern) for user, pattern in grants)


def _credentials(sent: list[str]) -> tuple[str, str]:
    """Name and password (RFC 7617). Both empty is anonymous: some clients answer a challenge so when they have none.

    Raises Unauthorized.
    """
    scheme, _, encoded = sent[0].strip().partition(" ")
    if len(sent) > 1 or scheme.lower() != "basic":
        raise Unauthorized("only Basic credentials are taken here; log in with name and password")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        text = ""
    user, colon, password = text.partition(":")
    if not colon or any(character < " " or character == "\x7f" for character in text) or (password and not user):
        raise Unauthorized("the credentials cannot be read; log in with name and password")
    return user, password
