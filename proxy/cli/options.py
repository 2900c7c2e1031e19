"""The options every command takes, and the settings that follow from them."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from proxy import __version__, config

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


def load(context: click.Context, **options: str | None) -> config.Settings:
    """The settings; `options` are the command's own that are settings too. Raises ConfigError."""
    chosen = context.ensure_object(dict)
    given = {f"--{name}": text for name, text in options.items() if text is not None}
    return config.load(chosen.get("config"), os.environ, given)


def wants_json(context: click.Context) -> bool:
    """Whether one JSON document is wanted instead of text."""
    return bool(context.ensure_object(dict).get("json"))
