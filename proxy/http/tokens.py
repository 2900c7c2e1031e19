"""The one token that opens all of /api/ over TCP, and the whole status page: read from a file, again whenever that
changes, compared in constant time.

A file that cannot be read any more, or holds too little, opens nothing: whoever took the token away meant that.
"""

import base64
import hmac
import os

from aiohttp import web

from proxy.config import ConfigError
from proxy.errors import LoginNeeded, TokenNeeded

SHORTEST = 16
_LONGEST = 4096


def read(path: str) -> bytes:
    """The token of a file, without the space around it. Blocks. Raises ConfigError, whose text never holds it."""
    try:
        with open(path, "rb") as file:
            token = file.read(_LONGEST + 1).strip()
    except OSError as error:
        raise ConfigError(f"admin.token_file {path} cannot be read: {error.strerror}") from None
    if not SHORTEST <= len(token) <= _LONGEST or any(not 0x21 <= byte <= 0x7E for byte in token):
        raise ConfigError(f"admin.token_file {path} must hold one word of at least {SHORTEST} ASCII characters")
    return token


class Token:
    """The token of one file; "" as path: there is none."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._state: tuple[int, ...] = ()
        self._token = b""

    def check(self, request: web.BaseRequest) -> bool:
        """Whether the request carries the token; False where it carries none. Reads a small file inline when that has
        changed. Raises TokenNeeded where it carries another one."""
        sent = request.headers.getall("Authorization", [])
        scheme, _, given = (sent[0] if sent else "").strip().partition(" ")
        if scheme.lower() != "bearer":
            return False
        if not self._path:
            raise TokenNeeded("this tidegate takes no token; set admin.token_file")
        token = self._current()
        if len(sent) > 1 or not hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token or b"\0"):
            raise TokenNeeded("the token is not the one of admin.token_file")
        return True

    @property
    def there(self) -> bool:
        """Whether there is one to log in with."""
        return bool(self._path)

    def is_password(self, request: web.BaseRequest) -> bool:
        """Whether the request carries the token as a password, with any name; False where it carries no password.
        Raises LoginNeeded where it carries another one."""
        sent = request.headers.getall("Authorization", [])
        scheme, _, given = (sent[0] if sent else "").strip().partition(" ")
        if scheme.lower() != "basic" or not self._path:
            return False
        try:
            _, _, password = base64.b64decode(given.strip(), validate=True).partition(b":")
        except ValueError:
            password = b""
        if len(sent) > 1 or not hmac.compare_digest(password, self._current() or b"\0"):
            raise LoginNeeded("the password is not the token of admin.token_file")
        return True

    def _current(self) -> bytes:
        """b"" where the file holds none now."""
        try:
            found = os.stat(self._path)
            state = found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
            if state != self._state:
                self._token, self._state = read(self._path), state
        except (OSError, ConfigError):
            self._token, self._state = b"", ()
        return self._token
