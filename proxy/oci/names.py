"""Names: repositories, tags, and what may stand behind /manifests/.

OCI distribution-spec, "Pulling manifests": the two regular expressions are the specification's.
"""

import re
from typing import Self

from proxy.errors import NameInvalid
from proxy.oci.digest import Digest

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPO = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?\Z")
REPO_LIMIT = 255


class Repo(str):
    """A repository name inside one registry, such as `sig-storage/csi-provisioner`."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises NameInvalid."""
        if len(text) > REPO_LIMIT or not _REPO.match(text):
            raise NameInvalid(f"{text[:80]!r} is not a repository name")
        return cls(text)


class Tag(str):
    """A tag; case matters."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises NameInvalid."""
        if not _TAG.match(text):
            raise NameInvalid(f"{text[:80]!r} is not a tag")
        return cls(text)


Reference = Tag | Digest


def parse_reference(text: str) -> Reference:
    """A digest where there is a colon, else a tag; raises DigestInvalid, NameInvalid."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def registry_name(text: str) -> str:
    """A registry's host[:port] in its one spelling: lower case, without a default port.

    Raises NameInvalid when it is not a host.
    """
    host = text.lower()
    if not _HOST.match(host):
        raise NameInvalid(f"{text[:80]!r} is not a registry's host name")
    return host.removesuffix(":443").removesuffix(":80")


def looks_like_host(segment: str) -> bool:
    """Whether a first path segment names a registry: a dot, a port, or `localhost` (the rule every client uses)."""
    return "." in segment or ":" in segment or segment == "localhost"
