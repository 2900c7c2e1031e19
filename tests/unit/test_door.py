"""upstream/egress.py from inside: what no real name server of the tests could be made to say."""

import asyncio
import dataclasses
import socket
from typing import Any

import pytest
from yarl import URL

from proxy.config import Egress, Secret
from proxy.upstream.auth import Keyring
from proxy.upstream.egress import Door
from proxy.upstream.ledger import Ledger
from proxy.upstream.rules import Refused, Rules
from tests.fakes import Bearer, Origin, Status
from tests.unit.builders import upstream


async def test_a_name_that_resolves_inside_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the name is harmless, the address is not; one look-up, every address of it checked."""
    asked = 0

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        nonlocal asked
        asked += 1
        good = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", port))
        return [good, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    settings = Egress(("*",), (), False, 1.0, 1.0, 1.0, "", "", Secret(), (), "", "", "")
    ledger = Ledger()
    keys = Keyring(frozenset(), "", "")
    door = Door("up", settings, keys, Rules.of(["*"], [], False, []), ledger)
    await door.start()
    try:
        with pytest.raises(Refused, match=r"rebind.example: not allowed .* 169\.254\.169\.254"):
            async with door.walk("GET", URL("http://rebind.example/v2/"), {}, ""):
                pass
    finally:
        await door.close()
    assert asked == 1
    assert [row["failed"] for row in ledger.rows()] == [1]


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("way", ["redirect", "token"])
async def test_a_registry_inside_may_not_send_us_back_to_itself(
    monkeypatch: pytest.MonkeyPatch, origin: Origin, allow_private: bool, way: str
) -> None:
    """The first hop is exempt, because the configuration names it; what comes after is not, although the connection is
    open and the name in the cache of look-ups."""

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    origin.add_blob("app", b"x")
    base = URL(f"http://mirror.corp:{origin.host.partition(':')[2]}")
    if way == "redirect":
        origin.fault("/v2/old", Status(307, {"Location": f"{base}/v2/"}))
    else:
        origin.auth = Bearer()
        origin.url = str(base)
    rules = Rules.of(["*"], [], allow_private, [str(base)])
    settings = dataclasses.replace(upstream().egress, allow_private=allow_private)
    door = Door("up", settings, Keyring(frozenset({base.origin()}), "", ""), rules, Ledger())
    await door.start()
    path = "/v2/old" if way == "redirect" else "/v2/"
    try:
        if allow_private:
            async with door.walk("GET", base.with_path(path), {}, "") as response:
                assert response.status == 200
        else:
            with pytest.raises(Refused, match=r"mirror.corp: not allowed .* 127\.0\.0\.1 is a private address"):
                async with door.walk("GET", base.with_path(path), {}, ""):
                    pass
        assert origin.count() == ((3 if way == "token" else 2) if allow_private else 1)
    finally:
        await door.close()
