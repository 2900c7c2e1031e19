"""A certificate authority of the tests' own, like that of an inspecting firewall: nobody trusts it by default."""

import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.real.processes import program

_COMMON = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]


@dataclass(frozen=True, slots=True)
class Authority:
    """`ca` is the file to trust; `context()` is for a server on 127.0.0.1 and localhost, `trust()` for its clients."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context

    def trust(self, own: "Authority | None" = None) -> ssl.SSLContext:
        """For a client that trusts this authority alone, and shows the certificate of `own`."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if own is not None:
            context.load_cert_chain(own.certificate, own.key)
        return context


def authority(folder: Path, name: str = "Corp Inspection CA", hosts: Sequence[str] = ()) -> Authority:
    """Makes an authority and one server certificate in `folder`, good for two days, and for `hosts` too."""
    folder.mkdir(parents=True, exist_ok=True)
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    names = ",".join(("IP:127.0.0.1", "DNS:localhost", *(f"DNS:{host}" for host in hosts)))
    made = Authority(ca, folder / "server.pem", folder / "server.key")
    _openssl("req", "-x509", *_COMMON, "-subj", f"/CN={name}", "-keyout", ca_key, "-out", ca)
    _openssl(
        "req", "-x509", *_COMMON, "-subj", "/CN=localhost", "-CA", ca, "-CAkey", ca_key,
        "-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE",
        "-keyout", made.key, "-out", made.certificate,
    )  # fmt: skip
    return made


def _openssl(*args: str | Path) -> None:
    subprocess.run([program("openssl") or "openssl", *map(str, args)], check=True, capture_output=True)
