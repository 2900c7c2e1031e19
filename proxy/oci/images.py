"""Images as people write them, NAME[:TAG][@DIGEST], and lists of them as other programs print them.

What a name means here, and which registry answers for it, is not decided here: this is spelling alone.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

from proxy.errors import DigestInvalid, NameInvalid
from proxy.oci.digest import Digest
from proxy.oci.names import Reference, Repo, Tag, looks_like_host, registry_name

_BARE_ID = re.compile(r"sha(?:256|512)(?::[0-9a-f]+)?\Z")
_RATIO = re.compile(r"\d+/\d+\Z")  # kubectl's READY column
_HEADING = re.compile(r"[A-Z() /_-]+\Z")
_BETWEEN = re.compile(r"[\s,]+")
_AROUND = "\"'[]{}()"


@dataclass(frozen=True, slots=True)
class ImageName:
    """`name` may begin with a registry; neither tag nor digest means the tag `latest`."""

    name: str
    tag: Tag | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises NameInvalid, DigestInvalid."""
        name, at, digest = text.partition("@")
        bare, colon, tag = name.rpartition(":")
        tagged = bool(colon) and "/" not in tag
        name = bare if tagged else name
        first, slash, rest = name.partition("/")
        if _BARE_ID.match(name) or not name:
            raise NameInvalid(f"{text[:80]!r} is not the name of an image")
        if slash and looks_like_host(first):
            registry_name(first)
            Repo.parse(rest)
        else:
            Repo.parse(name)
        return cls(name, Tag.parse(tag) if tagged else None, Digest.parse(digest) if at else None)

    @property
    def reference(self) -> Reference:
        """What to ask a registry for: a digest says more than a tag."""
        return self.digest or self.tag or Tag("latest")

    @property
    def exact(self) -> bool:
        """Whether one image is meant, not a whole repository."""
        return self.tag is not None or self.digest is not None

    @property
    def suffix(self) -> str:
        """All that follows the name."""
        tag = self.tag or (None if self.digest else Tag("latest"))
        return (f":{tag}" if tag else "") + (f"@{self.digest}" if self.digest else "")


def images_in(text: str) -> list[str]:
    """The images of a list: one a line, the columns of a table, or JSON; each once, in order.

    From a table every word is taken that has a tag, a digest or a slash and is an image's name; blank lines, comments
    and headings are passed over. Raises NameInvalid for a line that holds none.
    """
    found = _from_json(text) if text.lstrip()[:1] in ("{", "[") else _from_lines(text)
    return list(dict.fromkeys(found))


def _from_lines(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("#")[0].strip()
        if not said or _HEADING.match(said):
            continue
        names = [word for word in (part.strip(_AROUND) for part in _BETWEEN.split(said)) if _names_image(word)]
        if not names:
            hint = "a table without images: use kubectl ... -o json" if " " in said else "write its tag too"
            raise NameInvalid(f"line {number} names no image: {said[:80]!r}; {hint}")
        yield from names


def _names_image(word: str) -> bool:
    if not any(sign in word for sign in ":/@") or _RATIO.match(word):
        return False
    try:
        ImageName.parse(word)
    except (NameInvalid, DigestInvalid):
        return False
    return True


def _from_json(text: str) -> list[str]:
    try:
        found = list(_values(json.loads(text), listed=True))
    except (ValueError, RecursionError) as error:
        raise NameInvalid(f"the list begins like JSON and is none: {error}") from None
    if not found:
        raise NameInvalid("the JSON names no image: there is no field image or images in it")
    return found


def _values(value: Any, listed: bool = False) -> Iterator[str]:
    """Strings in fields called image or images, at any depth; `listed`: strings themselves count."""
    match value:
        case str() if listed and _names_image(value):
            yield value
        case list():
            for each in value:
                yield from _values(each, listed)
        case dict():
            for key, each in value.items():
                yield from _values(each, key in ("image", "images"))
