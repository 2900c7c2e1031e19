"""From the settings and what the machine allows to what one worker's clients may hold."""

import resource

from proxy.config import Settings
from proxy.http.connection import Limits
from proxy.http.front import descriptors, places


def raise_descriptors(settings: Settings) -> str:
    """Every file this process and its children may open; what does not fit all the same, in a line, or ""."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # systemd starts services with 1024
    server = settings.server
    wanted, fits = places(server.max_connections, server.workers), _fitting(settings)
    if fits == wanted:
        return ""
    return (
        f"server.max_connections {server.max_connections} needs {descriptors(wanted)} open files a worker, the limit is"
        f" {most}: {fits * server.workers} connections are kept; raise LimitNOFILE= or ulimit -Hn"
    )


def of(settings: Settings) -> Limits:
    """What each worker allows."""
    server = settings.server
    return Limits(
        connections=_fitting(settings),
        idle=server.idle_timeout,
        header=server.header_timeout,
        body=server.body_timeout,
        write=server.write_timeout,
        head=server.max_header_size,
    )


def _fitting(settings: Settings) -> int:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = places(settings.server.max_connections, settings.server.workers)
    if most == resource.RLIM_INFINITY or descriptors(wanted) <= most:
        return wanted
    return max(1, wanted - (descriptors(wanted) - most + 1) // 2)
