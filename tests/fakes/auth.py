"""The two challenges registries make, each counting what it was asked. Decisions only; the origin does the talking."""

import base64
import itertools
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qs


@dataclass(slots=True)
class Basic:
    """HTTP basic on every request."""

    username: str
    password: str

    def challenge(self, base: str, scope: str) -> str:
        return 'Basic realm="fake"'

    def allows(self, header: str, scope: str) -> bool:
        plain = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return header == f"Basic {plain}"


@dataclass(slots=True)
class Bearer:
    """Tokens from `<origin>/token`, each good for one scope and `expires_in` seconds; no username: anonymous tokens.

    `issued` and `refused` count answers of the token service.
    """

    username: str | None = None
    password: str = ""
    expires_in: float = 300
    say_expiry: bool = True
    service: str = "fake"
    issued: int = 0
    refused: int = 0
    tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def challenge(self, base: str, scope: str) -> str:
        return f'Bearer realm="{base}/token",service="{self.service}",scope="{scope}"'

    def allows(self, header: str, scope: str) -> bool:
        kind, _, token = header.partition(" ")
        granted, until = self.tokens.get(token, ("", 0.0))
        return kind == "Bearer" and granted == scope and time.monotonic() < until

    def issue(self, query: str, header: str) -> dict[str, object] | None:
        """The token document, or None when the credentials are wrong."""
        if self.username is not None and not Basic(self.username, self.password).allows(header, ""):
            self.refused += 1
            return None
        scope = parse_qs(query).get("scope", [""])[0]
        token = f"token-{next(self._numbers)}-for-{scope}"
        self.tokens[token] = (scope, time.monotonic() + self.expires_in)
        self.issued += 1
        return {"token": token} | ({"expires_in": int(self.expires_in)} if self.say_expiry else {})

    def revoke(self) -> None:
        """Every token given so far is worthless from now on."""
        self.tokens.clear()
