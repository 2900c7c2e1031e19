"""What this process holds open, and what of it a test left behind. The rule itself is a fixture in conftest.py."""

import contextlib
import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Descriptor:
    """A number and what it stands for, as /proc tells it: a reused number with another target is another descriptor."""

    number: int
    target: str


def opened() -> set[Descriptor]:
    """Everything open now, devices left out."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of this very listing
            found.add(Descriptor(int(number), os.readlink(f"/proc/self/fd/{number}")))
    return {each for each in found if not each.target.startswith("/dev/")}


def left_since(before: set[Descriptor]) -> list[Descriptor]:
    """What was opened since and belongs to nobody.

    A connection accepted by a server that still listens in this process belongs to that server: it outlives the test
    when its client does, such as another process that a whole module shares.
    """
    now = opened()
    listening = {port for each in now for port, listens in _tcp(each) if listens}
    return sorted(
        each for each in now - before if not any(port in listening and not listens for port, listens in _tcp(each))
    )


def _tcp(descriptor: Descriptor) -> list[tuple[int, bool]]:
    """Local port and whether it listens; empty when this is no IPv4 socket, or closed meanwhile."""
    if not descriptor.target.startswith("socket:"):
        return []
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor.number)) as copy:
        if copy.family == socket.AF_INET:
            return [(copy.getsockname()[1], bool(copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)))]
    return []
