"""Values the tests are made of, with the defaults of the contract, and small programs run beside the test."""

import math
import subprocess
import sys
from pathlib import Path

from proxy.config import Egress, Secret, Upstream
from proxy.oci.digest import Digest
from proxy.oci.names import Repo
from proxy.ports import Ask

ROOT = Path(__file__).parents[2]


def upstream(name="registry.k8s.io", **changed):
    """An upstream as the configuration would give it."""
    egress = Egress(
        allow=("*",),
        deny=(),
        allow_private=False,
        connect_timeout=1.0,
        stall_timeout=1.0,
        first_byte_deadline=changed.pop("first_byte_deadline", 5.0),
        proxy="",
        proxy_username="",
        proxy_password=Secret(),
        no_proxy=(),
        ca_file="",
        cert_file="",
        key_file="",
    )
    fields = {
        "name": name,
        "urls": (f"https://{name}",),
        "aliases": (),
        "hosts": (),
        "prefix": "",
        "tag_ttl": 100.0,
        "on_gone": "keep",
        "on_move": "follow",
        "stale_if_error": math.inf,
        "max_fills": 16,
        "max_bandwidth": 0,
        "repositories": ("*",),
        "deny_repositories": (),
        "offline": False,
        "username": "",
        "password": Secret(),
        "egress": egress,
    }
    return Upstream(**{**fields, **changed})


def ask(repo="pause", arrived=1000.0):
    return Ask(Repo.parse(repo), arrived)


def nobody_said_anything():
    """The `settled` of a claim where no outcome stands."""


def digest_of(content, algorithm="sha256"):
    return Digest.of(content, algorithm)


def begin(code, *args):
    """A Python program with the checkout as its folder; the caller waits for it or ends it."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(code, *args, **environ):
    """What such a program prints; it must end well within ten seconds."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, args)],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
