"""The status page as HTML: the document of `/api/status` in, text out. Pure; what it is served with is at the end.

No template language: every value passes `_cell` or `_text`, which escape, and nothing else is put between the tags. No
style, script or picture from elsewhere or in the text itself, so the policy can forbid both. It is whole without
JavaScript: the search is a form, and a browser without scripts loads it again by itself.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from proxy.config import format_size

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_KINDS = {"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
_RELOAD = 10

Row = Mapping[str, Any]


def asset(name: str) -> tuple[bytes, str]:
    """The content of a file beside this one, and its media type. Raises KeyError."""
    kind = _KINDS[name]
    return files(__package__).joinpath(name).read_bytes(), kind


def html(status: Row, images: Sequence[Row], search: str, login: bool) -> str:
    """The whole page, of the document of `/api/status` and those rows of `/api/images` that match `search`; `login`:
    there is a token to see more with."""
    now = status["now"]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>tidegate</title>\n'
        f'<link rel="stylesheet" href="/page.css">\n<script src="/page.js" defer></script>\n'
        f'<noscript><meta http-equiv="refresh" content="{_RELOAD}"></noscript>\n</head>\n<body>\n'
        f"{_header(status, now)}<main>\n{_tiles(status)}"
        f'<div class="columns">\n{_cache(status)}{_upstreams(status)}</div>\n'
        f"{_fills(status)}{_problems(status)}{_days(status)}{_hosts(status, now)}{_images(images, search, now)}"
        f"</main>\n{_footer(status, login)}</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _header(status: Row, now: float) -> str:
    well = status["health"] == "ok"
    return (
        f'<header><h1>tidegate</h1><span class="health {"good" if well else "bad"}">'
        f"{'all well' if well else _text(status['health'])}</span>"
        f'<span class="soft">up {_ago(status["started"], now)}, {status["workers"]} workers</span></header>\n'
    )


def _footer(status: Row, login: bool) -> str:
    more = ""
    if status["view"] == "public":
        more = " What needs an account to pull, and who asked, is left out here"
        more += ': <a href="/?login">log in with the operators\' token</a>.' if login else "."
    return f"<footer>tidegate {_text(status['version'])}; read-only.{more}</footer>\n"


def _tiles(status: Row) -> str:
    today, ever = status["today"], status["since_start"]
    return (
        '<div class="tiles">\n'
        + _tile(
            "of the bytes were here, today",
            _share(today["byte_hit_rate"]),
            f"since start {_share(ever['byte_hit_rate'])}",
        )
        + _tile("saved today", _saved(today), f"since start {_saved(ever)}")
        + _tile(
            "of the requests were hits, today",
            _share(today["request_hit_rate"]),
            f"since start {_share(ever['request_hit_rate'])}",
        )
        + _tile(
            "to clients today",
            format_size(today["client_bytes"]),
            f"{format_size(today['upstream_bytes'])} from upstream",
        )
        + "</div>\n"
    )


def _tile(label: str, figure: str, more: str) -> str:
    return (
        f'<div class="tile"><span class="soft">{_text(label)}</span><b>{_text(figure)}</b>'
        f'<span class="soft">{_text(more)}</span></div>\n'
    )


def _saved(totals: Row) -> str:
    return format_size(max(0, totals["saved_bytes"]))


def _share(part: float | None) -> str:
    return "-" if part is None else f"{100 * max(0.0, part):.1f} %"


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{_text(title)}</h2>\n{body}</section>\n"


def _table(heads: Sequence[str], rows: Iterable[str], none: str) -> str:
    body = "".join(rows)
    if not body:
        return f'<p class="soft">{_text(none)}</p>\n'
    head = "".join(f"<th{_class(name)}>{_text(name.strip('#'))}</th>" for name in heads)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>\n"


def _class(head: str) -> str:
    """A head with # is over figures, which stand to the right."""
    return ' class="number"' if head.startswith("#") else ""


def _row(*cells: str) -> str:
    return f"<tr>{''.join(cells)}</tr>\n"


def _cell(value: object, kind: str = "") -> str:
    return f'<td class="{kind}">{_text(value)}</td>' if kind else f"<td>{_text(value)}</td>"


def _progress(done: float, whole: float, label: str) -> str:
    return f'<progress max="{max(1, int(whole))}" value="{int(done)}" aria-label="{_text(label)}"></progress>'


def _cache(status: Row) -> str:
    disk = status["disk"]
    used, limit = disk["cache_bytes"], disk["max_size"]
    body = (
        f"<p>{format_size(used)} of {format_size(limit)} in {disk['cache_objects']} objects, "
        f"{format_size(disk['pinned_bytes'])} of it pinned</p>\n{_progress(used, limit, 'cache used')}\n"
        f'<p class="soft">{format_size(disk["free"])} of the disk\'s {format_size(disk["total"])} are free; '
        f"{format_size(disk['min_free'])} are left alone</p>\n"
    )
    return _section("Cache", body)


