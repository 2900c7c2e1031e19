"""`tidegate doctor`: every failure it names, made with real sockets, and the words it finds for it."""

import asyncio
import atexit
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

_SCRATCH = tempfile.mkdtemp(prefix="tidegate-doctor-")
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)
os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", _SCRATCH)  # before anything imports proxy.metrics

from proxy import config  # noqa: E402
from proxy.cli.doctor import render  # noqa: E402
from proxy.doctor import Limits, examine, folder, names  # noqa: E402
from proxy.doctor.report import Problem  # noqa: E402
from proxy.upstream import der  # noqa: E402
from tests.fakes import Basic, Bearer, Cut, Delay, Flip, Hangup, Html, IgnoreRange, Origin, Silence, Status  # noqa: E402
from tests.fakes.connect import Connect  # noqa: E402
from tests.real.certificates import Authority, authority  # noqa: E402
from tests.real.processes import free_port  # noqa: E402
from tests.real.tidegate import Tidegate, toml, upstream_config  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
LAYER = bytes(range(256)) * 6000
QUICK = Limits(step=1.5, whole=20, first_byte=3, slow=0.5)
Look = Callable[..., Any]


def image(origin: Origin, layer: bytes = LAYER) -> str:
    """pause:3.9 there; the layer's digest."""
    made = origin.add_image("pause", "3.9", layer)
    return next(digest for digest, content in made.blobs.items() if content == layer)


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """look(url, **keys) walks to registry.k8s.io/pause:3.9 at that URL; the printed report."""

    async def look(
        *urls: str,
        image: str = "",
        limits: Limits = QUICK,
        egress: Mapping[str, Any] | None = None,
        server: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> str:
        file = tmp_path / "t.toml"
        own = {"urls": urls, "allow_private": True, **keys}
        tables = {"server": server or {}, "egress": egress or {}, "upstreams": {"registry.k8s.io": own}}
        file.write_text(toml(tables | ({"local": local} if local else {})))
        found = await asyncio.to_thread(config.load, str(file), {}, {"--data": str(tmp_path)})
        report = await examine(found, image, inside=False, limits=limits)
        await asyncio.sleep(0.05)  # a fake notices a little later that it was hung up on
        text = render(report)
        assert text.endswith("All well." if not report["problems"] else "problem." if report["problems"] == 1 else "s.")
        return text

    return look


@pytest.fixture(scope="module")
def corp(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("corp"), "Corp Inspection CA")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("other"), "Some Root")


