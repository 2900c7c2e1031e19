"""Docker: daemon.json. Its mirrors serve docker.io and nothing else, and say nothing of the registry meant.

What Docker cannot do is in the note, because people look for the line that does not exist.
"""

import json
from collections.abc import Iterator
from typing import Any

from proxy.clients.setup import File, Setup

_HUB = "docker.io"
NOTHING = "{}\n"
"""The file, where Docker can be told nothing."""


def files(setup: Setup) -> Iterator[File]:
    """One file, to be merged with what is there."""
    hosts = setup.roots("docker")
    content: dict[str, Any] = {"registry-mirrors": list(setup.urls)} if setup.registry(_HUB) else {}
    if setup.plain:
        content["insecure-registries"] = list(hosts)
    yield File("/etc/docker/daemon.json", json.dumps(content, indent=2) + "\n", tuple(_note(setup, hosts[0])))


def _note(setup: Setup, host: str) -> Iterator[str]:
    yield "Into the file that is there; then: systemctl restart docker"
    segments = [each.segment for each in setup.registries if each.segment and each.name != _HUB]
    yield "Docker has mirrors for docker.io only. Of other registries, name images with the cache before them, such as"
    yield f"docker pull {host}/{segments[0] if segments else 'REGISTRY'}/NAME:TAG"
    if setup.registry(_HUB) is None:
        yield 'docker.io is not mirrored here: add [upstreams."docker.io"], and it to server.unqualified.'
    elif _HUB not in setup.unqualified:
        yield "Docker does not tell its mirror what is meant: add docker.io to server.unqualified, or it finds nothing."
    yield "When its mirror fails, Docker goes on to docker.io itself, whatever is set; behind a firewall that hangs."
    if setup.account:
        yield f"docker login --username {setup.account.name} {host}; to its mirrors Docker sends no account at all."
    if setup.ca and not setup.plain:
        yield f"Copy {setup.ca} to /etc/docker/certs.d/{host}/ca.crt."
