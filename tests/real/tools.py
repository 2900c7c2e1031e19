"""The command-line clients: curl and skopeo, run to their end, their output kept."""

import os
import subprocess
import tempfile
from pathlib import Path

from tests.real.processes import program

_NO_PROXY = {**os.environ, "no_proxy": "127.0.0.1,localhost"}


def curl(*args: str, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
    """`curl -sS` with these arguments; standard output stays bytes."""
    command = [program("curl") or "curl", "-sS", *args]
    return subprocess.run(command, capture_output=True, timeout=timeout, env=_NO_PROXY)


def skopeo(*args: str, registries: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """skopeo that trusts every image and reads `registries` as its registries.conf; no file of this machine counts."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "registries.conf")
        config.write_text(registries)
        env = _NO_PROXY | {"HOME": folder, "XDG_RUNTIME_DIR": folder}
        command = [program("skopeo") or "skopeo", "--insecure-policy", "--registries-conf", str(config), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env)


def insecure(host: str) -> str:
    """registries.conf for a registry without TLS."""
    return f'[[registry]]\nlocation = "{host}"\ninsecure = true\n'


def skopeo_copy(ref: str, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Pulls `host:port/name:tag`, all platforms, as files named by digest into `folder`."""
    host = ref.partition("/")[0]
    return skopeo("copy", "--all", *args, f"docker://{ref}", f"dir:{folder}", registries=insecure(host))


def skopeo_inspect(ref: str, *args: str) -> subprocess.CompletedProcess[str]:
    return skopeo("inspect", *args, f"docker://{ref}", registries=insecure(ref.partition("/")[0]))