def _upstreams(status: Row) -> str:
    rows = (
        _row(_cell(each["name"]), _state(each), _cell(" ".join(each["urls"])) if "urls" in each else "<td></td>")
        for each in status["upstreams"]
    )
    return _section("Upstreams", _table(("name", "state", "asked at"), rows, "none"))


def _state(upstream: Row) -> str:
    if upstream["offline"]:
        return _cell("offline by configuration", "soft")
    if not upstream["up"]:
        return _cell(f"no answer, circuit {upstream['circuit']}", "bad")
    if upstream["paused"]:
        return _cell(f"throttled for {upstream['paused']} s", "warn")
    kind = "good" if upstream["circuit"] == "closed" else "warn"
    return _cell("up" if kind == "good" else f"circuit {upstream['circuit']}", kind)


def _fills(status: Row) -> str:
    rows = (
        _row(
            _cell(each.get("image") or each["digest"][:19]),
            f"<td>{_of(each['bytes'], each['size'])}{_bar(each)}</td>",
            _cell(f"{format_size(each['rate'])}/s" if each.get("rate") else "", "number"),
            _cell(each.get("readers", ""), "number"),
        )
        for each in status["fills"]
    )
    return _section("Downloads now", _table(("what", "arrived", "#rate", "#waiting for it"), rows, "none"))


def _of(done: int, whole: int | None) -> str:
    return f"{format_size(done)} of {'an unknown size' if whole is None else format_size(whole)}"


def _bar(fill: Row) -> str:
    return "" if fill["size"] is None else _progress(fill["bytes"], fill["size"], "arrived")


def _problems(status: Row) -> str:
    full = status["view"] == "full"
    rows = (
        _row(
            _cell(_clock(each["last"]), "short"),
            _cell(each["client"]) if full else "",
            _cell(each["image"]),
            _cell(each["status"], "short"),
            _cell(each["sentence"]),
            _cell(each["count"], "number"),
        )
        for each in status["problems"]
    )
    heads = ("last time", *(["client"] if full else []), "image", "status", "why", "#times")
    return _section("Problems", _table(heads, rows, "none lately"))


def _days(status: Row) -> str:
    most = max((day["client_bytes"] for day in status["days"]), default=0)
    rows = (
        _row(
            _cell(day["date"], "short"),
            _cell(sum(day["requests"].values()), "number"),
            _cell(format_size(day["client_bytes"]), "number"),
            _cell(format_size(day["upstream_bytes"]), "number"),
            _cell(_saved(day), "number"),
            _cell(_share(day["byte_hit_rate"]), "number"),
            f"<td>{_progress(max(0, day['saved_bytes']), most, 'saved')}</td>",
        )
        for day in status["days"]
    )
    heads = ("day (UTC)", "#requests", "#to clients", "#from upstream", "#saved", "#of bytes", "")
    return _section("Day by day", _table(heads, rows, "nothing yet"))


def _hosts(status: Row, now: float) -> str:
    rows = (
        _row(
            _cell(each["host"]),
            _cell(each["hop"]),
            _cell(each["count"], "number"),
            _cell(format_size(each["bytes"]), "number"),
            _cell(each["error"] or each["status"], "warn" if each["error"] else ""),
            _cell(_ago(each["last"], now), "short"),
        )
        for each in status["hosts"]
    )
    heads = ("host", "hop", "#asked", "#bytes", "last answer", "ago")
    return _section("Hosts this cache had to reach", _table(heads, rows, "none yet"))


def _images(images: Sequence[Row], search: str, now: float) -> str:
    rows = (
        _row(
            _cell(f"{each['repository']}{_reference(each['reference'])}"),
            _cell("yes") if each["complete"] else _cell(f"no, {each['missing']} missing", "warn"),
            _cell(format_size(each["size"]), "number"),
            _cell(_ago(each["used"], now) if each["used"] else "", "short"),
            _cell("pinned" if each.get("pinned") else ""),
        )
        for each in images
    )
    form = (
        f'<form method="get" action="/"><input type="search" name="q" value="{_text(search)}" '
        'placeholder="name or tag" aria-label="search"><button>Search</button></form>\n'
    )
    none = "nothing of that name" if search else "nothing yet"
    return _section("What is here", form + _table(("image", "complete", "#size", "used", ""), rows, none))


def _reference(text: str) -> str:
    return f"@{text}" if ":" in text else f":{text}" if text else ""


def _clock(at: float) -> str:
    return time.strftime("%m-%d %H:%M:%S", time.gmtime(at))


def _ago(at: float, now: float) -> str:
    seconds = max(0, int(now - at))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
