"""Talking to the running service over its admin socket: one JSON document, or a stream of them, one a line.

The file's mode is the right to speak; nothing else is checked. What cannot be reached is one sentence that says what
to do.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from proxy.errors import StartError

if TYPE_CHECKING:
    from http.client import HTTPResponse

_PATIENCE = 10.0
STREAM_PATIENCE = 120.0
"""Seconds between two lines of a stream; the service says something every few seconds."""


class WrongUsage(StartError):
    """The service cannot understand what was asked."""


class NotRunning(StartError):
    """Nobody listens on the admin socket."""


def ask(data: str, path: str, *, seconds: float = _PATIENCE, method: str = "GET", **query: str) -> Any:
    """The JSON a running service answers; `query` goes into the URL. Raises NotRunning, WrongUsage, StartError."""
    with _answer(data, method, _target(path, query), None, seconds) as answer:
        return json.loads(answer.read())


def stream(data: str, path: str, body: Any) -> Iterator[dict[str, Any]]:
    """POST `body`, then one document a line as long as the work takes. Raises NotRunning, WrongUsage, StartError; one
    that ends without `"done": true` was cut off, and is a StartError too."""
    with _answer(data, "POST", path, json.dumps(body).encode(), STREAM_PATIENCE) as answer:
        for line in answer:
            document = json.loads(line)
            yield document
            if document.get("done"):
                return
    raise StartError(f"the tidegate at {data} broke off; what it has done so far is kept")


def _target(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


@contextmanager
def _answer(data: str, method: str, target: str, body: bytes | None, seconds: float) -> Iterator["HTTPResponse"]:
    import http.client  # slow: email

    with closing(http.client.HTTPConnection("tidegate")) as connection:
        try:
            connection.sock = _connect(data)
            connection.sock.settimeout(seconds)
            connection.request(method, target, body)
            answer = connection.getresponse()
            if answer.status != 200:
                raise (WrongUsage if answer.status == 400 else StartError)(_refusal(data, answer))
            yield answer
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NotRunning(f"no tidegate is running for {data}; start it with: tidegate serve") from None
        except PermissionError:
            raise StartError(f"no right to open {data}/admin.sock; ask as root or as its owner") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StartError(f"the tidegate at {data} does not answer: {error or type(error).__name__}") from None


def _refusal(data: str, answer: "HTTPResponse") -> str:
    """What was wrong with the question, in the service's own words where it has some."""
    try:
        return str(json.loads(answer.read())["errors"][0]["message"])
    except (ValueError, LookupError, TypeError):
        return f"the tidegate at {data} says {answer.status} {answer.reason}"


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
