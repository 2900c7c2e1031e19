"""Whether a name and a password belong together, at a price that guessing, flooding and honest pulls can all live with.

bcrypt takes 50 to 100 ms of a core on purpose. So: in threads of its own, never the store's; few at a time, and one
for each client's address, so that whoever floods waits in a line of their own; what was right is remembered for some
minutes, because a pull is hundreds of requests; what was wrong is never remembered. A name that does not exist costs
the same check as one that does.
"""

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from proxy.config import ConfigError
from proxy.errors import Unavailable
from proxy.http.htpasswd import Table, UsersFile

AT_ONCE = 2
LINE = 32
"""Checks that may wait for one address."""
ALL_LINES = 512
MEMORY = 300.0
"""Seconds a right password is remembered."""
REMEMBERED = 1024
LOOK = 1.0
"""Seconds between looks at the file."""
_LONGEST = 72  # bcrypt reads no further, so what htpasswd hashed was not longer either

Check = Callable[[bytes, bytes], bool]
"""A password, a hash: whether they belong together. Blocks."""


def bcrypt_check() -> Check:
    """The library's check, loaded only where there is a users file. Raises ConfigError when it is not installed."""
    try:
        import bcrypt
    except ImportError:
        raise ConfigError("auth.users_file needs bcrypt; install it with: pip install 'tidegate[htpasswd]'") from None
    return bcrypt.checkpw


class Passwords:
    """The users file and what has been proved by it. One a worker, used from its loop."""

    def __init__(self, name: str, check: Check | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`name` of the file. Blocks; raises ConfigError."""
        self._check = check or bcrypt_check()
        self._clock = clock
        self._file = UsersFile(name)
        self._proved = _Proved(self._file.table)
        self._looked = clock()
        self._lines = _Lines()
        self._key = os.urandom(32)
        self._threads = ThreadPoolExecutor(AT_ONCE + 1, "passwords")  # one more, for looks at the file

    def close(self) -> None:
        """Checks under way end in their threads; those that wait are dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def belong(self, user: str, password: str, address: str) -> bool:
        """Whether this is a user's password. `address`: whose line to wait in. Raises Unavailable."""
        await self._look()
        proof = self._proof(user, password)
        if self._proved.holds(proof, self._clock()):
            return True
        async with self._lines.turn(address):
            # Its parallel requests arrive together, and the first of them has proved it meanwhile.
            return self._proved.holds(proof, self._clock()) or await self._prove(user, password, proof)

    async def _prove(self, user: str, password: str, proof: bytes) -> bool:
        proved = self._proved
        hashed = proved.table.hashes.get(user)
        cost = hashed or self._stand_in(user, proved.table)
        secret = password.encode()[:_LONGEST]
        right = await asyncio.get_running_loop().run_in_executor(self._threads, self._check, secret, cost)
        if not right or hashed is None:
            return False
        proved.add(proof, self._clock() + MEMORY)  # of no use to anybody when the file has changed meanwhile
        return True

    def _stand_in(self, user: str, table: Table) -> bytes:
        """Some user's hash, always the same one for a name: costs differ among users, and so they do among these."""
        hashes = list(table.hashes.values())
        return hashes[int.from_bytes(self._digest(user.encode()), "big") % len(hashes)]

    def _proof(self, user: str, password: str) -> bytes:
        name = user.encode()
        return self._digest(len(name).to_bytes(4, "big") + name + password.encode())

    def _digest(self, content: bytes) -> bytes:
        """Keyed, by a key that never leaves this process: worth nothing outside it."""
        return hashlib.blake2b(content, key=self._key, digest_size=32).digest()

    async def _look(self) -> None:
        if self._clock() - self._looked < LOOK:
            return
        self._looked = self._clock()
        table = await asyncio.get_running_loop().run_in_executor(self._threads, self._file.look)
        if table is not self._proved.table:
            self._proved = _Proved(table)


class _Proved:
    """What was right by one reading of the file: proofs and when they end, the oldest first."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def holds(self, proof: bytes, now: float) -> bool:
        return now < self._until.get(proof, 0.0)

    def add(self, proof: bytes, until: float) -> None:
        self._until[proof] = until
        self._until.move_to_end(proof)
        if len(self._until) > REMEMBERED:
            self._until.popitem(last=False)


@dataclass(slots=True)
class _Line:
    """Who waits for one address."""

    count: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class _Lines:
    """Turns: few at a time, one an address, each address in the order they came."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)
        self._lines: dict[str, _Line] = {}
        self._count = 0

    @asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Raises Unavailable when too many wait already."""
        line = self._lines.setdefault(address, _Line())
        if line.count >= LINE or self._count >= ALL_LINES:
            self._leave(address, line, 0)
            raise Unavailable("too many passwords are being checked", label="refused")
        line.count, self._count = line.count + 1, self._count + 1
        try:
            async with line.lock, self._free:
                yield
        finally:
            self._leave(address, line, 1)

    def _leave(self, address: str, line: _Line, places: int) -> None:
        line.count, self._count = line.count - places, self._count - places
        if not line.count:
            del self._lines[address]
