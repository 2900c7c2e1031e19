"""Debian's docker-registry, nginx and containerd, each as our own instance with its state in a folder of the test."""

import itertools
import os
import re
import subprocess
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.real.processes import NotStarted, Process, free_port, program, running


@dataclass(frozen=True, slots=True)
class Served:
    """A server that is up: its base URL, host:port, process and folder."""

    url: str
    host: str
    process: Process
    folder: Path


@contextmanager
def docker_registry(folder: Path, remote: str | None = None) -> Iterator[Served]:
    """CNCF Distribution with its blobs under `<folder>/registry`; with `remote` in pull-through mode."""
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    config = folder / "registry.yml"
    config.write_text(
        textwrap.dedent(f"""\
            version: 0.1
            log: {{level: warn, accesslog: {{disabled: true}}}}
            storage:
              filesystem: {{rootdirectory: {folder}/registry}}
              delete: {{enabled: true}}
            http: {{addr: "{host}", secret: tests}}
            """)
        + (f"proxy: {{remoteurl: {remote}}}\n" if remote else "")
    )
    env = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    command = ["docker-registry", "serve", str(config)]
    with running(command, folder, "docker-registry", f"http://{host}/v2/", env) as process:
        yield Served(f"http://{host}", host, process, folder)


@contextmanager
def nginx(folder: Path, static: Path, locations: str = "") -> Iterator[Served]:
    """Serves the files of `static` as a CDN does: ranges, no ETag, and a log of `method uri status bytes` lines.

    `locations` are further lines of its server.
    """
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    config = folder / "nginx.conf"
    config.write_text(f"""\
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
        events {{ worker_connections 1024; }}
        http {{
            {temporary}
            log_format short '$request_method $request_uri $status $body_bytes_sent';
            access_log {folder}/access.log short;
            default_type application/octet-stream; sendfile on; etag off;
            server {{
                listen {host};
                location = /up {{ access_log off; return 200 "up"; }}
                location / {{ root {static}; }}
                {locations}
            }}
        }}
        """)
    command = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    with running(command, folder, "nginx", f"http://{host}/up") as process:
        yield Served(f"http://{host}", host, process, folder)


@contextmanager
def tinyproxy(folder: Path, address: str = "127.0.0.1", allow: Sequence[str] | None = None) -> Iterator[Served]:
    """A forward proxy; `<folder>/proxy.log` is its own word on what went through it. `allow`: the only hosts for it."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "tinyproxy.conf"
    config.write_text(
        f"Port {port}\nListen {address}\nTimeout 60\nMaxClients 50\nLogLevel Connect\n"
        f'LogFile "{folder}/proxy.log"\nPidFile "{folder}/proxy.pid"\n'
        + ("" if allow is None else f'FilterDefaultDeny Yes\nFilterExtended On\nFilter "{folder}/allow"\n')
    )
    (folder / "allow").write_text("".join(f"^{re.escape(host)}$\n" for host in allow or ()))
    host = f"{address}:{port}"
    with running(["tinyproxy", "-d", "-c", str(config)], folder, "tinyproxy") as process:
        process.wait_listening(address, port)
        yield Served(f"http://{host}", host, process, folder)


@dataclass(frozen=True, slots=True)
class Containerd:
    """A containerd whose namespaces share no content, so that each new one is a cold node.

    `fetch` gets an image's content as a pull does, without unpacking it, which would need mounts.
    """

    socket: Path
    hosts: Path
    _names: "itertools.count[int]" = field(default_factory=itertools.count)

    def node(self) -> str:
        """A namespace nobody has used: a node that has nothing yet."""
        return f"node{next(self._names)}"

    def mirror(self, registry: str, url: str, *lines: str, server: str | None = None) -> None:
        """Writes hosts.toml: `registry` is to be asked for at `url` first; `lines` are further keys of that host."""
        folder = self.hosts / registry
        folder.mkdir(parents=True, exist_ok=True)
        text = [f'server = "{server}"'] if server else []
        text += [f'[host."{url}"]', 'capabilities = ["pull", "resolve"]', *lines]
        (folder / "hosts.toml").write_text("\n".join(text) + "\n")

    def ctr(self, node: str, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [program("ctr") or "ctr", "--address", str(self.socket), "--namespace", node, *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout)

    def fetch(self, ref: str, node: str | None = None, *args: str) -> subprocess.CompletedProcess[str]:
        """Pulls `ref` for this machine's platform through hosts.toml; the caller looks at the exit status."""
        return self.ctr(node or self.node(), "content", "fetch", "--hosts-dir", str(self.hosts), *args, ref)

    def digests(self, node: str) -> set[str]:
        """What this node holds."""
        return set(self.ctr(node, "content", "ls", "--quiet").stdout.split())


@contextmanager
def containerd(folder: Path, certs_d: Path | None = None) -> Iterator[Containerd]:
    """A containerd without CRI; needs root. `certs_d` holds `<registry>/hosts.toml`, default `<folder>/certs.d`."""
    folder.mkdir(parents=True, exist_ok=True)
    hosts = certs_d or folder / "certs.d"
    hosts.mkdir(parents=True, exist_ok=True)
    config = folder / "config.toml"
    config.write_text(
        textwrap.dedent(f"""\
            version = 2
            root = "{folder}/root"
            state = "{folder}/state"
            disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",
              "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
              "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
            [grpc]
            address = "{folder}/c.sock"
            [plugins."io.containerd.metadata.v1.bolt"]
            content_sharing_policy = "isolated"
            """)
    )
    with running(["containerd", "--config", str(config)], folder, "containerd") as process:
        node = Containerd(folder / "c.sock", hosts)
        _await(node, process)
        yield node


def _await(node: Containerd, process: Process) -> None:
    until = time.monotonic() + 20
    while node.ctr("default", "version").returncode != 0:
        process.check()
        if time.monotonic() > until:
            raise NotStarted(f"containerd does not answer:\n{process.stderr[-2000:]}")
        time.sleep(0.05)
