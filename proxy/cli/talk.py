"""Talking to a running service: one JSON document, or a stream of them, one a line. Over its admin socket, where the
file's mode is the right to speak, or over HTTP with a token. What cannot be reached is one sentence that says what
to do.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from proxy.errors import StartError

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

_PATIENCE = 10.0
_JSON = ("application/json", "application/x-ndjson")
STREAM_PATIENCE = 120.0
"""Seconds between two lines of a stream; the service says something every few seconds."""


class WrongUsage(StartError):
    """The service cannot understand what was asked."""


class NotRunning(StartError):
    """Nobody listens on the admin socket."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which service is asked: the one of a data folder, or where `server` is not empty the one at that URL, which knows
    us by `token`; `ca` is a file of certificates to trust, "" for the system's."""

    data: str
    server: str = ""
    token: str = field(default="", repr=False)
    ca: str = ""

    def __str__(self) -> str:
        return self.server or self.data


def ask(place: Place, path: str, *, seconds: float = _PATIENCE, method: str = "GET", **query: str) -> Any:
    """The JSON a running service answers; `query` goes into the URL. Raises NotRunning, WrongUsage, StartError."""
    with _answer(place, method, _target(path, query), None, seconds) as answer:
        return json.loads(answer.read())


def stream(place: Place, path: str, body: Any) -> Iterator[dict[str, Any]]:
    """POST `body`, then one document a line as long as the work takes. Raises NotRunning, WrongUsage, StartError; one
    that ends without `"done": true` was cut off, and is a StartError too."""
    with _answer(place, "POST", path, json.dumps(body).encode(), STREAM_PATIENCE) as answer:
        for line in answer:
            document = json.loads(line)
            yield document
            if document.get("done"):
                answer.read()  # to its end, or the service takes it that we have left
                return
    raise StartError(f"the tidegate at {place} broke off; what it has done so far is kept")


def _target(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


@contextmanager
def _answer(place: Place, method: str, target: str, body: bytes | None, seconds: float) -> Iterator["HTTPResponse"]:
    import http.client  # slow: email

    with closing(_connection(place)) as connection:
        try:
            if not place.server:
                connection.sock = _connect(place.data)
                connection.sock.settimeout(seconds)
            connection.timeout = seconds
            connection.request(method, target, body, {"Authorization": f"Bearer {place.token}"} if place.server else {})
            answer = connection.getresponse()
            if answer.status != 200:
                raise (WrongUsage if answer.status == 400 else StartError)(_refusal(place, answer))
            if place.server and answer.headers.get_content_type() not in _JSON:
                raise StartError(f"{place} is no tidegate: it answers with {answer.headers.get_content_type()}")
            yield answer
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unreachable(place, error) from None


def _connection(place: Place) -> "HTTPConnection":
    """Not connected yet. Raises StartError."""
    import http.client

    address = urlsplit(place.server)
    if address.scheme != "https":
        return http.client.HTTPConnection(address.hostname or "tidegate", address.port)
    import ssl

    try:
        trusted = ssl.create_default_context(cafile=place.ca or None)
    except OSError as error:
        raise StartError(f"--ca {place.ca} cannot be used: {error.strerror or error}") from None
    return http.client.HTTPSConnection(address.hostname or "", address.port, context=trusted)


def _unreachable(place: Place, error: Exception) -> StartError:
    """What is wrong, and what to do."""
    said = str(getattr(error, "verify_message", "") or getattr(error, "strerror", "") or error or type(error).__name__)
    if place.server:
        if hasattr(error, "verify_message"):
            return StartError(f"the certificate of {place} is not trusted: {said}; name its CA with --ca FILE")
        if isinstance(error, OSError):
            return StartError(f"{place} cannot be reached: {said}")
        return StartError(f"{place} is no tidegate, or not on that port")
    match error:
        case FileNotFoundError() | ConnectionRefusedError() | NotADirectoryError():
            return NotRunning(f"no tidegate is running for {place}; start it with: tidegate serve")
        case PermissionError():
            return StartError(f"no right to open {place}/admin.sock; ask as root or as its owner")
    return StartError(f"the tidegate at {place} does not answer: {error or type(error).__name__}")


def _refusal(place: Place, answer: "HTTPResponse") -> str:
    """What was wrong with the question, in the service's own words where it has some."""
    try:
        problem = json.loads(answer.read())["errors"][0]
        code, said = str(problem["code"]), str(problem["message"])
        foreign = place.server and not answer.reason.startswith("tidegate: ")
    except (ValueError, LookupError, TypeError):
        code, said, foreign = "", "", True
    if foreign:
        who = f"{place} is no tidegate: it" if place.server else f"the tidegate at {place}"
        return f"{who} says {answer.status} {answer.reason}"
    if place.server and answer.status == 404 and code == "UNSUPPORTED":
        return f"{place} has no /api/: where admin.listen is set, it is at that address"
    return f"{place}: {said}" if place.server else said


def _connect(data: str) -> socket.socket:
    folder = os.open(data, os.O_PATH | os.O_DIRECTORY)
    admin = socket.socket(socket.AF_UNIX)
    try:
        admin.settimeout(_PATIENCE)
        admin.connect(f"/proc/self/fd/{folder}/admin.sock")  # through the descriptor any path fits into sun_path
    except OSError:
        admin.close()
        raise
    finally:
        os.close(folder)
    return admin