def has(text: str, *wanted: str) -> None:
    """Every one of these lines begins somewhere in the report, blanks run together."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for want in wanted:
        assert any(line.startswith(want) for line in lines), f"no line {want!r} in\n{text}"


# Well


async def test_all_well(look: Look, origin: Origin, tmp_path: Path) -> None:
    image(origin)
    text = await look(origin.url)
    has(text, f"ok config {tmp_path}/t.toml, no tidegate is running for", f"ok data {tmp_path}, ")
    has(text, "ok tcp 127.0.0.1 port", "ok api /v2/ answers 200", "ok hop 1 127.0.0.1 manifest 200 in")
    has(text, "ok manifest registry.k8s.io/pause:3.9, as its", "ok hop 2 127.0.0.1 blob 200", "ok throughput 1 MiB")
    has(text, "ok hop 3 127.0.0.1 blob 206", "ok range 127.0.0.1 sends the part", "All well.")


async def test_an_image_without_layers(look: Look, origin: Origin) -> None:
    config_ = origin.add_blob("pause", b"{}")
    about = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_, "size": 2}
    media_type = "application/vnd.oci.image.manifest.v1+json"
    document = {"schemaVersion": 2, "mediaType": media_type, "config": about, "layers": []}
    origin.add_manifest("pause", "3.9", json.dumps(document).encode(), media_type)
    text = await look(origin.url)
    has(text, "- throughput, range the image has no layer to try", "All well.")
    assert text.count("throughput") == 1


async def test_a_name_is_resolved_and_a_redirect_is_a_hop(look: Look, origin: Origin) -> None:
    digest = image(origin)
    async with Origin() as cdn:
        cdn.add_image("pause", "3.9", LAYER)
        origin.fault("/blobs/", Status(307, {"Location": f"{cdn.url}/v2/pause/blobs/{digest}"}))
        text = await look(origin.url.replace("127.0.0.1", "localhost"))
    has(text, "ok dns localhost is ", "ok hop 2 localhost blob 307 in", "ok hop 3 127.0.0.1 blob 200", "All well.")


async def test_an_index_leads_to_one_platform(look: Look, origin: Origin) -> None:
    made = origin.add_image("pause", "amd", LAYER)
    entry = {"digest": made.digest, "size": len(made.manifest), "platform": {"os": "linux", "architecture": "amd64"}}
    strange = {"digest": "sha256:" + "0" * 64, "platform": {"os": "windows", "architecture": "amd64"}}
    index = json.dumps({"schemaVersion": 2, "manifests": [strange, entry]}).encode()
    origin.add_manifest("pause", "3.9", index, "application/vnd.oci.image.index.v1+json")
    has(await look(origin.url), "ok manifest registry.k8s.io/pause:3.9, 2 platforms", "All well.")


async def test_tokens_and_accounts(look: Look, origin: Origin, tmp_path: Path) -> None:
    image(origin)
    origin.auth = Bearer()
    has(await look(origin.url), "ok token 127.0.0.1 gave one", "All well.")
    origin.auth = Basic("me", "secret")
    (tmp_path / "password").write_text("secret")
    account = {"username": "me", "password_file": str(tmp_path / "password")}
    text = await look(origin.url, **account)
    has(text, "ok token 127.0.0.1 takes user name and password", "All well.")
    assert "secret" not in text
    origin.auth = Bearer("me", "other")
    text = await look(origin.url, **account)
    has(
        text,
        "FAIL token 127.0.0.1: the token service answered 401",
        "Nodes see: failed to authorize",
        "Fix: check user",
    )


async def test_each_url_is_walked(look: Look, origin: Origin) -> None:
    image(origin)
    dead = f"http://127.0.0.1:{free_port()}"
    text = await look(dead, origin.url)
    has(text, f"ok source {dead}", "FAIL tcp", "- clock, api, manifest, throughput, range not reached")
    has(text, f"ok source {origin.url}", "ok range", "1 problem.")


# Configuration, image, data


async def test_names_of_images(look: Look, origin: Origin) -> None:
    image(origin)
    for name in ("pause:3.9", "registry.k8s.io/pause:3.9", "k8s.gcr.io/pause:3.9"):
        has(await look(origin.url, image=name), "ok manifest registry.k8s.io/pause:3.9")
    has(await look(origin.url, image="quay.io/x:1"), "FAIL image no upstream is called quay.io", "Fix: known are reg")
    has(await look(origin.url, image="Pause:3.9"), "FAIL image 'Pause' is not a repository name")
    text = await look(origin.url, image="pause:none")
    has(text, "FAIL hop 1 127.0.0.1 answered 404 for a manifest", "Nodes see: registry.k8s.io/pause:none: not found")
    assert origin.count(contains="ns=registry.k8s.io") > 0  # a mirror is told which registry is meant


async def test_a_name_without_registry_where_nobody_answers_for_those(look: Look, origin: Origin) -> None:
    text = await look(origin.url, image="pause:3.9", server={"unqualified": []})
    has(
        text,
        "FAIL image pause:3.9 names no registry, and [server] unqualified names no upstream",
        "Fix: write REGISTRY/NAME:TAG",
    )
    image(origin)
    both = {"unqualified": ["local", "registry.k8s.io"]}
    has(await look(origin.url, image="pause:3.9", server=both, local={"own": ["dev/*"]}), "All well.")
    text = await look(origin.url, image="pause:3.9", local={"own": ["dev/*"]})
    has(text, "FAIL image pause:3.9 names no registry, and [server] unqualified names no upstream")
    has(await look(origin.url, image="registry.k8s.io/pause:3.9", server={"unqualified": []}), "All well.")


async def test_offline_is_no_problem(look: Look, origin: Origin) -> None:
    has(await look(origin.url, offline=True), "- the way out registry.k8s.io is offline by", "All well.")
    assert not origin.log


async def test_a_ca_file_that_is_none(look: Look, origin: Origin, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    has(await look(origin.url, ca_file=str(tmp_path / "ca.pem")), "FAIL config [egress] ca_file, cert_file or key_file")


async def test_a_full_disk(look: Look, origin: Origin) -> None:
    image(origin)
    text = await look(origin.url, limits=Limits(free=1 << 60))
    has(text, "FAIL data", "Nodes see: no space left on device", "ok range", "1 problem.")


def test_the_data_folder(tmp_path: Path) -> None:
    assert folder.check(str(tmp_path / "later" / "data"), Limits()).endswith(", not made yet")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:5 / {tmp_path} rw shared:1 - nfs4 nas:/x rw\n")
    with pytest.raises(Problem) as found:
        folder.check(str(tmp_path), Limits(), str(mounts))
    assert "lies on nfs4, a network file system" in found.value.text
    assert folder.filesystem("/srv", mounts.read_text()) == "ext4"
    with pytest.raises(Problem, match="cannot be written to: Not a directory"):
        folder.check(str(mounts / "data"), Limits())


# The way there


async def test_a_name_nobody_knows(look: Look) -> None:
    text = await look("https://registry.invalid")
    has(text, "FAIL dns registry.invalid: the name cannot be resolved", "Fix: make this machine's name servers")
    has(text, "Nodes see: dial tcp: lookup registry.invalid: no such host", "- tcp, tls, clock, api, manifest, ")


async def test_name_servers_that_are_silent(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_aside", lambda call: asyncio.sleep(30))
    text = await look("https://registry.invalid", connect_timeout="100ms")
    has(text, "FAIL dns registry.invalid: no name server answered within 0.1 s")


async def test_nobody_listens(look: Look) -> None:
    port = free_port()
    text = await look(f"http://127.0.0.1:{port}")
    has(text, f"FAIL tcp 127.0.0.1 port {port}: connection refused", f"Nodes see: dial tcp 127.0.0.1:{port}: conn")


async def test_packets_are_dropped(look: Look) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the queue is full: further SYNs are dropped
            text = await look(f"http://127.0.0.1:{port}", connect_timeout="300ms")
    has(text, f"FAIL tcp 127.0.0.1 port {port}: no connection within 0.3 s", "Nodes see: dial tcp", "Fix: let this")


async def test_a_name_that_leads_inside(look: Look, origin: Origin) -> None:
    image(origin)
    origin.fault("/manifests/", Status(307, {"Location": f"http://localhost:{free_port()}/v2/x"}))
    text = await look(origin.url, allow_private=False)
    has(text, "FAIL hop 2 localhost not allowed by [egress] allow_private = false: ", "Fix: set [egress] allow_private")


async def test_our_own_rules(look: Look, origin: Origin) -> None:
    image(origin)
    text = await look(origin.url, deny=["127.*"])
    has(text, 'FAIL rules 127.0.0.1: not allowed by [egress] deny = "127.*"', "Fix: take 127.0.0.1 out of")


# TLS


@pytest.mark.real("openssl")
async def test_an_inspecting_firewall_and_its_ca(look: Look, corp: Authority) -> None:
    async with Origin(corp.context()) as origin:
        image(origin)
        text = await look(origin.url)
        has(text, 'FAIL tls 127.0.0.1: TLS issuer "Corp Inspection CA" is not trusted: an inspecting firewall')
        has(text, "Nodes see: x509: certificate signed by unknown authority", "- clock, api, manifest, throughput, ran")
        has(text, 'Fix: put that CA in a file and set [egress] ca_file = "/etc/ssl/corp.pem"', "1 problem.")
        assert not origin.log, "nothing may be sent to a host that is not trusted"
        text = await look(origin.url, ca_file=str(corp.ca))
        has(text, 'ok tls 127.0.0.1, issuer "Corp Inspection CA"', "All well.")
        assert "issuer Corp Inspection CA" in text


@pytest.mark.real("openssl")
async def test_it_inspects_the_second_host_only(look: Look, origin: Origin, corp: Authority) -> None:
    digest = image(origin)
    async with Origin(corp.context()) as cdn:
        origin.fault("/blobs/", Status(307, {"Location": f"{cdn.url}/v2/pause/blobs/{digest}"}))
        text = await look(origin.url)
    has(text, "ok hop 2 127.0.0.1 blob 307", 'FAIL hop 3 127.0.0.1 TLS issuer "Corp Inspection CA" is not trusted')
    has(text, "- throughput, range not reached", "1 problem.")


@pytest.mark.real("openssl")
async def test_a_certificate_for_another_name(look: Look, corp: Authority) -> None:
    async with Origin(corp.context()) as origin:
        url = f"https://127.0.0.2:{origin.host.partition(':')[2]}"
        async with Connect(names={url.removeprefix("https://"): origin.host}) as proxy:
            text = await look(url, proxy=proxy.url, ca_file=str(corp.ca))
    has(text, 'FAIL tls 127.0.0.2: the certificate (issuer "Corp Inspection CA") is for another name')


@pytest.mark.real("openssl")
async def test_a_certificate_that_has_expired(look: Look, tmp_path: Path) -> None:
    old = authority(tmp_path / "old")
    folder = tmp_path / "old"
    for command in (
        f"req -new -key {old.key} -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -out {folder}/csr",
        f"x509 -req -in {folder}/csr -CA {old.ca} -CAkey {folder}/ca.key -days -1 -copy_extensions copyall"
        f" -out {old.certificate}",
    ):
        await asyncio.to_thread(subprocess.run, ["openssl", *command.split()], check=True, capture_output=True)
    async with Origin(old.context()) as origin:
        text = await look(origin.url, ca_file=str(old.ca))
    has(
        text, "FAIL tls 127.0.0.1: the certificate (issuer", "Nodes see: x509: certificate has expired or is not yet va"
    )
    assert "has expired" in text


async def test_silence_when_tls_begins(look: Look, origin: Origin) -> None:
    text = await look(origin.url.replace("http:", "https:"), connect_timeout="200ms")
    has(text, "FAIL tls 127.0.0.1: the connection is cut or silent", "Fix: a firewall reads the name and drops it")


async def test_plain_text_where_tls_was_due(look: Look) -> None:
    async with await asyncio.start_server(_ssh, "127.0.0.1", 0) as server:
        text = await look(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    has(text, "FAIL tls 127.0.0.1: TLS fails: wrong version number", "Nodes see: tls: first record does not look")
    has(text, "Fix: is the scheme right (http for https)")


async def test_cut_when_tls_begins(look: Look) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.transport.abort()

    async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
        text = await look(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    has(text, "FAIL tls 127.0.0.1: the connection is cut or silent as soon as TLS begins", "Fix: a firewall reads the")


# The forward proxy


NAMED = "https://localhost"


@pytest.mark.real("openssl")
async def test_through_a_proxy_no_name_is_resolved(look: Look, other: Authority) -> None:
    async with Origin(other.context()) as origin:
        image(origin)
        async with Connect(names={"localhost:443": origin.host}) as proxy:
            proxy.account = "me:secret"
            url = proxy.url.replace("http://", "http://me:secret@")
            text = await look(NAMED, egress={"proxy": url, "ca_file": str(other.ca)})
    has(text, f"ok proxy {proxy.url} (from ", 'ok tls localhost, issuer "Some Root"', "All well.")
    assert "CONNECT allowed" in text
    assert "ok    dns" not in text
    assert "secret" not in text
    assert {entry.path for entry in proxy.log} == {"localhost:443"}


@pytest.mark.real("openssl")
async def test_a_proxy_that_looks_inside_and_strips_range(look: Look, corp: Authority, other: Authority) -> None:
    async with Origin(other.context()) as origin:
        image(origin)
        async with Connect(corp.context(), {"localhost:443": origin.host}) as proxy:
            text = await look(NAMED, proxy=proxy.url, ca_file=str(other.ca))
            has(
                text,
                'FAIL tls localhost: TLS issuer "Corp Inspection CA" is not trusted',
                f"Fix: add that CA to {other.ca}",
            )
            has(await look(NAMED, proxy=proxy.url, ca_file=str(corp.ca)), "All well.")
            proxy.strips = frozenset({"range"})
            text = await look(NAMED, proxy=proxy.url, ca_file=str(corp.ca))
            has(text, "FAIL range localhost: sent the whole blob when asked for a part: something on the way strips Ra")
            proxy.strips, proxy.wait = frozenset(), 0.8
            text = await look(NAMED, proxy=proxy.url, ca_file=str(corp.ca))
            has(text, "FAIL throughput localhost: first byte after 1 s: something on the way reads it all first")
            has(text, "Nodes see: timeout awaiting response headers", "ok range", "1 problem.")


@pytest.mark.parametrize(
    ("status", "offers", "said", "seen", "fix"),
    [
        (403, (), "answered 403 for registry.example:443", "Forbidden", "ask the proxy's team to allow registry.exam"),
        (502, (), "answered 502 for registry.example:443: it cannot", "Bad Gateway", "ask the proxy's team"),
        (407, ("NTLM", "Negotiate"), "answered 407, offering NTLM, Negotiate; this speaks Basic",
         "Proxy Authentication Required", "put a helper"),
        (407, ("Basic realm=x", "NTLM"), "answered 407, offering Basic, NTLM", "Proxy Authentication Required",
         "give it an account: set [egress] proxy_username and proxy_password_file"),
        (405, (), "answered 405", "Method Not Allowed", "is http://"),
    ],
)  # fmt: skip
async def test_a_proxy_that_refuses(look: Look, status: int, offers: Any, said: str, seen: str, fix: str) -> None:
    async with Connect() as proxy:
        proxy.status, proxy.offers = status, offers
        text = await look("https://registry.example", proxy=proxy.url)
    has(text, f"FAIL proxy {proxy.url} {said}", f"Nodes see: {seen}", f"Fix: {fix}", "- tls, clock, api, manifest, ")


async def test_a_wrong_account_at_the_proxy(look: Look) -> None:
    async with Connect() as proxy:
        proxy.account = "me:hunter2"
        text = await look("https://registry.example", proxy=proxy.url.replace("http://", "http://me:hunter1@"))
    has(text, "FAIL proxy", "Fix: the proxy does not take the account me")
    assert "hunter" not in text


async def test_the_proxy_refuses_a_redirect_only(look: Look, origin: Origin) -> None:
    digest = image(origin)
    origin.fault("/blobs/", Status(307, {"Location": f"https://cdn.example/v2/pause/blobs/{digest}"}))
    async with Connect() as proxy:
        proxy.deny = {"cdn.example:443"}
        text = await look(origin.url, proxy=proxy.url)
    has(
        text, "ok proxy", f"FAIL hop 3 cdn.example {proxy.url} answered 403 for cdn.example:443", "Nodes see: Forbidden"
    )


async def test_plain_http_through_a_proxy(look: Look, origin: Origin) -> None:
    image(origin)
    async with Connect() as proxy:
        has(await look(origin.url, proxy=proxy.url), "ok proxy", "All well.")
        assert {entry.method for entry in proxy.log} == {"GET"}
        has(await look(origin.url, proxy=proxy.url, no_proxy=["127.0.0.1"]), "All well.")
        proxy.status = 407
        has(await look(origin.url, proxy=proxy.url), "FAIL proxy", "Nodes see: Proxy Authentication Required")


async def test_the_proxy_itself(look: Look, origin: Origin) -> None:
    text = await look("https://registry.example", proxy=f"http://127.0.0.1:{free_port()}")
    has(text, "FAIL tcp 127.0.0.1 port", "- proxy, tls, clock, api")
    text = await look("https://registry.example", proxy="http://proxy.invalid:3128")
    has(text, "FAIL dns proxy.invalid: the name cannot be resolved")
    async with await asyncio.start_server(_ssh, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        text = await look("https://registry.example", proxy=url)
    has(text, "FAIL proxy proxy 127.0.0.1: does not answer in HTTP")


async def _ssh(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-x\r\n\r\n")
    await writer.drain()
    writer.close()


# What comes back


async def test_a_clock_that_is_wrong(look: Look, origin: Origin) -> None:
    image(origin)
    origin.fault("/v2/", Status(200, {"Date": formatdate(1_700_000_000, usegmt=True)}), times=1)
    text = await look(origin.url)
    has(
        text,
        "FAIL clock this machine's clock is",
        "Nodes see: x509: certificate has expired or is not yet valid",
        "ok range",
    )
    origin.fault("/v2/", Status(200, {"Date": formatdate(usegmt=True)}), times=1)
    has(await look(origin.url), "ok clock within 1 s", "All well.")
    origin.fault("/v2/", Status(200, {"Date": "soon"}), times=1)
    has(await look(origin.url), "- clock the Date that was sent cannot be read", "All well.")


async def test_a_block_page(look: Look, origin: Origin) -> None:
    image(origin)
    for path, step, due in (
        ("/v2/", "api", "/v2/"),
        ("/manifests/", "hop 1", "a manifest"),
        ("/blobs/", "hop 2", "a blob"),
    ):
        rule = origin.fault(path, Html())
        text = await look(origin.url)
        origin.rules.remove(rule)
        has(text, f"FAIL {step} 127.0.0.1", "Fix: ask the firewall's or proxy's team to allow 127.0.0.1", "1 problem.")
        assert f"answered a web page (200) where {due} was due: a block or login page" in text


async def test_a_redirect_to_a_login_page(look: Look, origin: Origin) -> None:
    image(origin)
    origin.fault("/manifests/", Status(302, {"Location": "https://login.corp.example/?from=x"}))
    text = await look(origin.url, allow=["127.0.0.1"])
    has(text, "FAIL hop 2 login.corp.example not allowed by [egress] allow", "Fix: if login.corp.example belongs to")
    origin.rules.clear()
    origin.fault("/manifests/", Status(302, {"Location": "ftp://login.corp.example/"}))
    has(
        await look(origin.url), "FAIL hop 1 127.0.0.1 redirected to something that is not http", "Nodes see: a redirect"
    )


@pytest.mark.parametrize(
    ("status", "seen"),
    [(401, "401 Unauthorized"), (403, "403 Forbidden"), (429, "429 Too Many"), (503, "unexpected status 503")],
)
async def test_statuses(look: Look, origin: Origin, status: int, seen: str) -> None:
    image(origin)
    origin.fault("/manifests/", Status(status))
    text = await look(origin.url)
    has(text, f"FAIL hop 1 127.0.0.1 answered {status} for a manifest", f"Nodes see: {seen}", "- manifest, throughput")


async def test_no_answer(look: Look, origin: Origin) -> None:
    image(origin)
    rule = origin.fault("/manifests/", Silence())
    text = await look(origin.url)
    has(text, "FAIL hop 1 127.0.0.1 accepted the connection and did not answer within 1.5 s", "Nodes see: net/http")
    origin.rules.remove(rule)
    origin.fault("/manifests/", Hangup())
    has(await look(origin.url), "FAIL hop 1 127.0.0.1 closed the connection without an answer", "Nodes see: EOF")


async def test_range_is_ignored(look: Look, origin: Origin) -> None:
    image(origin)
    origin.fault("/blobs/", IgnoreRange())
    has(await look(origin.url), "FAIL range 127.0.0.1: sent the whole blob", "ok throughput 1 MiB", "1 problem.")


async def test_a_slow_first_byte(look: Look, origin: Origin) -> None:
    image(origin)
    origin.fault("/blobs/", Delay(0.8))
    text = await look(origin.url)
    has(text, "FAIL throughput 127.0.0.1: first byte after 1 s", "Fix: ask the proxy's team to take 127.0.0.1 out of")


async def test_a_body_that_breaks_or_lies(look: Look, origin: Origin) -> None:
    image(origin, b"tiny layer, smaller than a MiB" * 20)
    rule = origin.fault("/blobs/", Cut(100))
    has(
        await look(origin.url),
        "FAIL throughput 127.0.0.1: the body is cut after 100 bytes",
        "Nodes see: unexpected EOF",
    )
    origin.rules.remove(rule)
    rule = origin.fault("/blobs/", Flip(3))
    has(await look(origin.url), "FAIL throughput 127.0.0.1: sent a blob that does not match its digest")
    origin.rules.remove(rule)
    rule = origin.fault("/manifests/", Flip(3))
    has(await look(origin.url), "FAIL manifest 127.0.0.1: sent a manifest that does not match its digest")
    origin.rules.remove(rule)
    origin.add_manifest("pause", "odd", b"[1]")
    has(await look(origin.url, image="pause:odd"), "FAIL manifest 127.0.0.1: what it sent is no manifest")


async def test_the_whole_ends(look: Look, origin: Origin) -> None:
    image(origin)
    origin.fault("/manifests/", Silence())
    text = await look(origin.url, limits=Limits(whole=0.3))
    has(text, "FAIL hop 1 127.0.0.1 accepted the connection and did not answer")
    text = await look(origin.url, limits=Limits(whole=-1))
    has(text, "FAIL tcp no time left: everything together gets -1 s")


# Certificates read without being trusted


@pytest.mark.real("openssl")
def test_the_issuer_of_a_certificate(corp: Authority) -> None:
    certificate = ssl.PEM_cert_to_DER_cert(corp.certificate.read_text())
    assert der.issuer(certificate) == {"CN": "Corp Inspection CA"}
    for end in range(len(certificate)):
        with pytest.raises(ValueError):
            der.issuer(certificate[:end])


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None, database=None)
def test_no_certificate_does_harm(content: bytes) -> None:
    try:
        assert isinstance(der.issuer(content), dict)
    except ValueError:
        pass


# The command


def doctor(*words: str, **environ: str) -> tuple[int, str, str]:
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ}
    command = [sys.executable, "-m", "proxy", "doctor", *words]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def test_the_command_inside_the_service_and_alone(
    far: Origin, tidegate: Callable[..., Tidegate], tmp_path: Path
) -> None:
    image(far)
    server = tidegate(upstream_config(far.url))
    file, data = tmp_path / "tidegate" / "config.toml", str(server.data)
    status, text, errors = doctor("-c", str(file), "--data", data)
    assert (status, errors) == (0, ""), text
    has(text, f"ok config {file}, asked inside the running service", "All well.")
    status, text, _ = doctor("-c", str(file), "--data", data, "--json", "registry.k8s.io/pause:none")
    report = json.loads(text)
    assert (status, report["inside"], report["problems"]) == (1, True, 1)
    assert server.stop() == 0
    status, text, errors = doctor("-c", str(file), "--data", data)
    assert (status, errors) == (0, "")
    has(text, f"ok config {file}, no tidegate is running for {data}", "All well.")


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text("[egres]\n")
    status, text, errors = doctor("-c", str(file))
    assert (status, errors) == (1, "")
    has(text, f"FAIL config {file}:1: unknown section [egres]", "- everything else not reached", "1 problem.")
