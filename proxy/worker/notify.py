"""What we tell the service manager: sd_notify(3), a datagram to the socket it named. Without one, nothing.

READY comes from the worker that accepts first, because only then is an answer certain: the unit says NotifyAccess=all.
"""

import contextlib
import os
import socket


def notify(*lines: str) -> None:
    """Send state such as "READY=1". A service manager that does not listen stops nobody."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto("\n".join(lines).encode(), f"\0{path[1:]}" if path.startswith("@") else path)
