"""upstream/auth.py's Keyring: what is kept of tokens, and for how long."""

import json
from types import SimpleNamespace

from multidict import CIMultiDict
from yarl import URL

from proxy.upstream import auth
from proxy.upstream.auth import Keyring

HOME = URL("https://registry.example")


class Challenged:
    """A 401 as the keyring looks at it."""

    def __init__(self, origin: URL, header: str) -> None:
        self.url = origin
        self.headers = CIMultiDict({"WWW-Authenticate": header})
        self.request_info = self


BEARER = 'Bearer realm="https://auth.example/token"'


async def tokens(url, headers):
    """A token service that gives the scope back, for a minute."""
    return 200, json.dumps({"token": url.query["scope"], "expires_in": 60}).encode()


async def test_tokens_of_repositories_nobody_comes_back_to_are_not_kept_for_ever(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(auth, "time", SimpleNamespace(monotonic=lambda: now))
    keys = Keyring(frozenset({HOME}), "", "")
    for number in range(1500):
        assert await keys.answer(tokens, Challenged(HOME, BEARER), f"repo{number}") == f"Bearer repo{number}"
    kept = [number for number in range(1500) if keys.known(HOME, f"repo{number}")]
    assert kept == list(range(500, 1500)), "the oldest go first"
    now += 100
    await keys.answer(tokens, Challenged(HOME, BEARER), "late")
    assert len(keys._tokens) == 1, "what has expired goes at the next one"
    assert keys.known(HOME, "late")
