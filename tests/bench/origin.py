"""The upstream of the benches: nginx with a registry's content as static files, the least a server can cost.

It names the right media type and digest, so docker-registry takes it for a registry in proxy mode.
"""

import hashlib
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.real.images import OCI_KINDS, digest_of
from tests.real.processes import fetch, free_port, running

NAME = "bench/image"
TAG = "v1"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """Content the origin has."""

    digest: str
    size: int

    @property
    def path(self) -> str:
        return f"/v2/{NAME}/blobs/{self.digest}"


@dataclass(frozen=True, slots=True)
class Origin:
    """An origin that is up. `manifest` is about 1.5 KB, found by digest and under TAG."""

    url: str
    folder: Path
    manifest: Blob

    @property
    def static(self) -> Path:
        return self.folder / "static"

    @property
    def by_digest(self) -> str:
        return f"/v2/{NAME}/manifests/{self.manifest.digest}"

    @property
    def by_tag(self) -> str:
        return f"/v2/{NAME}/manifests/{TAG}"

    def add(self, size: int, seed: int) -> Blob:
        """A blob of repeated random mebibytes: not compressible by a file system, quickly made."""
        piece = random.Random(seed).randbytes(min(size, MIB))
        hasher = hashlib.sha256()
        folder = self.static / f"v2/{NAME}/blobs"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"seed-{seed}"
        with path.open("wb") as file:
            for _ in range(size // len(piece)):
                hasher.update(piece)
                file.write(piece)
            os.fsync(file.fileno())  # else its writing back would slow whoever is measured first
        blob = Blob(f"sha256:{hasher.hexdigest()}", size)
        path.rename(folder / blob.digest)
        return blob

    def sent(self) -> int:
        """Body bytes of all blobs this origin has sent since `forget`."""
        fetch(f"{self.url}/up")
        rows = (line.split() for line in (self.folder / "access.log").read_text().splitlines())
        return sum(int(size) for _, uri, _, size in rows if "/blobs/" in uri)

    def forget(self) -> None:
        (self.folder / "access.log").write_bytes(b"")


def _manifest(size: int = 1500) -> bytes:
    layers: list[dict[str, object]] = []
    content = b""
    while len(content) < size:
        layers.append({"mediaType": OCI_KINDS[1], "digest": digest_of(b"%d" % len(layers)), "size": 1000 + len(layers)})
        config = {"mediaType": OCI_KINDS[0], "digest": digest_of(b"config"), "size": 700}
        document = {"schemaVersion": 2, "mediaType": OCI_KINDS[2], "config": config, "layers": layers}
        content = json.dumps(document).encode()
    return content


@contextmanager
def origin(folder: Path) -> Iterator[Origin]:
    """nginx with one worker until the block ends; its log has a line `method uri status bytes` per request."""
    content = _manifest()
    digest = digest_of(content)
    manifests = folder / f"static/v2/{NAME}/manifests"
    manifests.mkdir(parents=True)
    (folder / "static/v2/index.html").write_text("{}")
    for name in (digest, TAG):
        (manifests / name).write_bytes(content)
    host = f"127.0.0.1:{free_port()}"
    (folder / "nginx.conf").write_text(_config(folder, host, digest))
    command = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with running(command, folder, "nginx", f"http://{host}/up"):
        yield Origin(f"http://{host}", folder, Blob(digest, len(content)))


def _config(folder: Path, host: str, digest: str) -> str:
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""\
        user root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
        events {{ worker_connections 1024; }}
        http {{
            {temporary}
            log_format short '$request_method $request_uri $status $body_bytes_sent';
            access_log {folder}/access.log short;
            default_type application/octet-stream; sendfile on; tcp_nopush on; etag off; keepalive_requests 1000000;
            server {{
                listen {host}; root {folder}/static; index index.html;
                location = /up {{ access_log off; return 200 "up"; }}
                location ~ /manifests/ {{
                    default_type {OCI_KINDS[2]};
                    add_header Docker-Content-Digest {digest};
                }}
            }}
        }}
        """
