"""Digests: what content is called. Parsing, hashing, and the path a digest has under a folder.

OCI image-spec, descriptor.md, "Digests". Registered algorithms only: sha256 and sha512.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from proxy.errors import DigestInvalid

if TYPE_CHECKING:
    from hashlib import _Hash

_SHAPE = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")


@dataclass(frozen=True, slots=True)
class Digest:
    """A verified-in-form digest; equal when the text is equal."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises DigestInvalid unless `text` is a lower-case sha256 or sha512 digest of the right length."""
        if not _SHAPE.match(text):
            raise DigestInvalid(f"{text[:80]!r} is not a sha256 or sha512 digest")
        return cls(text)

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Self:
        """The digest of `content`."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.text[:6]

    @property
    def hex(self) -> str:
        return self.text[7:]

    @property
    def path(self) -> str:
        """Relative path of the finished blob: sha256/ab/<hex>."""
        return f"{self.algorithm}/{self.hex[:2]}/{self.hex}"

    @property
    def short(self) -> str:
        """Enough to recognise it in a log line."""
        return self.text[:19]

    def hasher(self) -> "_Hash":
        """A fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def matches(self, content: bytes) -> bool:
        return hashlib.new(self.algorithm, content).hexdigest() == self.hex

    def __str__(self) -> str:
        return self.text


def is_digest(text: str) -> bool:
    """Whether `parse` takes it."""
    return _SHAPE.match(text) is not None
