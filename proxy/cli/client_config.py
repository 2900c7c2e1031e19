"""`tidegate client-config CLIENT`: the files a client needs, printed to be pasted, as JSON, or written below a folder.

What must not live here: what any client reads (proxy/clients). Needs no running service; reads configuration only.
"""

import json
import os
import socket
from collections.abc import Sequence

import click

from proxy import clients
from proxy.cli.options import any_command, load, wants_json
from proxy.clients import File
from proxy.errors import StartError


@click.command("client-config", help="what containerd, k3s, crio, podman, docker, kind, kubeadm need")
@click.argument("client", metavar="CLIENT", type=click.Choice(list(clients.WRITERS)))
@click.option("--ca", metavar="FILE", default="", help="the CA of server.url, as a file on the clients' machines")
@click.option("--out", metavar="DIR", default="", help="write them below this folder instead")
@any_command
@click.pass_context
def client_config(context: click.Context, client: str, ca: str, out: str) -> int:
    settings = load(context)
    url, doubt = clients.address(settings, socket.gethostname())
    files = list(clients.WRITERS[client](clients.setup(settings, url, ca)))
    if doubt:
        click.echo(doubt, err=True)
    if out:
        files = _write(files, out)
    if wants_json(context):
        rows = [{"path": file.path, "content": file.content, "note": "\n".join(file.note)} for file in files]
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo("\n".join(_head(file) + ("" if out else file.content) for file in files), nl=False)
    return 0


def _head(file: File) -> str:
    """Its path as a comment, and what to know about it."""
    return "".join(f"# {line}\n" for line in (file.path, *file.note))


def _write(files: Sequence[File], folder: str) -> list[File]:
    """The files with the paths they have below `folder`. Nothing is written when one is there and differs, because
    somebody may have changed it. Raises StartError."""
    suffixes = (f".{file.variant}" if file.variant else "" for file in files)
    paths = [os.path.join(folder, file.path.lstrip("/") + suffix) for file, suffix in zip(files, suffixes, strict=True)]
    try:
        for file, path in zip(files, paths, strict=True):
            if os.path.exists(path) and _read(path) != file.content:
                raise StartError(f"{path} is there and differs; move it away or use another --out")
        for file, path in zip(files, paths, strict=True):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as target:
                target.write(file.content)
    except OSError as error:
        raise StartError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    return [File(path, file.content, file.note) for file, path in zip(files, paths, strict=True)]


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return file.read()
