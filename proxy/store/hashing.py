"""Hashers whose state can be put down and taken up by another process, so that an upload that changes workers is not
hashed again from its first byte.

Python's own cannot do that. OpenSSL's SHA256_CTX and SHA512_CTX are structures that its header <openssl/sha.h> lays
open, and a copy of one is the whole state; they are reached through the library that Python's hashlib is linked with.
Measured: as fast as hashlib (0.6 s a GB), and like it without the GIL, which the `rehashes` of PyPI holds. Where Python
has OpenSSL inside itself, or a later OpenSSL has dropped these functions (deprecated since 3.0, SHA256_Init(3)),
hashlib's own takes their place and nothing is handed on.
"""

import _hashlib
import functools
import hashlib
from typing import Any, Protocol

try:
    import ctypes
except (ImportError, MemoryError):  # Python without libffi; a system that forbids what libffi does
    ctypes: Any = None  # type: ignore[no-redef]

_STATE = {"sha256": 112, "sha512": 216}
"""Bytes of the structures."""
_ROOM = 512


class Hasher(Protocol):
    """What of hashlib's objects is used here."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Resumable:
    """A sha256 or sha512. One thread at a time."""

    __slots__ = ("_algorithm", "_context", "_library")

    def __init__(self, library: "ctypes.CDLL", algorithm: str, state: bytes | None = None) -> None:
        self._library, self._algorithm = library, algorithm
        self._context = ctypes.create_string_buffer(_ROOM)
        if state is None:
            self._call("Init", self._context)
        else:
            ctypes.memmove(self._context, state, len(state))

    def update(self, data: bytes, /) -> None:
        self._call("Update", self._context, data, ctypes.c_size_t(len(data)))

    def hexdigest(self) -> str:
        """Of what has come so far; more may follow."""
        digest = ctypes.create_string_buffer(hashlib.new(self._algorithm).digest_size)
        self._call("Final", digest, ctypes.create_string_buffer(self._context.raw, _ROOM))
        return digest.raw.hex()

    def state(self) -> bytes:
        """What `resumed` takes to go on from here, in any process of this machine."""
        return self._context.raw[: _STATE[self._algorithm]]

    def _call(self, what: str, *arguments: object) -> None:
        getattr(self._library, f"{self._algorithm.upper()}_{what}")(*arguments)


def fresh(algorithm: str) -> Hasher:
    """A hasher that has seen nothing."""
    library = _library()
    return Resumable(library, algorithm) if library else hashlib.new(algorithm)


def resumed(algorithm: str, state: bytes) -> Hasher | None:
    """A hasher where `state` was taken; None where that cannot be."""
    library = _library()
    return Resumable(library, algorithm, state) if library and len(state) == _STATE[algorithm] else None


@functools.cache
def _library() -> "ctypes.CDLL | None":
    """The functions, where they are to be had and do what they should."""
    try:
        library = ctypes.CDLL(_hashlib.__file__)
        return library if all(_carries(library, algorithm) for algorithm in _STATE) else None
    except (AttributeError, OSError, MemoryError):  # AttributeError: no such function, or no ctypes
        return None


def _carries(library: "ctypes.CDLL", algorithm: str) -> bool:
    """Whether a state taken in the middle of a block goes on to the digest that hashlib finds."""
    first = Resumable(library, algorithm)
    first.update(b"first" * 100)
    second = Resumable(library, algorithm, first.state())
    second.update(b"second" * 100)
    return second.hexdigest() == hashlib.new(algorithm, b"first" * 100 + b"second" * 100).hexdigest()
