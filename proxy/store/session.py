"""What stands beside an upload's bytes: whose it is, what it is hashed with, and how far that has come.

The last is what lets any worker go on where another stopped. It counts for as long as the machine runs: after a power
cut bytes that were hashed may be zeros on the disk, so whoever goes on then reads all of them.

    <id>.session             JSON: repository, algorithm; boot, upto, state once there was something worth handing on
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from proxy.store.hashing import Hasher, Resumable, resumed

_WORTH = 4 << 20
"""Bytes from which handing on pays: fewer are hashed (3 ms) sooner than the note is written and read again."""
_BLANK: dict[str, Any] = {"repository": "", "algorithm": "sha256", "boot": "", "upto": 0, "state": ""}


@dataclass(slots=True)
class Hashed:
    """How far an upload has been hashed."""

    hasher: Hasher
    upto: int


@dataclass(frozen=True, slots=True)
class Session:
    """One file of this kind."""

    repository: str
    algorithm: str
    boot: str = ""
    upto: int = 0
    state: str = ""

    def hashed(self) -> Hashed | None:
        """What an earlier writer handed on, if it can be taken up here and now."""
        if not self.upto or self.boot != _boot():
            return None
        try:
            found = resumed(self.algorithm, bytes.fromhex(self.state))
        except ValueError:
            return None
        return Hashed(found, self.upto) if found else None


def create(path: str, repository: str, algorithm: str) -> None:
    """Raises OSError, FileExistsError too."""
    with open(path, "x", encoding="utf-8") as file:
        json.dump({"repository": repository, "algorithm": algorithm}, file)


def read(path: str) -> Session:
    """Raises OSError; ValueError where it is no such file."""
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    if not isinstance(found, dict):
        raise ValueError("not a session")
    whole = _BLANK | found
    if whole.keys() != _BLANK.keys() or any(type(whole[name]) is not type(blank) for name, blank in _BLANK.items()):
        raise ValueError("not a session")
    return Session(**whole)


def hand_on(path: str, session: Session, hashed: Hashed) -> None:
    """Whoever goes on need not hash this again; where that cannot be written, it must. The caller holds the upload's
    lock. Raises nothing."""
    if hashed.upto < session.upto + _WORTH or not isinstance(hashed.hasher, Resumable):
        return
    note = replace(session, boot=_boot(), upto=hashed.upto, state=hashed.hasher.state().hex())
    with contextlib.suppress(OSError):
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(asdict(note), file)
        os.replace(f"{path}.new", path)


def _boot() -> str:
    """Which life of this machine it is; empty where nobody says."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return ""
