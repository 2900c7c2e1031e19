"""The server under test as its users run it: a process with a configuration file and a data folder."""

import json
import os
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.real.processes import Process, fetch, free_port, processes

Config = str | Mapping[str, Any]
ROOT = Path(__file__).resolve().parents[2]


class Metrics(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """Samples of one scrape by name and label pairs."""

    def total(self, name: str, **labels: str) -> float:
        """The sum of all series of `name` that carry these labels; 0 when there is none."""
        wanted = set(labels.items())
        return sum(value for (series, pairs), value in self.items() if series == name and wanted <= pairs)


class Tidegate:
    """One running instance. `folder` holds config.toml and the output; `data` outlives a restart."""

    def __init__(self, process: Process, url: str, data: Path, trust: ssl.SSLContext | None = None) -> None:
        self.process = process
        self.trust = trust
        self.url = url
        self.data = data

    @property
    def host(self) -> str:
        return self.url.partition("://")[2]

    @property
    def pid(self) -> int:
        """The supervisor's."""
        return self.process.pid

    @property
    def stdout(self) -> str:
        return self.process.stdout

    @property
    def stderr(self) -> str:
        return self.process.stderr

    def worker_pids(self) -> list[int]:
        """Direct children of the supervisor that are alive, zombies not counted."""
        return sorted(each.pid for each in processes() if each.parent == self.pid)

    def metrics(self) -> Metrics:
        text = fetch(f"{self.url}/metrics", trust=self.trust)[1].decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return Metrics({(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples})

    def stop(self, seconds: float = 40) -> int:
        """SIGTERM; the exit status once it has drained."""
        return self.process.stop(seconds)

    def kill(self) -> None:
        """SIGKILL to supervisor and workers at once."""
        self.process.kill()


@contextmanager
def tidegate(
    config: Config = "",
    data: Path | None = None,
    workers: int | None = None,
    *,
    folder: Path | None = None,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    trust: ssl.SSLContext | None = None,
) -> Iterator[Tidegate]:
    """A server that is ready, ended with all its workers when the block ends. Raises NotStarted.

    `folder` gets the configuration and the output. One of `folder` and `data` is given, and the other one follows from
    it, so a second start with the same one finds what the first one kept. `trust`: it speaks TLS, and this is how
    to it.
    """
    if folder is None:
        assert data is not None, "a server needs a folder or a data folder"
        folder = data.with_name(f"{data.name}-run")
    data = data or folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{port or free_port()}"
    (folder / "config.toml").write_text(config if isinstance(config, str) else toml(config))
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(folder / "config.toml"),
               "--listen", host, "--data", str(data)]  # fmt: skip
    process = Process(command, folder, "tidegate", _environment(workers, env or {}))
    try:
        url = f"{'https' if trust else 'http'}://{host}"
        process.wait_ready(f"{url}/readyz", trust=trust)
        yield Tidegate(process, url, data, trust)
    finally:
        process.end()


def upstream_config(url: str, name: str = "registry.k8s.io", **keys: Any) -> dict[str, Any]:
    """The configuration of one upstream at `url`; `keys` are further keys of it. The hosts of the tests, which their
    redirects lead to, are all on this machine."""
    return {"upstreams": {name: {"urls": [url], "allow_private": True, **keys}}}


def toml(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> str:
    """TOML of nested mappings; a JSON string, number, boolean or list is a TOML one too."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in document.items() if not isinstance(value, Mapping)]
    if path and lines:
        lines.insert(0, "[{}]".format(".".join(json.dumps(part) for part in path)))
    text = "\n".join(lines) + "\n"
    return text + "".join(toml(value, (*path, key)) for key, value in document.items() if isinstance(value, Mapping))


def _environment(workers: int | None, env: Mapping[str, str]) -> dict[str, str]:
    """This machine's, without settings and proxies somebody left in it."""
    strange = ("TIDEGATE_", "LISTEN_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "STATE_DIRECTORY")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(strange)}
    kept["PYTHONPATH"] = str(ROOT)
    if workers is not None:
        kept["TIDEGATE_SERVER_WORKERS"] = str(workers)
    return {**kept, **env}
