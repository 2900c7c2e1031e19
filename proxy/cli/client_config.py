"""`tidegate client-config CLIENT`: the files a client needs, printed to be pasted, as JSON, or written below a folder.

What must not live here: what any client reads (proxy/clients). Needs no running service; reads configuration only.
"""

import difflib
import json
import os
import socket
import sys
from collections.abc import Iterator, Sequence

import click

from proxy import clients
from proxy.cli.options import any_command, load, wants_json
from proxy.clients import File
from proxy.config import Secret, Settings, parse_url
from proxy.errors import StartError


def _urls(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(parse_url(each) for each in given)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None


@click.command("client-config", help="what containerd, k3s, crio, podman, docker, kind, kubeadm need")
@click.argument("client", metavar="CLIENT", type=click.Choice(list(clients.WRITERS)))
@click.option("--url", "urls", metavar="URL", multiple=True, callback=_urls, help="how clients reach us  [server.url]")
@click.option("--upstream", "upstreams", metavar="NAME", multiple=True, help="for this registry only; may be repeated")
@click.option("--ca", metavar="FILE", default="", help="the CA of the URL, as a file on the clients' machines")
@click.option("--user", metavar="NAME", default="", help="log in as; the password is asked for, or read from a pipe")
@click.option("--fallback", is_flag=True, help="on to the registry itself when we fail; behind a firewall that hangs")
@click.option("--write", "folder", metavar="DIR", default="", help="write them below this folder; / on the client")
@click.option("--yes", is_flag=True, help="write over files that differ without asking")
@any_command
@click.pass_context
def client_config(
    context: click.Context,
    client: str,
    urls: tuple[str, ...],
    upstreams: tuple[str, ...],
    ca: str,
    user: str,
    fallback: bool,
    folder: str,
    yes: bool,
) -> int:
    settings = load(context)
    urls = urls or (_address(settings),)
    account = clients.Account(user, _password(context, user)) if user else None
    told = clients.setup(settings, urls, ca, upstreams, fallback, account)
    files = list(clients.WRITERS[client](told))
    if folder:
        _write(files, folder, yes)
        return 0
    if wants_json(context):
        rows = [{"path": file.path, "content": file.content, "note": "\n".join(file.note)} for file in files]
        click.echo(json.dumps(rows, indent=2))
    else:
        click.echo("\n".join(_head(file) + file.content for file in files), nl=False)
    return 0


def _address(settings: Settings) -> str:
    url, doubt = clients.address(settings, socket.gethostname())
    if doubt:
        click.echo(doubt, err=True)
    return url


def _password(context: click.Context, user: str) -> Secret:
    """Never an option: those are seen by everybody who can list processes."""
    if ":" in user or not user.isprintable():
        raise click.UsageError("--user is a name without a colon", context)
    if sys.stdin.isatty():
        return Secret(click.prompt(f"password of {user}", hide_input=True, err=True))
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.UsageError(f"the password of {user} is the first line of standard input, which is empty", context)
    return Secret(password)


def _head(file: File) -> str:
    """Its path as a comment, and what to know about it."""
    return "".join(f"# {line}\n" for line in (file.path, *file.note))


def _write(files: Sequence[File], folder: str, yes: bool) -> None:
    """Each file below `folder` after its difference was shown. What is there and differs may be somebody's work: it is
    replaced when a person at a terminal, or --yes, says so, and else nothing at all is written. Raises StartError."""
    try:
        todo = [(file, path, old) for file, path, old in _standing(files, folder) if old != file.content]
        for file, path, old in todo:
            click.echo("".join(_difference(file, path, old)), nl=False)
        changed = [path for _, path, old in todo if old is not None]
        if changed and not yes:
            if not sys.stdin.isatty():
                raise StartError(f"{changed[0]} is there and differs: nothing is written; --yes replaces it")
            if not click.confirm(f"replace {len(changed)} and write {len(todo)} files?", err=True):
                raise StartError("nothing is written")
        for file, path, _ in todo:
            _put(file, path)
    except OSError as error:
        raise StartError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    for file in files:
        click.echo("".join(f"# {line}\n" for line in (os.path.join(folder, file.name), *file.note)), nl=False)


def _standing(files: Sequence[File], folder: str) -> Iterator[tuple[File, str, str | None]]:
    """Each file with its path below `folder` and what stands there now, None for nothing."""
    for file in files:
        path = os.path.join(folder, file.name)
        yield file, path, _read(path) if os.path.exists(path) else None


def _difference(file: File, path: str, old: str | None) -> Iterator[str]:
    """As `diff -u` shows it; of a secret, that it differs."""
    if file.secret:
        yield f"{'new' if old is None else 'changed'}, and holds a password: {path}\n"
        return
    before = [] if old is None else old.splitlines(keepends=True)
    name = "/dev/null" if old is None else path
    for line in difflib.unified_diff(before, file.content.splitlines(keepends=True), name, path):
        yield line if line.endswith("\n") else f"{line}\n"


def _put(file: File, path: str) -> None:
    """Whole or not at all, and never readable by others for a moment when it holds a secret."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    beside = f"{path}.new"
    mode = 0o600 if file.secret else 0o644
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with open(fd, "w", encoding="utf-8") as target:
        os.fchmod(fd, mode)
        target.write(file.content)
    os.replace(beside, path)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        return file.read()
