"""The options every command takes, and the settings that follow from them."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from proxy import __version__, config
from proxy.cli.talk import Place

F = TypeVar("F", bound=Callable[..., Any])


def _remember(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Both places of an option write to one table; the later, nearer one wins."""
    if value:
        context.ensure_object(dict)[option.name] = value
    return value


def any_command(command: F) -> F:
    """The options that may stand before and after a command's name."""
    for option in (
        click.version_option(__version__, "-V", "--version", prog_name="tidegate", message="%(prog)s %(version)s"),
        click.option("--json", is_flag=True, expose_value=False, callback=_remember, help="one JSON document"),
        click.option("-c", "--config", metavar="FILE", expose_value=False, callback=_remember, help="settings"),
    ):
        command = option(command)
    return command


def that_asks(command: F) -> F:
    """Which service a command asks: the one of a data folder, or another machine's."""
    for option in (
        click.option("--ca", metavar="FILE", expose_value=False, callback=_remember, help="certificates to trust"),
        click.option("--token-file", metavar="FILE", expose_value=False, callback=_remember, help="its token"),
        click.option("--server", metavar="URL", expose_value=False, callback=_remember, help="a tidegate elsewhere"),
        click.option(
            "--data", metavar="DIR", expose_value=False, callback=_remember, help="the data folder of the one asked"
        ),
    ):
        command = option(command)
    return any_command(command)


def place(context: click.Context) -> Place:
    """The service that was named, else the one of the data folder that is set. Raises ConfigError, UsageError."""
    chosen = context.ensure_object(dict)
    server, token, ca, data = (chosen.get(name) for name in ("server", "token_file", "ca", "data"))
    if not server:
        if token or ca:
            raise click.UsageError(f"--{'token-file' if token else 'ca'} goes with --server URL", context)
        return Place(load(context, data=data).server.data)
    if data:
        raise click.UsageError("--server and --data name two services: choose one", context)
    if not token:
        raise click.UsageError("--server needs --token-file FILE", context)
    return Place("", _url(context, server), _token(context, token), ca or "")


def _url(context: click.Context, text: str) -> str:
    try:
        found = config.parse_url(text)
        if found.count("/") == 2:
            return found
    except ValueError:
        pass
    raise click.UsageError(f"--server must be a URL such as https://cache.corp:5001, not {text[:60]!r}", context)


def _token(context: click.Context, path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            token = file.read(4097).strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise click.UsageError(f"--token-file {path} cannot be read: {why}", context) from None
    if not token or not token.isprintable() or " " in token:
        raise click.UsageError(f"--token-file {path} must hold one word", context)
    return token


def load(context: click.Context, **options: str | None) -> config.Settings:
    """The settings; `options` are the command's own that are settings too. Raises ConfigError."""
    chosen = context.ensure_object(dict)
    given = {f"--{name}": text for name, text in options.items() if text is not None}
    return config.load(chosen.get("config"), os.environ, given)


def wants_json(context: click.Context) -> bool:
    """Whether one JSON document is wanted instead of text."""
    return bool(context.ensure_object(dict).get("json"))
