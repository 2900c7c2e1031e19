"""The sockets the supervisor opens before it forks: the one clients use, the admin socket in the data folder, and
where `[admin] listen` is set a port for operators.

Every failure becomes a StartError that says what to do, because these are the first mistakes anybody makes.
"""

import errno
import os
import socket

from proxy.config import parse_listen
from proxy.errors import StartError
from proxy.worker import machine

BACKLOG = 1024
_INHERITED = 3


def inherited() -> socket.socket | None:
    """The service manager's socket (sd_listen_fds(3)), or None; its variables are taken away from our children.

    Raises StartError when what was passed is not one listening stream socket.
    """
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not count or pid != str(os.getpid()):
        return None
    if count != "1":
        raise StartError(f"the service manager passed {count} sockets; pass one: a single ListenStream=")
    try:
        listener = socket.socket(fileno=_INHERITED)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listening = 0
    if not listening:
        raise StartError("the service manager passed something that does not listen; use ListenStream=HOST:PORT")
    listener.set_inheritable(False)
    listener.setblocking(False)
    return listener


def public(listen: str, setting: str = "--listen ") -> socket.socket:
    """A new listening socket; raises StartError, which says what to write after `setting`."""
    host, port = parse_listen(listen)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        both = family == socket.AF_INET6 and address[0] == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except socket.gaierror as error:
        raise StartError(f"cannot listen on {listen}: {host}: {error.strerror}; use an address") from None
    except OSError as error:
        raise StartError(_refused(listen, host, port, error, setting)) from None
    listener.setblocking(False)
    return listener


def _refused(listen: str, host: str, port: int, error: OSError, setting: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    match error.errno:
        case errno.EADDRINUSE:
            by = machine.port_holder(port)
            other = port + 1 if port < 65535 else 5000
            return f"port {port} is taken{by and f' by {by}'}; use {setting}{shown}:{other}"
        case errno.EACCES:
            return f"port {port} needs more rights than we have; use {setting}{shown}:5000"
        case errno.EADDRNOTAVAIL:
            return f"{host} is no address of this machine; use {setting}0.0.0.0:{port}"
        case _:
            return f"cannot listen on {listen}: {error.strerror}"


def address(listener: socket.socket) -> str:
    """HOST:PORT of a listening socket, or the path of a Unix one."""
    name = listener.getsockname()
    if not isinstance(name, tuple):
        return str(name)
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def admin(data: str) -> socket.socket:
    """`<data>/admin.sock`, mode 0660; one left by an earlier life is replaced (whoever calls holds the data lock)."""
    folder = os.open(data, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o117)  # at bind and not after it, or the socket is open to all for a moment
    try:
        remove_admin(data)
        # sun_path holds 107 bytes and data folders are longer than that; through the descriptor it is always short.
        listener.bind(f"/proc/self/fd/{folder}/admin.sock")
    except OSError as error:
        listener.close()
        raise StartError(f"cannot open {data}/admin.sock: {error.strerror}; use --data DIR") from None
    finally:
        os.umask(mask)
        os.close(folder)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def remove_admin(data: str) -> None:
    """Take the admin socket's name away; commands then say that nobody is running."""
    try:
        os.unlink(os.path.join(data, "admin.sock"))
    except FileNotFoundError:
        return
