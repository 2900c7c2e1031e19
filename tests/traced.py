"""What a real process asked of the disk, from strace, and every state that a power cut can leave of it.

Stricter than tests/power.py, which replays calls of our own store: here a name is on the disk only when its folder was
synced, folders included, and bytes only when their file was. Between two syncs the disk may have kept all, nothing, or
the names of any one folder; bytes that were not synced are there, missing or zeros. A rename is one step: it never
leaves both names, and syncing either folder does it.
"""

import codecs
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.processes import program
from tests.support import until

Tree = Mapping[str, bytes | None]
"""Relative paths and their contents, None for folders."""
CALLS = ("openat", "write", "pwrite64", "pwritev", "pwritev2", "writev", "ftruncate", "sendto", "sendmsg", "rename",
         "unlink", "mkdir", "rmdir", "link", "linkat", "fsync", "fdatasync")  # fmt: skip
_TEXT = r'"((?:[^"\\]|\\.)*)"'
_CALL = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)", re.S)
_UNFINISHED = re.compile(r"(\d+) +(\w+\(.*) <unfinished \.\.\.>$", re.S)
_RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)$", re.S)


@dataclass(frozen=True, slots=True)
class Op:
    """`kind`: write, truncate, make, folder, rename, link, unlink, sync or answer; paths are relative to the root."""

    kind: str
    path: str = ""
    to: str = ""
    data: bytes = b""
    at: int = -1


@contextmanager
def tracing(pid: int, out: Path) -> Iterator[None]:
    """Everything a process asks of the disk and says to its clients, in all its threads, written to `out`."""
    command = [program("strace") or "strace", "-f", "-y", "-s", "1000000", "-e", f"trace={','.join(CALLS)}"]
    tracer = subprocess.Popen([*command, "-o", str(out), "-p", str(pid)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text())
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)


def ops(trace: Path, root: Path) -> list[Op]:
    """What went below `root`, and every answer, in the order in which it was done."""
    found = []
    for name, rest in _calls(trace):
        op = _op(name, rest, str(root))
        if op is not None and not op.path.startswith("..") and not op.to.startswith(".."):
            found.append(op)
    return found


def _calls(trace: Path) -> Iterator[tuple[str, str]]:
    """Name and arguments of every call that succeeded; one that was interrupted stands where it ended."""
    begun: dict[str, str] = {}
    for line in trace.read_text().splitlines():
        if cut := _UNFINISHED.match(line):
            begun[cut[1]] = cut[2]
            continue
        if resumed := _RESUMED.match(line):
            line = f"{resumed[1]} {begun.pop(resumed[1])}{resumed[2]}"
        if (call := _CALL.match(line)) and int(call[4]) >= 0:
            yield call[2], call[3]


def _op(name: str, rest: str, root: str) -> Op | None:
    texts = [codecs.escape_decode(text)[0] for text in re.findall(_TEXT, rest)]
    opened = re.match(r"\d+<([^>]*)>", rest)
    at = opened and os.path.relpath(opened[1], root)
    paths = [os.path.relpath(os.fsdecode(text), root) for text in texts if text.startswith(b"/")]
    match name:
        case "sendto" | "sendmsg" | "write" | "writev" if texts and texts[0].startswith(b"HTTP/1.1 "):
            return Op("answer", data=texts[0][9:12])
        case "sendto" | "sendmsg":
            return None
        case "openat":
            return Op("make", paths[0]) if "O_CREAT" in rest and paths else None
        case "mkdir":
            return Op("folder", paths[0])
        case "rename":
            return Op("rename", paths[0], paths[1])
        case "link" | "linkat":
            return Op("link", "", paths[1], Path(root, paths[0]).read_bytes())
        case "unlink" | "rmdir":
            return Op("unlink", paths[0])
        case "fsync" | "fdatasync":
            return Op("sync", str(at))
        case "ftruncate":
            return Op("truncate", str(at), at=int(rest.rpartition(", ")[2]))
        case "pwrite64":
            return Op("write", str(at), "", texts[0], int(rest.rpartition(", ")[2]))
        case "pwritev" | "pwritev2":
            position = re.search(r"\], \d+, (\d+)", rest)
            assert position is not None, rest[-100:]
            return Op("write", str(at), "", b"".join(texts), int(position[1]))
        case _:
            return Op("write", str(at), "", b"".join(texts))


