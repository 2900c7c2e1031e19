"""Our own certificate: read, checked, and taken anew when its files change.

What must not live here: sockets and handshakes (worker/). A connection keeps the context it began with; a new pair of
files becomes a new context and never changes one in use, so there is no moment at which a certificate and the key of
another one stand beside each other. Every mistake is one line that names the file and holds nothing of what is in it.
"""

import logging
import os
import ssl
import time
from dataclasses import dataclass

from proxy import metrics
from proxy.config import ConfigError, Tls
from proxy.upstream.der import not_after

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
LOOK = 1.0
"""Seconds between looks at the files."""
_log = logging.getLogger("tidegate.tls")
Signature = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """What new connections are shown, and when its certificate ends, in seconds since 1970."""

    context: ssl.SSLContext
    not_after: float


def read(tls: Tls) -> Identity:
    """The files as they are now. Blocks. Raises ConfigError, one line."""
    certificate = _pem(tls.cert_file, "cert_file", _BEGIN, "certificate")
    key_file, key = tls.key_file or tls.cert_file, "key_file" if tls.key_file else "cert_file"
    if b"ENCRYPTED" in _pem(key_file, key, b"PRIVATE KEY-----", "private key"):
        raise ConfigError(f"tls.{key} {key_file}: the key is encrypted; write it without: openssl pkey -in FILE")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password to call for, OpenSSL asks the terminal for one.
        context.load_cert_chain(tls.cert_file, key_file, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(_unfit(tls, error)) from None
    if tls.client_ca_file:
        _ask_clients(context, tls.client_ca_file)
    return Identity(context, _ends(tls.cert_file, certificate))


def expired(tls: Tls, identity: Identity, now: float) -> str:
    """A sentence when the certificate has ended, else ""."""
    if identity.not_after > now:
        return ""
    when = time.strftime("%Y-%m-%d", time.gmtime(identity.not_after))
    return f"tls.cert_file {tls.cert_file}: the certificate expired on {when}, clients will refuse it"


class Certificates:
    """The identity of one worker, and its files watched."""

    def __init__(self, tls: Tls) -> None:
        """Blocks; raises ConfigError. Without a certificate there is no context, and connections are plain."""
        self._tls = tls
        self._seen = self._taken = self._signature()
        self._identity = read(tls) if tls.cert_file else None
        metrics.CERTIFICATE.set(self._identity.not_after if self._identity else 0)

    def context(self) -> ssl.SSLContext | None:
        """For the next connection; None where it is plain."""
        return self._identity.context if self._identity else None

    def look(self, tell: bool) -> None:
        """Take the files when they have changed and then stayed as they are from one look to the next: certificate and
        key are two files, and who renews them writes one after the other. What is not fit to serve is refused, and the
        old pair goes on. `tell`: say so in the log, which is one worker's part. Blocks. Raises nothing."""
        if self._identity is None:
            return
        seen, self._seen = self._seen, self._signature()
        if self._seen != seen or seen == self._taken:
            return
        self._taken = seen
        try:
            self._identity = read(self._tls)
        except ConfigError as error:
            if tell:
                _log.error("the certificate stays as it was: %s", error)
            return
        metrics.CERTIFICATE.set(self._identity.not_after)
        if tell:
            when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(self._identity.not_after))
            _log.info("new certificate from %s, good until %s", self._tls.cert_file, when)
            if complaint := expired(self._tls, self._identity, time.time()):
                _log.warning(complaint)

    def _signature(self) -> Signature:
        return tuple(map(_state, filter(None, (self._tls.cert_file, self._tls.key_file, self._tls.client_ca_file))))


def _state(name: str) -> tuple[int, ...]:
    try:
        found = os.stat(name)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _pem(name: str, key: str, mark: bytes, what: str) -> bytes:
    """The content of a file that holds such a mark. Raises ConfigError."""
    try:
        with open(name, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ConfigError(f"cannot read tls.{key} {name}: {error.strerror}") from None
    if mark not in content:
        raise ConfigError(f"tls.{key} {name} holds no {what} in PEM (-----BEGIN ...)")
    return content


def _unfit(tls: Tls, error: OSError) -> str:
    if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
        return f"tls.key_file {tls.key_file or tls.cert_file} is not the key of tls.cert_file {tls.cert_file}"
    files = " and ".join(filter(None, (tls.cert_file, tls.key_file)))
    cause = (getattr(error, "reason", "") or "not PEM").replace("_", " ").lower()
    return f"tls: {files} cannot be used: {cause}"


def _ask_clients(context: ssl.SSLContext, name: str) -> None:
    """Let in only who shows a certificate of these authorities. Raises ConfigError."""
    _pem(name, "client_ca_file", _BEGIN, "certificate")
    try:
        context.load_verify_locations(name)
    except (ssl.SSLError, OSError):
        raise ConfigError(f"tls.client_ca_file {name} cannot be used: a certificate in it is damaged") from None
    context.verify_mode = ssl.CERT_REQUIRED


def _ends(name: str, content: bytes) -> float:
    """When the first certificate of a file ends, which is the one we show. Raises ConfigError."""
    start = content.index(_BEGIN)
    text = content[start : content.index(_END, start) + len(_END)].decode("ascii", "replace")
    try:
        return not_after(ssl.PEM_cert_to_DER_cert(text))
    except ValueError:
        raise ConfigError(f"tls.cert_file {name}: the first certificate in it cannot be read") from None
