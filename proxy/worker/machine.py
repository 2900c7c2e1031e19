"""What /proc tells of this machine, for messages only: who holds a port, how many are connected, what a folder is on.

Nothing here may fail: where /proc cannot be read the message is shorter.
"""

import os
from collections.abc import Iterator

_ESTABLISHED, _LISTEN = "01", "0A"
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "fuse.sshfs", "fuse.glusterfs"})


def _sockets(state: str, port: int) -> Iterator[str]:
    """The inodes of this network namespace's TCP sockets with that state and local port."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        yield from (row[9] for row in rows if row[3] == state and int(row[1].rpartition(":")[2], 16) == port)


def connections(port: int) -> int:
    """Established connections to a local port."""
    return sum(1 for _ in _sockets(_ESTABLISHED, port))


def port_holder(port: int) -> str:
    """ "pid 812 (docker-proxy)" for whoever listens on the port, as far as we may see it, else ""."""
    wanted = {f"socket:[{inode}]" for inode in _sockets(_LISTEN, port)}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if wanted & set(_links(f"/proc/{pid}/fd")):
            return f"pid {pid}{_name(pid)}"
    return ""


def _links(folder: str) -> Iterator[str]:
    try:
        for entry in os.listdir(folder):
            yield os.readlink(f"{folder}/{entry}")
    except OSError:
        return  # not ours to look into, or gone meanwhile


def _name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f" ({file.read().strip()})"
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether a process of that number exists and has not ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def file_system(folder: str) -> str:
    """The type of the file system a folder is on, such as "ext4", or "" where that cannot be told."""
    device = os.stat(folder).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            rows = [line.split() for line in file]
    except OSError:
        return ""
    return next((row[row.index("-") + 1] for row in rows if row[2] == wanted), "")


def is_remote(kind: str) -> bool:
    """Whether locks and shared memory of other machines' processes are out of the kernel's sight there."""
    return kind in _REMOTE