class File:
    """Bytes as the process sees them, and as they are on the disk."""

    def __init__(self, now: bytes = b"", synced: bytes = b"") -> None:
        self.now, self.synced = now, synced

    def write(self, data: bytes, at: int) -> None:
        at = len(self.now) if at < 0 else at
        self.now = self.now[:at].ljust(at, b"\0") + data + self.now[at + len(data) :]


Entry = File | None
"""None is a folder."""


class Disk:
    """One folder tree, as processes see it (`now`) and as the disk has it (`kept`)."""

    def __init__(self, base: Tree) -> None:
        self.now: dict[str, Entry] = {
            path: None if data is None else File(data, data) for path, data in base.items()
        }  # fmt: skip
        self.kept = dict(self.now)

    def do(self, op: Op) -> None:
        file = self.now.get(op.path)
        match op.kind:
            case "make" if op.path not in self.now:
                self.now[op.path] = File()
            case "folder":
                self.now[op.path] = None
            case "write":
                assert file is not None, op
                file.write(op.data, op.at)
            case "truncate":
                assert file is not None, op
                file.now = file.now[: op.at].ljust(op.at, b"\0")
            case "rename":
                self.now[op.to] = self.now.pop(op.path)
            case "link":
                self.now[op.to] = File(op.data, op.data)
            case "unlink":
                self.now.pop(op.path)
            case "sync" if file is not None:
                file.synced = file.now
            case "sync":
                self.kept = self.with_names({op.path})

    def changed(self) -> set[str]:
        """The names that are not on the disk as processes see them."""
        every = self.now.keys() | self.kept.keys()
        return {path for path in every if self.now.get(path, b"") is not self.kept.get(path, b"")}

    def with_names(self, folders: set[str]) -> dict[str, Entry]:
        """What would be on the disk once the names in these folders were."""
        here = {path: entry for path, entry in self.now.items() if (os.path.dirname(path) or ".") in folders}
        moved = {id(entry) for entry in here.values() if entry is not None}
        rest = {path: entry for path, entry in self.kept.items() if (os.path.dirname(path) or ".") not in folders}
        return {path: entry for path, entry in rest.items() if id(entry) not in moved} | here

    def states(self) -> Iterator[Tree]:
        """Everything that a cut at this moment can leave."""
        dirty = {os.path.dirname(path) or "." for path in self.changed()}
        choices = [set(), dirty, *({folder} for folder in dirty), *(dirty - {folder} for folder in dirty)]
        for folders in choices:
            names = self.with_names(folders)
            for mood in ("kept", "missing", "zeros"):
                yield {path: entry and _data(entry, mood) for path, entry in names.items() if _reached(path, names)}


def _data(file: File, mood: str) -> bytes:
    match mood:
        case "kept":
            return file.now
        case "missing":
            return file.synced
        case _:
            return file.synced[: len(file.now)].ljust(len(file.now), b"\0")


def _reached(path: str, names: Mapping[str, Entry]) -> bool:
    """Whether every folder above it is there too."""
    above = os.path.dirname(path)
    return not above or (above in names and _reached(above, names))


def read_tree(root: Path) -> Tree:
    """A folder as it is."""
    found = {}
    for path in sorted(root.rglob("*")):
        found[str(path.relative_to(root))] = None if path.is_dir() else path.read_bytes()
    return found


def write_tree(root: Path, tree: Tree) -> None:
    """A folder as it was left."""
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir(parents=True, exist_ok=True)
        else:
            (root / path).write_bytes(data)
