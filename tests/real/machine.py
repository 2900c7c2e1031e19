"""A whole machine with systemd and without network, to install things on: this one's files, copy on write, for as long
as one script runs. What it writes is in memory and is gone with it; nothing of it is seen outside.

It is a container of systemd-nspawn over an overlay of `/` in a mount namespace of its own. Needs root.
"""

import os
import subprocess
from pathlib import Path

_BOOT = """\
set -e
mount -t tmpfs -o size=2g tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" "$1/root"
rm -rf "$1/root/var/lib/tidegate" "$1/root/opt/tidegate" "$1/root/etc/tidegate"
mkdir "$1/root/root/brought"
mount --bind "$2" "$1/root/root/brought"
mount -o remount,bind,ro "$1/root/root/brought"
printf '%s\\n' "$3" >"$1/root/root/script"
printf '/bin/bash /root/script >/root/said 2>&1\\nsystemctl poweroff --force --force\\n' >"$1/root/root/all"
printf '[Unit]\\nAfter=basic.target\\n[Service]\\nType=oneshot\\nExecStart=/bin/sh /root/all\\n' \\
    >"$1/root/etc/systemd/system/script.service"
printf '[Unit]\\nRequires=basic.target script.service\\n' >"$1/root/etc/systemd/system/script.target"
timeout --signal=KILL "$4" systemd-nspawn --quiet --register=no --keep-unit --private-network --console=pipe \\
    -D "$1/root" --boot systemd.unit=script.target systemd.log_level=err systemd.show_status=no >&2
cat "$1/root/root/said"
"""


def on_a_machine_of_its_own(script: str, brought: Path, folder: Path, seconds: int = 150) -> str:
    """What bash says, both streams, of `script` run there as root; `brought` is what it finds as /root/brought, read
    only, `folder` an empty one for the mounts."""
    command = ["unshare", "--mount", "--fork", "--kill-child", "sh", "-c", _BOOT, "sh"]
    command += [str(folder), str(brought), script, str(seconds)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + 30, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-3000:]
    return done.stdout
