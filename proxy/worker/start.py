"""From settings to a running supervisor: folder, lock, sockets, metrics folder, the first lines, then the loop.

The order is the point: the lock comes before anything is removed or replaced in the data folder, the listening
socket before anything expensive, and everything before the first fork.
"""

import glob
import importlib
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from proxy import __version__
from proxy.config import Settings, Upstream, format_size, parse_listen
from proxy.config.values import hide_password
from proxy.errors import StartError
from proxy.store import lock
from proxy.worker import child, machine, sockets
from proxy.worker.reload import Reload
from proxy.worker.supervisor import Crew, Supervisor

LEAVING = 5.0  # how long workers that lost their supervisor may take to notice


Load = Callable[[], Settings]
"""The settings read anew, for a reload. Raises ConfigError."""


def serve(settings: Settings, load: Load, compose_module: str = "proxy.compose") -> int:
    """Serve until a signal; returns the exit status. Raises StartError, its text one line that says what to do."""
    data = settings.server.data
    _make_folder(data)
    try:
        return _serve(settings, load, _take(data), compose_module)
    except OSError as error:
        raise StartError(f"{data} cannot be used: {error.strerror or error}; use --data DIR or make room") from error


def _serve(asked: Settings, load: Load, held: lock.Hold, compose_module: str) -> int:
    """Under the data folder's lock, which is given back. Raises StartError, OSError."""
    data = asked.server.data
    try:
        listener = sockets.inherited()
        origin = asked.origins["server.listen"] if listener is None else "LISTEN_FDS"
        listener = listener or sockets.public(asked.server.listen)
        listening = {"public": listener}
        settings = _listening(asked, sockets.address(listener), origin)
        if settings.admin.listen:
            listening["desk"] = sockets.public(settings.admin.listen, "[admin] listen = ")
            settings = replace(settings, admin=replace(settings.admin, listen=sockets.address(listening["desk"])))
        listening["admin"] = sockets.admin(data)
        try:
            return _supervise(asked, settings, load, listening, compose_module)
        finally:
            sockets.remove_admin(data)
    finally:
        held.release()


def _supervise(
    asked: Settings, settings: Settings, load: Load, listening: Mapping[str, socket.socket], compose_module: str
) -> int:
    metrics = _metrics_folder(settings.server.data)
    compose: Any = importlib.import_module(compose_module)  # late: see child.run
    compose.prepare(settings)
    sys.stdout.write(banner(settings))
    sys.stdout.flush()
    lifeline, life = os.pipe()

    def crew(settings: Settings) -> Crew:
        def work(slot: int, ready: Callable[[], None]) -> None:
            os.close(life)
            child.run(settings, child.Place(slot, listening, lifeline, ready), compose_module)

        return Crew(settings.server.workers, settings.server.drain, work)

    def draining() -> str:
        count = _connections(listening["public"])
        for listener in listening.values():
            listener.close()
        return f"{count} connection{'' if count == 1 else 's'}"

    reload = Reload(asked, settings, load, compose, crew)
    status = Supervisor(crew(settings), _forget_gauges(metrics), compose.replaced, reload).run(draining)
    if status == 0:
        compose.finish(settings)
    return status


def _connections(listener: socket.socket) -> int:
    name = listener.getsockname()
    return machine.connections(name[1]) if isinstance(name, tuple) else 0


def _listening(settings: Settings, address: str, origin: str) -> Settings:
    """The settings with the address we really have: the port may have been 0, the socket somebody else's."""
    origins = {**settings.origins, "server.listen": origin}
    return replace(settings, server=replace(settings.server, listen=address), origins=origins)


