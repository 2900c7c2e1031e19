"""The data folder: where it lies, whether it can be written to, how much fits. Blocks."""

import os
import tempfile

from proxy.config import format_size
from proxy.doctor.limits import Limits
from proxy.doctor.report import Problem

_SHARED = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.glusterfs",
                     "lustre", "fuse.sshfs", "fuse.s3fs", "fuse.rclone", "gfs2", "ocfs2"})  # fmt: skip
_MOUNTS = "/proc/self/mountinfo"


def check(data: str, limits: Limits, mounts: str = _MOUNTS) -> str:
    """What there is to say of the folder. Raises Problem."""
    with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
        kind = filesystem(os.path.realpath(data), file.read())
    if kind in _SHARED:
        raise Problem(
            "data",
            f"{data} lies on {kind}, a network file system: locks and shared memory are not safe there",
            fix="put [server] data on a disk of this machine",
        )
    existing = _nearest(data)
    _write(data, existing)
    found = os.statvfs(existing)
    free = found.f_bavail * found.f_frsize
    if free < limits.free:
        raise Problem(
            "data",
            f"{data}: only {format_size(free)} are free",
            nodes_see="no space left on device",
            fix="free some, or put [server] data on a larger disk",
        )
    return f"{data}, {kind}, {format_size(free)} free" + ("" if existing == data else ", not made yet")


def _nearest(path: str) -> str:
    """The folder itself, or the one it would be made in."""
    while not os.path.exists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _write(data: str, existing: str) -> None:
    try:
        if existing == data:
            with tempfile.NamedTemporaryFile(dir=data, prefix=".doctor-") as file:
                file.write(b"x" * 4096)
                file.flush()
                os.fsync(file.fileno())
        elif not os.path.isdir(existing):
            raise NotADirectoryError(20, "Not a directory")
        elif not os.access(existing, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise Problem(
            "data",
            f"{data} cannot be written to: {error.strerror}",
            fix="run as its owner, or use --data with a folder of your own",
        ) from None


def filesystem(path: str, mountinfo: str) -> str:
    """The type of the file system a path lies on, out of what proc(5) calls mountinfo; "unknown" when it is not there.

    Of mounts on one point the last one is the visible one.
    """
    best, kind = "", "unknown"
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split(" ")[0]
    return kind
