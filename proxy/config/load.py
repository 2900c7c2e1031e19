"""From file, environment and options to Settings: precedence, defaults that depend on others, checks across keys.

The order matters for whoever reads the message: first what cannot be read at all, then keys nobody knows, then
single values, then what contradicts something else.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from proxy.config import known, people, source, values
from proxy.config.known import fail
from proxy.config.schema import (
    DEFAULT_ALIASES,
    DEFAULT_UPSTREAM,
    DEFAULT_URLS,
    EGRESS,
    SECRETS,
    SECTIONS,
    UPSTREAM,
    Key,
    Section,
)
from proxy.config.settings import (
    AdminPort,
    Auth,
    Cache,
    Egress,
    Local,
    Log,
    Secret,
    Server,
    Settings,
    Tls,
    Upstream,
)

DEFAULT_FILE = "/etc/tidegate/tidegate.toml"
_OPTIONS = {"--listen": "server.listen", "--data": "server.data", "--offline": "server.offline"}
# What every program honours; ours come first, so that this one alone can be sent another way.
_USUAL = {"egress.proxy": ("HTTPS_PROXY", "https_proxy"), "egress.no_proxy": ("NO_PROXY", "no_proxy")}


def load(file: str | None, environ: Mapping[str, str], options: Mapping[str, str]) -> Settings:
    """All settings. `file` None: $TIDEGATE_CONFIG, else the default file if it exists; `options`: "--listen" -> text.

    Raises ConfigError.
    """
    name = file or environ.get("TIDEGATE_CONFIG") or (DEFAULT_FILE if os.path.exists(DEFAULT_FILE) else None)
    found = source.read(name) if name else source.Source(None, "")
    return _Loader(found, environ, options).settings()


class _Loader:
    """One load: the three places values come from, and the origins found so far."""

    def __init__(self, found: source.Source, environ: Mapping[str, str], options: Mapping[str, str]) -> None:
        self._source = found
        self._environ = environ
        self._options = {_OPTIONS[option]: (option, text) for option, text in options.items()}
        self._origins: dict[str, str] = {}

    def settings(self) -> Settings:
        known.check_tables(self._source)
        known.check_environ(self._environ)
        egress = self._section("egress")
        way_out = self._egress(egress, "egress")
        server = self._section("server")
        upstreams = {name: self._upstream(name, table, egress) for name, table in self._named().items()}
        if server["offline"]:
            upstreams = {name: replace(upstream, offline=True) for name, upstream in upstreams.items()}
        self._check_shared(upstreams, server["names"])
        pushing = "local" in self._source.tables or any(name.startswith("TIDEGATE_LOCAL_") for name in self._environ)
        self._server_defaults(server, upstreams, pushing)
        tls = Tls(**self._agreeing("tls", people.alone))
        auth = Auth(**self._agreeing("auth", people.contradiction))
        admin = AdminPort(**self._section("admin"))
        cache = Cache(**self._section("cache"))
        local = Local(**self._section("local"))
        log = Log(**self._section("log"))
        return Settings(
            Server(**server),
            tls,
            auth,
            admin,
            cache,
            way_out,
            upstreams,
            local,
            pushing,
            log,
            self._origins,
            self._source.name,
        )

    def _section(self, section: str) -> dict[str, Any]:
        table = self._source.tables.get(section, {})
        found = {key: self._value((section, key), row, table) for key, row in SECTIONS[section].items()}
        for key in SECRETS & SECTIONS[section].keys():
            variable = known.variable(f"{section}.{key}_file")
            if variable in self._environ:
                found[key] = self._secret_file(section, key, self._environ[variable], variable)
            elif f"{key}_file" in table:
                where = self._source.where((section, f"{key}_file"))
                found[key] = self._secret_file(section, key, table[f"{key}_file"], where, double=key in table)
        return found

    def _value(self, path: source.Path, row: Key, table: Mapping[str, Any]) -> Any:
        """Option, variable, file, usual variable, default: the first that is there, read, its origin noted."""
        key, label = path[-1], ".".join(path)
        variable = known.variable(label)
        usual = next((name for name in _USUAL.get(label, ()) if self._environ.get(name)), "")
        if label in self._options:
            origin, text = self._options[label]
            raw = row.from_text(text)
        elif variable in self._environ:
            origin, raw = variable, row.from_text(self._environ[variable])
        elif key in table:
            origin, raw = self._source.where(path), table[key]
        elif usual:
            origin, raw = usual, row.from_text(self._environ[usual])
        else:
            origin, raw = "default", row.default
        self._origins[label] = origin
        return self._read(row, raw, origin, label)

    def _read(self, row: Key, raw: object, origin: str, label: str) -> Any:
        try:
            return row.read(raw)
        except ValueError as error:
            fail(origin, str(error) if origin.startswith("--") else f"{label} {error}")

    def _named(self) -> dict[str, Mapping[str, Any]]:
        """The upstreams and their tables: those of the variable, else of the file, else the default one."""
        tables: dict[str, Mapping[str, Any]] = {}
        for written, table in self._source.tables.get("upstreams", {}).items():
            where = self._source.where(("upstreams", written))
            name = self._name(written, where)
            if name in tables:
                fail(where, f"upstream {name} stands twice; put both tables together")
            self._origins[f"upstreams.{name}"] = where
            tables[name] = {**table, "": written}
        if "TIDEGATE_UPSTREAMS" not in self._environ:
            return tables or {DEFAULT_UPSTREAM: {"": DEFAULT_UPSTREAM}}
        texts = values.strings(self._environ["TIDEGATE_UPSTREAMS"].replace(",", " ").split())
        names = [self._name(text, "TIDEGATE_UPSTREAMS") for text in texts]
        if not names:
            fail("TIDEGATE_UPSTREAMS", "names no upstream; unset it or write registry.k8s.io,docker.io")
        return {name: tables.get(name, {"": name}) for name in names}

    def _name(self, text: str, where: str) -> str:
        try:
            name = values.host(text)
        except ValueError as error:
            fail(where, f"an upstream's name {error}")
        if name == "local":  # what is pushed here goes by it, in unqualified and in what workers remember
            fail(where, "an upstream cannot be named local, that is what is pushed here; name it by its host")
        return name

    def _upstream(self, name: str, table: Mapping[str, Any], egress: Mapping[str, Any]) -> Upstream:
        written = table[""]
        found = self._under(name, written, UPSTREAM, table)
        if "urls" not in table:
            found["urls"] = (DEFAULT_URLS.get(name, f"https://{name}"),)
        own = self._under(name, written, {key: row for key, row in EGRESS.items() if key in table}, table)
        for key in SECRETS:
            if f"{key}_file" in table:
                where = self._source.where(("upstreams", written, f"{key}_file"))
                secret = self._secret_file(f"upstreams.{name}", key, table[f"{key}_file"], where, double=key in table)
                (found if key in UPSTREAM else own)[key] = secret
        if "proxy" in own:  # another proxy does not get this one's account
            own = {"proxy_username": "", "proxy_password": Secret(), **own}
        if bool(found["username"]) != bool(found["password"]):
            where = self._source.where(("upstreams", written))
            fail(where, f"upstream {name} needs username and password_file together, or neither")
        way = self._egress({**egress, **own}, f"upstreams.{name}")
        upstream = Upstream(name=name, egress=way, **found)
        return upstream if upstream.public or "on_gone" in table else replace(upstream, on_gone="obey")

    def _egress(self, found: Mapping[str, Any], label: str) -> Egress:
        """The way out, its proxy's URL with the account in it."""
        name, secret, url = found["proxy_username"], found["proxy_password"], urlsplit(found["proxy"])
        where = self._origins.get(f"{label}.proxy_username", self._origins["egress.proxy_username"])
        if bool(name) != bool(secret):
            fail(where, f"{label} needs proxy_username and proxy_password_file together, or neither")
        if name and not found["proxy"]:
            fail(where, f"{label}.proxy_username needs a proxy; set {label}.proxy or HTTPS_PROXY")
        if name and "@" in url.netloc:
            fail(where, f"{label}.proxy holds an account and proxy_username names one; keep proxy_username")
        account = f"{quote(name, safe='')}:{quote(secret.reveal(), safe='')}@" if name else ""
        return Egress(**{**found, "proxy": urlunsplit(url._replace(netloc=account + url.netloc))})

    def _agreeing(self, section: str, wrong: Callable[[Mapping[str, Any]], tuple[str, str] | None]) -> dict[str, Any]:
        """A section in which no key stands against another one."""
        found = self._section(section)
        if mistake := wrong(found):
            fail(self._origins[f"{section}.{mistake[0]}"], mistake[1])
        return found

    def _under(self, name: str, written: str, keys: Section, table: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of an upstream: the file, else the default, which for two of them depends on the name."""
        found = {}
        for key, row in keys.items():
            default = DEFAULT_ALIASES.get(name, []) if key == "aliases" else row.default
            origin = self._source.where(("upstreams", written, key)) if key in table else "default"
            label = f"upstreams.{name}.{key}"
            self._origins[label] = origin
            if key in table or default or key != "urls":
                found[key] = self._read(row, table.get(key, default), origin, label)
        return found

    def _secret_file(self, label: str, key: str, path: object, where: str, double: bool = False) -> Secret:
        """What a file named instead of the secret holds; `double`: the secret stands there too."""
        if double:
            fail(where, f"{key} and {key}_file are both set; keep {key}_file")
        name = self._read(Key("", values.path), path, where, f"{label}.{key}_file")
        self._origins[f"{label}.{key}"] = f"{where} ({name})"
        try:
            with open(name, encoding="utf-8") as file:
                return values.secret(file.read().rstrip("\r\n"))
        except OSError as error:
            fail(where, f"cannot read {key}_file {name}: {error.strerror}")
        except ValueError:
            fail(where, f"{key}_file {name} must hold one line of text")

    def _server_defaults(self, server: dict[str, Any], upstreams: Mapping[str, Upstream], pushing: bool) -> None:
        """Data folder, workers, and who answers for bare names: what is said nowhere follows from the machine."""
        if not server["data"]:
            server["data"], self._origins["server.data"] = _data_folder(self._environ)
        if server["workers"] == 0:
            server["workers"] = min(4, len(os.sched_getaffinity(0)))
        if self._origins["server.unqualified"] == "default":
            first = DEFAULT_UPSTREAM if DEFAULT_UPSTREAM in upstreams else next(iter(upstreams))
            server["unqualified"] = ("local",) if pushing else (first,)
        for name in server["unqualified"]:
            if name not in upstreams and not (pushing and name == "local"):
                where = self._origins["server.unqualified"]
                fail(where, f"server.unqualified: no upstream is called {name}; {known.nearest(name, upstreams)}")

    def _check_shared(self, upstreams: Mapping[str, Upstream], own: Iterable[str]) -> None:
        """One name, one owner: routing is a closed table, and an ambiguous one would depend on its order."""
        owners = dict.fromkeys(own, "server.names")
        for upstream in upstreams.values():
            where = self._origins.get(f"upstreams.{upstream.name}", "upstreams")
            for name in filter(None, (upstream.name, *upstream.aliases, *upstream.hosts, upstream.prefix)):
                owner = owners.setdefault(name, upstream.name)
                if owner != upstream.name:
                    fail(where, f"{name} belongs to {owner} and to {upstream.name}; take it out of one")
            for url in upstream.urls:
                if urlsplit(url).netloc.lower() in own:
                    fail(where, f"{url} is this server (server.names); an upstream must be another one")


def _data_folder(environ: Mapping[str, str]) -> tuple[str, str]:
    """Systemd's StateDirectory= (the first one of a list), the system's place for root, else the user's."""
    if environ.get("STATE_DIRECTORY"):
        return environ["STATE_DIRECTORY"].split(":")[0], "STATE_DIRECTORY"
    if os.geteuid() == 0:
        return "/var/lib/tidegate", "default"
    return os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".local/share/tidegate"), "default"
