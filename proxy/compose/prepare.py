"""What is done once, before any worker runs: a fresh board, usable databases, a name for this run."""

import logging
import os
import resource
import secrets
import time

from proxy.care import census
from proxy.compose.log import set_up_log
from proxy.config import Settings
from proxy.errors import StartError
from proxy.http import tokens
from proxy.http.auth import Access
from proxy.store import index
from proxy.store.board import Board
from proxy.store.links import Links
from proxy.store.parts import Parts
from proxy.upstream.egress import tls_context

PUSHED_FORMAT = 1
"""Of blobs and links below local/. It does not change within a major version."""
_log = logging.getLogger("tidegate")


def prepare(settings: Settings) -> None:
    """Once, before any worker: a fresh board, a usable index, our name. Raises StartError."""
    data = settings.server.data
    Access(settings.auth).close()  # a users file that cannot be read is one line here, five dying workers later
    if settings.admin.token_file:
        tokens.read(settings.admin.token_file)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # systemd starts services with 1024
    try:
        board = Board(os.path.join(data, "run", "board"))
        board.reset(time.time_ns())
        board.close()
        Parts(os.path.join(data, "ingest")).settle()
        complaints = [index.prepare(os.path.join(data, "index")), census.prepare(data)]
        with open(os.path.join(data, "run", "instance"), "w", encoding="ascii") as file:
            file.write(f"tidegate-{secrets.token_hex(4)}")
        _check_trust(settings)
        if settings.pushing:
            _check_format(os.path.join(data, "local"))
    except OSError as error:
        raise StartError(
            f"{data} cannot be used: {error.strerror or error}; use --data with a folder of your own"
        ) from error
    for complaint in filter(None, complaints):
        set_up_log(settings.log)
        _log.warning(complaint)


def _check_trust(settings: Settings) -> None:
    """Certificates are read once before any worker exists: five dying workers would say it less clearly."""
    for upstream in settings.upstreams.values():
        try:
            tls_context(upstream.egress)
        except OSError as error:
            egress, cause = upstream.egress, error.strerror or error
            keys = [name for name in ("ca_file", "cert_file", "key_file") if getattr(egress, name)]
            files = " and ".join(f"{name} {getattr(egress, name)}" for name in keys)
            raise StartError(f"{files}, for {upstream.name}, cannot be used: {cause}; must be PEM") from error


def _check_format(folder: str) -> None:
    """What was pushed is nobody else's copy: a format from the future is refused, never set aside. Raises StartError,
    OSError."""
    kept = Links(folder)
    said = kept.get("format")
    if said is None:
        kept.put(f"{PUSHED_FORMAT}\n", "format")
    elif said.strip() != str(PUSHED_FORMAT):
        raise StartError(
            f"{folder} holds pushed content of format {said.strip()[:20]!r}, and this release reads {PUSHED_FORMAT}:"
            " start the release that wrote it; nothing was changed"
        )
