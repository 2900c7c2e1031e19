"""Settings: one TOML file, the environment and command options -> frozen values, each with its origin.

What lives here: what may be set (schema), how a value is read and shown (values, show), where it came from (source,
load). What must not: acting on a setting; a file is opened here only to be read as one (the configuration, a
`*_file` secret). A key is accepted when it has an effect and not before, because a setting that is taken in silence
and does nothing is worse than an error.

Precedence: option, TIDEGATE_<SECTION>_<KEY>, file, default. Every mistake is one ConfigError whose text is one line.
"""

from proxy.config.load import load
from proxy.config.quantities import duration as parse_duration
from proxy.config.quantities import format_size
from proxy.config.settings import (
    AdminPort,
    Auth,
    Cache,
    ConfigError,
    Egress,
    Local,
    Log,
    Secret,
    Server,
    Settings,
    Share,
    Tls,
    Upstream,
    WrongOption,
)
from proxy.config.show import Row, as_json, changed, render, rows
from proxy.config.values import parse_listen
from proxy.config.values import url as parse_url

__all__ = [
    "AdminPort",
    "Auth",
    "Cache",
    "ConfigError",
    "Egress",
    "Local",
    "Log",
    "Row",
    "Secret",
    "Server",
    "Settings",
    "Share",
    "Tls",
    "Upstream",
    "WrongOption",
    "as_json",
    "changed",
    "format_size",
    "load",
    "parse_duration",
    "parse_listen",
    "parse_url",
    "render",
    "rows",
]
