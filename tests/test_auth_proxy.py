"""A reverse proxy on the same host must not open pushing to everybody: a real nginx before a server that asks Access.

nginx takes the client's address from a header here (its realip module), so that other machines need not exist.
"""

import asyncio
import threading
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from aiohttp import web

from proxy.config import Auth
from proxy.errors import RegistryError
from proxy.http import respond
from proxy.http.auth import Access
from proxy.http.exchange import Exchange
from tests.real.processes import free_port
from tests.real.servers import nginx

pytestmark = pytest.mark.real("nginx")
OPENER = build_opener(ProxyHandler({}))
AWAY, HERE = "192.0.2.7", "127.0.0.1"

# How people put nginx in front of a registry: what they set, what they forget.
LOCATIONS = {
    "bare": "",
    "host": "proxy_set_header Host $http_host;",
    "real": "proxy_http_version 1.1; proxy_set_header X-Real-IP $remote_addr; proxy_set_header Host $http_host;",
    "added": "proxy_http_version 1.1; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    "full": """proxy_http_version 1.1; proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme;""",
}


@contextmanager
def pushable(access):
    """host:port of a server that answers 201 to whoever may push `a`; in a thread, until the block ends."""
    port, up, loop = free_port(), threading.Event(), asyncio.new_event_loop()
    stop = asyncio.Event()

    async def answer(request):
        exchange = Exchange(request)
        try:
            access.may_push(await access.caller(request), "a")
        except RegistryError as problem:
            return respond.error(exchange, problem)
        return respond.whole(exchange, b"", respond.headers(), 201)

    async def serve():
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, HERE, port).start()
        up.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert up.wait(10)
        yield f"{HERE}:{port}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def front(tmp_path):
    """Starts a server with these trusted proxies and nginx before it; (its host:port, nginx's URL)."""

    @contextmanager
    def start(*trusted):
        access = Access(Auth("loopback", "anyone", "", (), trusted, ()))
        with pushable(access) as host:
            locations = "".join(
                f"location /{name}/ {{ {lines} proxy_pass http://{host}/; }}\n" for name, lines in LOCATIONS.items()
            )
            realip = f"set_real_ip_from {HERE}; real_ip_header X-Test-Client;\n"
            with nginx(tmp_path / "nginx", tmp_path, realip + locations) as served:
                yield host, served.url
        access.close()

    return start


def push(url, **headers):
    """Status and what to read of it."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with OPENER.open(Request(url, data=b"", headers=sent, method="POST"), timeout=10) as answer:
            return answer.status, ""
    except HTTPError as error:
        with error:
            return error.code, error.reason


def test_nginx_opens_pushing_to_nobody(front):
    with front() as (host, url):
        assert push(f"http://{host}/v2/")[0] == 201
        for name in LOCATIONS:
            for client in (HERE, AWAY):
                for more in ({}, {"Host": "localhost"}, {"X_Forwarded_For": HERE}, {"Forwarded": f"for={HERE}"}):
                    status, reason = push(f"{url}/{name}/v2/", X_Test_Client=client, **more)
                    assert status == 403, (name, client, more)
                    assert "only tools on this machine may push" in reason


def test_a_trusted_nginx_opens_it_to_this_machine_only(front):
    with front(HERE) as (host, url):
        for name in ("added", "full"):
            assert push(f"{url}/{name}/v2/", X_Test_Client=HERE) == (201, "")
            for more in ({}, {"Host": "localhost"}, {"X_Forwarded_For": HERE}, {"Forwarded": f"for={HERE}"}):
                assert push(f"{url}/{name}/v2/", X_Test_Client=AWAY, **more)[0] == 403, (name, more)
            assert push(f"{url}/{name}/v2/", X_Test_Client=HERE, Origin="http://evil.example")[0] == 403
        assert push(f"{url}/full/v2/", X_Test_Client=HERE, Host="evil.example")[0] == 403
        status, reason = push(f"{url}/real/v2/", X_Test_Client=AWAY, Host="localhost")
        assert (status, "does not say for whom it asks" in reason) == (403, True)
        assert push(f"http://{host}/v2/")[0] == 403