def _make_folder(data: str) -> None:
    try:
        os.makedirs(data, 0o750, exist_ok=True)  # the group may reach the admin socket, others see nothing
        os.makedirs(os.path.join(data, "run"), 0o700, exist_ok=True)
        os.close(os.open(os.path.join(data, "run", "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StartError(f"cannot write to {data}: {error.strerror}; use --data DIR or make it writable") from None


def _take(data: str) -> lock.Hold:
    """The data folder's lock with our pid in it; raises StartError when somebody else has it.

    Workers whose supervisor was killed hold it for another moment: when its pid is gone, that is waited for.
    """
    path = os.path.join(data, "run", "lock")
    deadline = time.monotonic() + LEAVING
    while (held := lock.hold(path)) is None:
        with open(path, encoding="ascii") as file:
            pid = file.read().strip()
        if not pid.isdigit() or machine.alive(int(pid)):
            raise StartError(f"{data} is in use{pid and f' by pid {pid}'}; stop it or use --data DIR")
        if time.monotonic() > deadline:
            raise StartError(f"{data} is in use by workers that pid {pid} left behind; stop them or use --data DIR")
        time.sleep(0.05)
    with open(path, "w", encoding="ascii") as file:
        file.write(str(os.getpid()))
    return held


def _metrics_folder(data: str) -> str:
    """Empty, and named in the environment for prometheus_client, which looks there when it is imported. The last run's
    is laid aside until what it counted is in the daily totals; `run` in it tells one run from another."""
    folder = os.path.join(data, "run", "metrics")
    if os.path.isdir(folder) and not os.path.isdir(f"{folder}.last"):
        os.rename(folder, f"{folder}.last")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, 0o700, exist_ok=True)
    with open(os.path.join(folder, "run"), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(8))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    return folder


def _forget_gauges(folder: str) -> Callable[[int], None]:
    """Before a slot is used again its gauges go: a killed worker's would live on beside its successor's."""

    def forget(slot: int) -> None:
        for path in glob.glob(os.path.join(glob.escape(folder), f"gauge_*_{slot}.db")):
            os.unlink(path)

    return forget


def banner(settings: Settings) -> str:
    """The first lines: what runs from where, who can reach it, where it asks, what to do next."""
    server = settings.server
    kind, free = machine.file_system(server.data), shutil.disk_usage(server.data).free
    local = "   WARNING: not a local disk: its locks cannot be trusted" if machine.is_remote(kind) else ""
    disk = ", ".join(filter(None, (kind, f"{format_size(free)} free")))
    workers = f"{server.workers} worker{'' if server.workers == 1 else 's'}"
    return "\n".join(
        (
            f"tidegate {__version__}   config {settings.file or 'none'}   data {server.data} ({disk}){local}",
            f"serving  {settings.tls.scheme}://{server.listen}, {workers}{_warning(settings)}",
            *([f"admin    {settings.tls.scheme}://{settings.admin.listen}"] if settings.admin.listen else []),
            *(_upstream_line(settings, upstream) for upstream in settings.upstreams.values()),
            " | ".join(("next     tidegate doctor", "tidegate client-config containerd", *_page(settings))) + "\n",
        )
    )


def _page(settings: Settings) -> list[str]:
    """The status page's URL, where one reaches it by TCP."""
    listen = settings.admin.listen or settings.server.listen
    if listen.startswith("/"):
        return []
    known = "" if settings.admin.listen else settings.server.url.rstrip("/")
    return [f"{known or f'{settings.tls.scheme}://{listen}'}/"]


def _warning(settings: Settings) -> str:
    listen = settings.server.listen
    host = "" if listen.startswith("/") else parse_listen(listen)[0]
    if settings.tls.cert_file or not host or host == "::1" or host.startswith("127."):
        return ""
    return "   WARNING: plain HTTP: anyone on the path can change what tags mean"


def _upstream_line(settings: Settings, upstream: Upstream) -> str:
    also = f" (also {', '.join(upstream.aliases)})" if upstream.aliases else ""
    origins, egress = settings.origins, upstream.egress
    line = f"upstream {upstream.name}{also}"
    if egress.proxy:
        origin = origins.get(f"upstreams.{upstream.name}.proxy", origins["egress.proxy"])
        line += f"   out through {hide_password(egress.proxy)} ({origin})"
    return f"{line}, CA + {egress.ca_file}" if egress.ca_file else line
