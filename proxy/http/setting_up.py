"""`GET /client-config/CLIENT/FILE`: what `tidegate client-config` writes, for a node that has curl and nothing else.

`GET /client-config/` names the clients, `GET /client-config/CLIENT` the files one a line. `upstream=NAME`, which may be
repeated, chooses registries, `ca=FILE` names the CA on the client's machine. No answer holds a secret.
What must not live here: what any client reads; that is handed in.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote

from aiohttp import web

from proxy.config import ConfigError
from proxy.config.known import nearest
from proxy.errors import NoSuchPath, RequestInvalid
from proxy.http import respond
from proxy.http.exchange import Exchange

PREFIX = "/client-config"
Write = Callable[[str, str, Sequence[str], str], Mapping[str, str]]
"""Client, URL of this cache, upstreams (none: all), CA ("": the system's) -> content by path. Raises ConfigError."""
_KEYS = ("ca", "upstream")
_PATH = re.compile(r"/[\w.@+/-]{1,200}", re.ASCII)
"""It is written into files of many formats, scripts too: nothing that means anything in one of them."""


class SettingUp:
    """The pages. `url` is how clients reach us, empty where nobody said: then it is how this one did."""

    def __init__(self, clients: Sequence[str], url: str, write: Write, *, tls: bool = False) -> None:
        self._clients = clients
        self._url = url
        self._write = write
        self._scheme = "https" if tls else "http"

    async def answer(self, exchange: Exchange) -> web.StreamResponse:
        """Raises NoSuchPath with what there is, RequestInvalid."""
        exchange.kind = "config"
        _, _, rest = exchange.request.path.removeprefix(PREFIX).partition("/")
        client, _, name = rest.partition("/")
        if not client:
            return _text(exchange, self._clients)
        if client not in self._clients:
            raise NoSuchPath(f"{client[:40]!r} is no client; there are {', '.join(self._clients)}")
        files = self._files(exchange, client)
        if not name:
            return _text(exchange, list(files))
        content = files.get(unquote(name))
        if content is None:
            raise NoSuchPath(f"{client} has no file of that name; {PREFIX}/{client} lists them")
        sent = {"Content-Type": "text/plain; charset=utf-8", "Server": respond.SERVER}
        return respond.whole(exchange, content.encode(), sent)

    def _files(self, exchange: Exchange, client: str) -> Mapping[str, str]:
        url = self._url or f"{self._scheme}://{exchange.request.headers.get('Host', '')}"
        query = exchange.request.query
        for key in query:
            if key not in _KEYS:
                raise RequestInvalid(f"{key[:40]!r} is none of the keys; {nearest(key, _KEYS)}")
        ca = query.get("ca", "")
        if ca and not _PATH.fullmatch(ca):
            raise RequestInvalid("ca: the path of a file on the client's machine, such as /etc/ssl/certs/corp.pem")
        try:
            return self._write(client, url, query.getall("upstream", []), ca)
        except ConfigError as error:
            raise RequestInvalid(str(error).removeprefix("--")) from None  # the command's option is the query's key


def _text(exchange: Exchange, lines: Sequence[str]) -> web.StreamResponse:
    sent = {"Content-Type": "text/plain; charset=utf-8", "Server": respond.SERVER}
    return respond.whole(exchange, "".join(f"{line}\n" for line in lines).encode(), sent)
