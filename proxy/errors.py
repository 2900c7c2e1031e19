"""The errors of a registry, one small class each: code, status, message, and what the caller should do next.

Rooms raise these; only http/ turns them into responses, so a status is chosen here and nowhere else. A status tells
the client what to do: 404 means "the registry really said no", 503 means "ask again later", never the reverse,
because containerd remembers a 404 as "there is no such image". Messages end up in the reason phrase of the status
line, the one text a node's event shows (a HEAD has no body), so they must hold no secret and no redirect path.
Codes: OCI distribution-spec, "Error Codes"; UNAVAILABLE and UNKNOWN are CNCF Distribution's.
"""

import json
from typing import ClassVar

REASON_LIMIT = 200


class StartError(Exception):
    """The service cannot start; the text is the one line a person reads."""


class RegistryError(Exception):
    """An answer above 399. `message` is one sentence; `by` the registry it is about, where only who raises it knows."""

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500
    result: ClassVar[str] = "error"

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.by = ""

    def body(self, detail: str = "") -> bytes:
        """The OCI error document; `detail` is what only somebody who reads the body sees."""
        return json.dumps({"errors": [{"code": self.code, "message": self.message, "detail": detail}]}).encode()

    def reason(self) -> str:
        """The reason phrase: printable ASCII, one line, at most 200 characters."""
        text = "".join(c if " " <= c <= "~" else " " for c in f"tidegate: {self.message}")
        return text if len(text) <= REASON_LIMIT else text[: REASON_LIMIT - 3] + "..."


class BlobUnknown(RegistryError):
    code, status, result = "BLOB_UNKNOWN", 404, "not_found"


class ManifestUnknown(RegistryError):
    code, status, result = "MANIFEST_UNKNOWN", 404, "not_found"


class NameUnknown(RegistryError):
    code, status, result = "NAME_UNKNOWN", 404, "not_found"


class NameInvalid(RegistryError):
    code, status = "NAME_INVALID", 400


class DigestInvalid(RegistryError):
    code, status = "DIGEST_INVALID", 400


class RequestInvalid(RegistryError):
    """A query or header that cannot be understood."""

    code, status = "UNSUPPORTED", 400


class NoSuchPath(RegistryError):
    """A path that is no call of the specification."""

    code, status, result = "UNSUPPORTED", 404, "not_found"


class Unsupported(RegistryError):
    """A method that this name does not take (the specification's answer to pushing at a read-only registry)."""

    code, status, result = "UNSUPPORTED", 405, "denied"

    def __init__(self, message: str, allow: str = "GET, HEAD") -> None:
        super().__init__(message)
        self.allow = allow


class Denied(RegistryError):
    code, status, result = "DENIED", 403, "denied"


class LoopDetected(RegistryError):
    code, status = "DENIED", 508


class RangeUnsatisfiable(RegistryError):
    """RFC 9110 section 15.5.17; `size` goes into `Content-Range: bytes */size`."""

    code, status = "RANGE_INVALID", 416

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class Damaged(RegistryError):
    """What was pushed and nobody else has a copy of: it is said, never guessed and never set aside."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is damaged on tidegate's disk; push it again")


class BlobUploadUnknown(RegistryError):
    """No such upload session, or none of this repository."""

    code, status, result = "BLOB_UPLOAD_UNKNOWN", 404, "not_found"


class BlobUploadInvalid(RegistryError):
    """A chunk or a session that cannot be what it says."""

    code, status = "BLOB_UPLOAD_INVALID", 400


class UploadOutOfOrder(RegistryError):
    """A chunk that does not begin where the upload stands (OCI distribution-spec, "Pushing a blob in chunks");
    `size` is where that is."""

    code, status = "BLOB_UPLOAD_INVALID", 416

    def __init__(self, message: str, size: int) -> None:
        super().__init__(message)
        self.size = size


class ManifestInvalid(RegistryError):
    code, status = "MANIFEST_INVALID", 400


class ManifestBlobUnknown(RegistryError):
    """A manifest names content that is not in its repository."""

    code, status = "MANIFEST_BLOB_UNKNOWN", 404


class TimedOut(RegistryError):
    """The client did not go on with what it had begun to send."""

    code, status = "UNKNOWN", 408


class HeadTooLarge(RegistryError):
    """RFC 6585 section 5: request line and headers."""

    code, status = "SIZE_INVALID", 431


class TooLarge(RegistryError):
    code, status = "SIZE_INVALID", 413


class NoSpace(RegistryError):
    """RFC 4918 section 11.5: what is pushed cannot be kept."""

    code, status = "UNAVAILABLE", 507


class Unauthorized(RegistryError):
    """Who are you?"""

    code, status, result = "UNAUTHORIZED", 401, "denied"
    challenge: ClassVar[str] = 'Basic realm="tidegate"'


class TokenNeeded(Unauthorized):
    """RFC 6750: operators have a token, no name and password."""

    challenge = 'Bearer realm="tidegate"'


class LoginNeeded(Unauthorized):
    """The token as a browser asks for it (RFC 7617)."""

    challenge = 'Basic realm="tidegate operators"'


class Unavailable(RegistryError):
    """Nothing to be had now, asking again later may help; never a 404, which clients would believe.

    `label` is the reason as the metrics know it: timeout, connect, tls, dns, status (5xx), answer (any other status
    that was not expected), body, throttled, circuit, refused or other. `pause` is seconds the upstream itself asked to
    be left alone (Retry-After), 0 where it did not.
    """

    code, status = "UNAVAILABLE", 503

    def __init__(self, message: str, *, retry_after: int | None = 5, label: str = "other", pause: int = 0) -> None:
        super().__init__(message, retry_after=retry_after)
        self.label = label
        self.pause = pause


class CannotKeep(Unavailable):
    """The disk cannot take what is being fetched: full, read-only, broken. It may be passed on all the same."""


class BodyBroken(Exception):
    """A body that has started cannot be finished: the connection must be aborted, the sentence goes to the log."""
