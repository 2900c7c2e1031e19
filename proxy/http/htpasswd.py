"""The users file: `name:hash` lines as `htpasswd -B` writes them, read once and again when the file has changed.

bcrypt and nothing else: every other kind htpasswd knows is guessed at thousands of millions a second. No message
quotes what stands behind the colon, which may be a password somebody forgot to hash.
"""

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from proxy.config import ConfigError

# Of the 22 characters of a salt the last one has 2 bits that count; the library refuses what else it could be.
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}\Z", re.ASCII)
_CHEAPEST, _DEAREST = 4, 16  # each step doubles the time; 16 is 4 s, and all of it somebody else's to spend
_KINDS = {"$apr1$": "MD5", "$1$": "MD5", "{SHA}": "SHA-1", "$5$": "SHA-256", "$6$": "SHA-512"}
_log = logging.getLogger("tidegate.auth")
Signature = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One reading of the file: name -> bcrypt hash. Two readings are never equal."""

    hashes: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Table({len(self.hashes)} users)"


def parse(name: str, content: bytes) -> Table:
    """The users in the content of the file called `name`. Raises ConfigError, one line."""
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: is not UTF-8 text") from None
    hashes: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            user, hashed = _user(f"{name}:{number}", line)
            if user in hashes:
                raise ConfigError(f"{name}:{number}: {user} stands twice; keep one line")
            hashes[user] = hashed
    if not hashes:
        raise ConfigError(f"{name}: holds no user; add one with: htpasswd -B {name} NAME")
    return Table(hashes)


def _user(where: str, line: str) -> tuple[str, bytes]:
    user, colon, hashed = line.rstrip().partition(":")
    if not colon or not user or not user.isprintable():
        raise ConfigError(f"{where}: is not NAME:HASH; make the line with htpasswd -B")
    match = _BCRYPT.match(hashed)
    if match is None:
        kind = next((kind for start, kind in _KINDS.items() if hashed.startswith(start)), "something else")
        raise ConfigError(f"{where}: the password of {user} is {kind}, not bcrypt; make it with htpasswd -B")
    if not _CHEAPEST <= int(match[1]) <= _DEAREST:
        raise ConfigError(f"{where}: the password of {user} has cost {match[1]}; make it with htpasswd -B -C 10")
    return user, hashed.encode()


class UsersFile:
    """The file and what was last good in it. Every method blocks."""

    def __init__(self, name: str) -> None:
        """Raises ConfigError."""
        self._name = name
        try:
            self._seen: Signature | None = self._signature()
            self.table = self._read()
        except OSError as error:
            raise ConfigError(f"cannot read auth.users_file {name}: {error.strerror}") from None

    def look(self) -> Table:
        """The users as they are now. When the file cannot be used those before stay, and the log says so once."""
        try:
            signature = self._signature()
        except OSError:
            signature = None
        if signature != self._seen:
            self._seen = signature
            self._renew()
        return self.table

    def _renew(self) -> None:
        try:
            self.table = self._read()
        except (ConfigError, OSError) as error:
            cause = error.strerror if isinstance(error, OSError) else error
            _log.warning("the users of %s stay as they were: %s", self._name, cause)

    def _read(self) -> Table:
        with open(self._name, "rb") as file:
            return parse(self._name, file.read())

    def _signature(self) -> Signature:
        found = os.stat(self._name)
        return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
