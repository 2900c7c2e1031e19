"""upstream/egress.py from inside: what no real name server of the tests could be made to say."""

import asyncio
import socket
from typing import Any

import pytest
from yarl import URL

from proxy.config import Egress, Secret
from proxy.upstream.auth import Keyring
from proxy.upstream.egress import Door
from proxy.upstream.ledger import Ledger
from proxy.upstream.rules import Refused, Rules


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
