"""Keeping images: pin, unpin, ls, rm. Reads options, asks the service, prints what it says; deciding is the service's.

What must not live here: what a line says of an image (keep_text.py), what a name means (the service knows).
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from proxy.cli import keep_text as text
from proxy.cli.options import place, that_asks, wants_json
from proxy.cli.talk import NotRunning, Place, ask, stream
from proxy.errors import NameInvalid, StartError
from proxy.oci.images import images_in

_PATIENCE = 120.0


def _read(context: click.Context, images: Sequence[str]) -> list[str]:
    """The images that were named, with those of standard input where `-` stands."""
    found: list[str] = []
    for each in images:
        try:
            found += images_in(sys.stdin.read()) if each == "-" else [each]
        except (NameInvalid, UnicodeDecodeError) as error:
            raise click.UsageError(f"standard input: {error}", context) from None
    if not found:
        raise click.UsageError("standard input names no image", context)
    return list(dict.fromkeys(found))


@click.command(help="fetch images and never evict them")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option(
    "--platform",
    "platforms",
    metavar="OS/ARCH",
    multiple=True,
    help="only these of an index, such as linux/amd64,linux/arm64; all where it is not given",
)
@click.option("--set", "name", metavar="NAME", default="default", help="pin them as part of this set  [default]")
@that_asks
@click.pass_context
def pin(context: click.Context, images: tuple[str, ...], platforms: tuple[str, ...], name: str) -> int:
    asked = place(context)
    chosen = [word for option in platforms for word in option.split(",") if word]
    order = {"images": _read(context, images), "platforms": chosen, "set": name}
    quiet = wants_json(context)
    end: Mapping[str, Any] = {}
    with text.Progress(sys.stdout, quiet=quiet) as progress:
        for end in stream(asked, "/api/pins", order):
            progress.take(end)
    _say(context, end, text.pinned(end))
    if end["refused"]:
        raise StartError(end["refused"])
    return 1 if end["missing"] else 0


@click.command(help="let pinned images go: they may be evicted again")
@click.argument("images", metavar="[IMAGE...]", nargs=-1)
@click.option("--set", "name", metavar="NAME", default="", help="the whole set, or the images only in it")
@that_asks
@click.pass_context
def unpin(context: click.Context, images: tuple[str, ...], name: str) -> int:
    service = place(context)
    if not images and not name:
        raise click.UsageError("name images, or a set with --set NAME", context)
    named = [{"image": each} for each in _read(context, images)] if images else [{}]
    gone: list[Any] = []
    for each in named:
        asked = each | ({"set": name} if name else {})
        rows = ask(service, "/api/pins", seconds=_PATIENCE, method="DELETE", **asked)["unpinned"]
        gone += rows
        if not wants_json(context):
            click.echo("\n".join(f"unpinned {row['image']} from {row['set']}" for row in rows))
    if wants_json(context):
        click.echo(json.dumps({"unpinned": gone}, indent=2))
    return 0


@click.command(help="what is cached, pinned or pushed; the parts of one image")
@click.argument("image", default="")
@click.option("--pinned", is_flag=True, help="only what is pinned")
@click.option("--set", "name", metavar="NAME", default="", help="only what is pinned in this set")
@click.option("--incomplete", is_flag=True, help="only what lacks a part")
@click.option("--sort", "order", type=click.Choice(["size", "age", "used"]), help="largest, oldest, latest used first")
@that_asks
@click.pass_context
def ls(
    context: click.Context,
    image: str,
    pinned: bool,
    name: str,
    incomplete: bool,
    order: str | None,
) -> int:
    rows = _images(place(context), image)
    if image and not rows:
        raise StartError(f"{image} is not here; tidegate ls says what is")
    chosen = text.ordered(text.chosen(rows, pinned=pinned, name=name, incomplete=incomplete), order)
    parts = "parts" in chosen[0] if len(chosen) == 1 else False
    _say(context, chosen, text.parts(chosen[0]) if parts else text.table(chosen))
    return 0


def _images(service: Place, image: str) -> list[Any]:
    """From the service, else from the data folder alone. Raises StartError."""
    try:
        query = {"image": image} if image else {}
        found: list[Any] = ask(service, "/api/images", seconds=_PATIENCE, **query)
        return found
    except NotRunning:
        from proxy.cli import alone  # slow: diskcache

        return alone.images(service.data, image)


@click.command(help="remove images from the cache")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@that_asks
@click.pass_context
def rm(context: click.Context, images: tuple[str, ...]) -> int:
    service = place(context)
    rows = list(_removed(context, service, _read(context, images)))
    if wants_json(context):
        click.echo(json.dumps(rows, indent=2))
    return 1 if any("error" in row for row in rows) else 0


def _removed(context: click.Context, service: Place, images: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Each image as it goes, said at once where text is wanted."""
    for row in stream(service, "/api/remove", {"images": images}):
        if "done" in row:
            continue
        if not wants_json(context):
            click.echo(text.removed(row), err="error" in row)
        yield row


def _say(context: click.Context, document: Any, words: str) -> None:
    if wants_json(context):
        click.echo(json.dumps(document, indent=2))
    elif words:
        click.echo(words)


COMMANDS: tuple[click.Command, ...] = (pin, unpin, ls, rm)
