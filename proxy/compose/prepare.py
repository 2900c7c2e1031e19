"""What is done once, before any worker runs: a fresh board, usable databases, a name for this run."""

import contextlib
import logging
import os
import secrets
import time

from proxy import metrics
from proxy.care import census
from proxy.compose import limits, pushed
from proxy.compose.log import set_up_log
from proxy.config import Settings
from proxy.errors import StartError
from proxy.http import tls, tokens
from proxy.http.auth import Access
from proxy.store import index
from proxy.store.board import Board
from proxy.store.files import sync_folder
from proxy.store.links import Links
from proxy.store.parts import Parts
from proxy.upstream.egress import tls_context

PUSHED_FORMAT = 1
"""Of blobs and links below local/. It does not change within a major version."""
_log = logging.getLogger("tidegate")


def prepare(settings: Settings) -> None:
    """Once, before any worker: a fresh board, a usable index, our name. Raises StartError."""
    data = settings.server.data
    check(settings)
    short = limits.raise_descriptors(settings)
    try:
        board = Board(os.path.join(data, "run", "board"))
        board.reset(time.time_ns())
        pushed.count(settings, board)
        board.close()
        Parts(os.path.join(data, "ingest")).settle()
        complaints = [index.prepare(os.path.join(data, "index")), census.prepare(data)]
        with open(os.path.join(data, "run", "instance"), "w", encoding="ascii") as file:
            file.write(f"tidegate-{secrets.token_hex(4)}")
    except OSError as error:
        raise StartError(
            f"{data} cannot be used: {error.strerror or error}; use --data with a folder of your own"
        ) from error
    for complaint in filter(None, (short, *complaints)):
        set_up_log(settings.log)
        _log.warning(complaint)


def instance_of(data: str) -> str:
    """The name this tidegate goes by in Via headers: of this run, because a copy of the data is another one. Raises
    OSError."""
    with open(os.path.join(data, "run", "instance"), encoding="ascii") as file:
        return file.read()


def check(settings: Settings) -> None:
    """What settings name is read once before any worker has them: five dying workers would say it less clearly.

    Raises StartError, ConfigError.
    """
    complaint = check_files(settings)
    if complaint:
        set_up_log(settings.log)
        _log.warning(complaint)
    data = settings.server.data
    try:
        if settings.pushing:
            check_format(pushed.folder(settings))
            _make_durable(data)
    except OSError as error:
        raise StartError(f"{data} cannot be used: {error.strerror or error}; use --data DIR") from error


def check_files(settings: Settings) -> str:
    """Every file that settings name, but the data folder: users, token, trust, certificate. What is wrong soon or by
    now and stops nothing, or "". Raises StartError, ConfigError."""
    Access(settings.auth).close()
    if settings.admin.token_file:
        tokens.read(settings.admin.token_file)
    _check_trust(settings)
    return tls.expired(settings.tls, tls.read(settings.tls), time.time()) if settings.tls.cert_file else ""


def replaced() -> None:
    """A worker has died, another takes its place. Counted here: by its files a slot that a reload takes again looks the
    same."""
    metrics.RESTARTS.inc()


def finish(settings: Settings) -> None:
    """Once, after the last worker has ended by itself. Raises OSError."""
    census.stopped(settings.server.data)


def _check_trust(settings: Settings) -> None:
    for upstream in settings.upstreams.values():
        try:
            tls_context(upstream.egress)
        except OSError as error:
            egress, cause = upstream.egress, error.strerror or error
            keys = [name for name in ("ca_file", "cert_file", "key_file") if getattr(egress, name)]
            files = " and ".join(f"{name} {getattr(egress, name)}" for name in keys)
            raise StartError(f"{files}, for {upstream.name}, cannot be used: {cause}; must be PEM") from error


def _make_durable(data: str) -> None:
    """The folders that what is pushed will lie in are on the disk before anything is acknowledged. Raises OSError."""
    local = os.path.join(data, "local")
    for name in ("blobs", "repositories", "uploads"):
        os.makedirs(os.path.join(local, name), mode=0o750, exist_ok=True)
    for folder in (local, data):
        sync_folder(folder)
    with contextlib.suppress(PermissionError):  # a folder that is ours may stand in one that we cannot read
        sync_folder(os.path.dirname(data))


def check_format(folder: str) -> None:
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
