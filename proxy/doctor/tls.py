"""TLS: who vouches for a host, and when nobody we trust does, who says so instead.

An inspecting firewall shows itself by the issuer of a certificate we do not trust. Its name is read in a second
handshake that verifies nothing and sends nothing.
"""

import asyncio
import ssl

from proxy.doctor.dial import Line
from proxy.doctor.limits import Budget
from proxy.doctor.report import Problem, plain
from proxy.upstream.issuer import issuer_name

_EXPIRED, _NOT_YET, _OTHER_NAME = (10,), (9,), (62, 64)
"""OpenSSL's X509_V_ERR numbers."""
_INSPECTORS = ("zscaler", "fortinet", "fortigate", "palo alto", "netskope", "blue coat", "bluecoat", "forcepoint",
               "cisco umbrella", "sophos", "check point", "mcafee", "skyhigh", "squid", "mitmproxy", "kaspersky",
               "inspection", "firewall")  # fmt: skip


class Untrusted(Exception):
    """The certificate does not verify; `error` says why, its issuer is still to be read."""

    def __init__(self, error: ssl.SSLCertVerificationError) -> None:
        super().__init__()
        self.error = error


async def handshake(line: Line, context: ssl.SSLContext, host: str, budget: Budget, seconds: float) -> str:
    """Speak TLS on this connection from now on; who issued the certificate. Raises Untrusted, Problem."""
    try:
        async with budget.within("tls", seconds):
            await line.writer.start_tls(context, server_hostname=host, ssl_handshake_timeout=seconds)
    except ssl.SSLCertVerificationError as error:
        raise Untrusted(error) from None
    except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
        raise Problem(
            "tls",
            f"{host}: the connection is cut or silent as soon as TLS begins",
            nodes_see="EOF, connection reset by peer, or TLS handshake timeout",
            fix=f"a firewall reads the name and drops it: ask its team to allow {host} port 443",
        ) from None
    except OSError as error:
        words = plain(getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
        raise Problem(
            "tls",
            f"{host}: TLS fails: {words}",
            nodes_see="tls: " + ("first record does not look like a TLS handshake" if "version" in words else words),
            fix="is the scheme right (http for https), or does a firewall answer in the host's place?",
        ) from None
    return _issuer(line)


def _issuer(line: Line) -> str:
    return plain(issuer_name(line.writer.get_extra_info("ssl_object").getpeercert(binary_form=True) or b""))


def untrusted(host: str, error: ssl.SSLCertVerificationError, issuer: str, ca_file: str) -> Problem:
    """Why a certificate is not accepted, in words, and what to change."""
    if error.verify_code in (*_EXPIRED, *_NOT_YET):
        when = "has expired" if error.verify_code in _EXPIRED else "is not valid yet"
        return Problem(
            "tls",
            f'{host}: the certificate (issuer "{issuer}") {when}',
            nodes_see="x509: certificate has expired or is not yet valid",
            fix="see that this machine's clock is right (timedatectl); if it is, tell whoever runs that host",
        )
    if error.verify_code in _OTHER_NAME:
        return Problem(
            "tls",
            f'{host}: the certificate (issuer "{issuer}") is for another name',
            nodes_see=f"x509: certificate is valid for another name, not {host}",
            fix=f"DNS or a firewall leads {host} to another machine; ask its team",
        )
    inspected = any(word in issuer.lower() for word in _INSPECTORS)
    return Problem(
        "tls",
        f'{host}: TLS issuer "{issuer}" is not trusted' + (": an inspecting firewall" if inspected else ""),
        nodes_see="x509: certificate signed by unknown authority",
        fix=(f"add that CA to {ca_file}" if ca_file else
             'put that CA in a file and set [egress] ca_file = "/etc/ssl/corp.pem"'),
    )  # fmt: skip
