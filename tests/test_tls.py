"""Our own TLS as clients meet it: the right certificate, the next one while connections run, none of the wrong ones.

Every certificate is made by the test. What a client got is compared with what the origin has, because under TLS bytes
take another way out than the kernel's.
"""

import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack

import pytest

from tests.fakes import Drip
from tests.real.certificates import authority
from tests.real.processes import free_port
from tests.real.tidegate import ROOT, upstream_config
from tests.real.tidegate import tidegate as running_tidegate
from tests.real.tools import curl, skopeo
from tests.support import MIB, blob_path, client, crowd, get, noise, quick, until

REGISTRY = "registry.k8s.io"
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def made(tmp_path):
    """An authority and a certificate of the server's."""
    return authority(tmp_path / "ca")


def with_tls(config, made, **keys):
    return config | {"tls": {"cert_file": str(made.certificate), "key_file": str(made.key), **keys}}


def shown(server):
    """The certificate a new connection is shown, as bytes; nothing is verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = server.host.split(":")
    with socket.create_connection((host, int(port)), 5) as plain, context.wrap_socket(plain) as secured:
        return secured.getpeercert(binary_form=True)


def of(made):
    return ssl.PEM_cert_to_DER_cert(made.certificate.read_text())


def put(made, target):
    """Another pair in place of the first, the way it is renewed: one file after the other."""
    shutil.copy(made.certificate, target.certificate)
    shutil.copy(made.key, target.key)


# Bytes


def test_what_arrives_is_what_the_upstream_has(tidegate, far, made):
    content = noise(5 * MIB + 17)
    digest = far.add_blob("app", content)
    far.fault(digest, Drip(256 << 10, 0.01), times=1)
    server = tidegate(with_tls(quick(far.url), made), workers=2, trust=made.trust())
    path = blob_path("app", digest)
    assert get(server, path).is_blob(content), "while it arrives"
    assert get(server, path).is_blob(content), "from the disk"
    part = get(server, path, Range=f"bytes={MIB - 3}-{3 * MIB + 5}")
    assert (part.status, part.body) == (206, content[MIB - 3 : 3 * MIB + 6])
    assert far.count("GET", digest) == 1
    sent = server.metrics().total("tidegate_client_bytes_total", kind="blob")
    assert sent == 2 * len(content) + len(part.body)


def test_many_read_one_download(tidegate, far, made):
    """Each reads at its own place of one file that grows."""
    content = noise(6 * MIB)
    digest = far.add_blob("app", content)
    far.fault(digest, Drip(256 << 10, 0.02), times=1)
    server = tidegate(with_tls(quick(far.url), made), workers=1, trust=made.trust())
    with ExitStack() as stack:
        readers = [stack.enter_context(client(server)) for _ in range(6)]
        assert all(got.is_blob(content) for got in crowd(readers, blob_path("app", digest)))
    assert far.count("GET", digest) == 1


def test_a_client_that_leaves_costs_nobody_else(tidegate, far, made):
    content = noise(8 * MIB)
    digest = far.add_blob("app", content)
    server = tidegate(with_tls(quick(far.url), made), workers=1, trust=made.trust())
    with client(server) as gone:
        gone.start(blob_path("app", digest)).read(1000)
        gone.leave()
    assert get(server, blob_path("app", digest)).is_blob(content)
    assert "Traceback" not in server.stderr


# Real clients


@pytest.mark.real("containerd", "skopeo")
@pytest.mark.xdist_group("world")
def test_containerd_and_skopeo_over_tls(tidegate, upstream, node, made, tmp_path):
    server = tidegate(with_tls(upstream_config(upstream.url), made), workers=2, trust=made.trust())
    node.mirror(REGISTRY, server.url, f'ca = "{made.ca}"', server=NOWHERE)
    name = node.node()
    done = node.fetch(upstream.image.ref(REGISTRY), name, "--all-platforms")
    assert done.returncode == 0, done.stderr
    assert node.digests(name) == {each.digest for each in upstream.image.manifests} | set(upstream.image.blobs)
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    shutil.copy(made.ca, trusted / "ca.crt")
    ref = upstream.image.ref(f"{server.host}/{REGISTRY}")
    done = skopeo("copy", "--all", "--src-cert-dir", str(trusted), f"docker://{ref}", f"dir:{tmp_path / 'pulled'}")
    assert done.returncode == 0, done.stderr
    strange = skopeo("copy", f"docker://{ref}", f"dir:{tmp_path / 'refused'}")
    assert "certificate signed by unknown authority" in strange.stderr


def test_curl_speaks_every_version_we_allow(tidegate, far, made):
    server = tidegate(with_tls(upstream_config(far.url), made), workers=1, trust=made.trust())
    for version in ("--tlsv1.2", "--tlsv1.3"):
        done = curl("--cacert", str(made.ca), version, "--tls-max", version[-3:], f"{server.url}/v2/")
        assert (done.returncode, done.stdout) == (0, b"{}"), done.stderr
    old = curl("--cacert", str(made.ca), "--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0", f"{server.url}/v2/")
    assert old.returncode == 35, "TLS 1.1"


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_plain_http_is_told_to_use_https(tidegate, far, made, version):
    server = tidegate(with_tls(upstream_config(far.url), made), workers=1, trust=made.trust())
    done = curl("-i", version, f"http://{server.host}/v2/")
    head, _, body = done.stdout.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 400 tidegate: this port speaks https")
    assert "https://" in body
    assert get(server, "/v2/").status == 200


def test_what_is_neither_is_cut_off(tidegate, far, made):
    server = tidegate(with_tls(upstream_config(far.url), made), workers=1, trust=made.trust())
    host, port = server.host.split(":")
    for junk in (b"\x16\x03\x01\x00\x05junk!", b"\x16" * 400, b""):
        with socket.create_connection((host, int(port)), 5) as strange:
            strange.sendall(junk)
            strange.shutdown(socket.SHUT_WR)
            strange.settimeout(5)
            while strange.recv(1000):
                pass
    assert get(server, "/v2/").status == 200
    assert "Traceback" not in server.stderr


# Client certificates


def test_only_clients_with_a_certificate_of_ours(tidegate, far, made, tmp_path):
    people, strangers = authority(tmp_path / "people", "People CA"), authority(tmp_path / "strangers", "Strangers CA")
    config = with_tls(upstream_config(far.url), made, client_ca_file=str(people.ca))
    server = tidegate(config, workers=2, trust=made.trust(people))
    url, trust = f"{server.url}/v2/", ["--cacert", str(made.ca)]
    shows = [*trust, "--cert", str(people.certificate), "--key", str(people.key)]
    assert curl(*shows, url).stdout == b"{}"
    for version in ("1.2", "1.3"):
        for wrong in ([], ["--cert", str(strangers.certificate), "--key", str(strangers.key)]):
            done = curl(*trust, *wrong, "--tls-max", version, url)
            assert (done.returncode != 0, done.stdout) == (True, b"")
    assert curl(*shows, url).stdout == b"{}"
    assert "a client was not let in: peer did not return a certificate" in server.stderr
    assert "a client was not let in: certificate verify failed" in server.stderr


# Renewal


def test_a_new_certificate_is_taken_while_an_old_connection_runs(tidegate, far, made, tmp_path):
    content = noise(3 * MIB)
    digest = far.add_blob("app", content)
    far.fault(digest, Drip(32 << 10, 0.05), times=1)
    server = tidegate(with_tls(quick(far.url), made), workers=2, trust=made.trust())
    before = of(made)
    assert shown(server) == before
    with client(server) as slow:
        response = slow.start(blob_path("app", digest))
        first = response.read(1000)
        new = authority(tmp_path / "new", "Next CA")
        put(new, made)
        until(lambda: {shown(server) for _ in range(8)} == {of(new)})
        assert first + response.read() == content
    assert re.search(r"new certificate from \S+server.pem, good until 20", server.stderr)
    ends = ssl.cert_time_to_seconds(enddate(made))
    assert server_metric(server, new) == ends
    assert far.count("GET", digest) == 1


def enddate(made):
    command = ["openssl", "x509", "-in", str(made.certificate), "-noout", "-enddate"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().partition("=")[2]


def server_metric(server, trusted):
    server.trust = trusted.trust()
    return server.metrics().total("tidegate_certificate_not_after_seconds")


def test_a_broken_pair_is_refused_once_and_the_old_one_goes_on(tidegate, far, made, tmp_path):
    server = tidegate(with_tls(upstream_config(far.url), made), workers=3, trust=made.trust())
    good = of(made)
    new = authority(tmp_path / "new", "Next CA")
    shutil.copy(new.key, made.key)
    until(lambda: "the certificate stays as it was: " in server.stderr)
    time.sleep(1.2)  # every worker has looked
    assert server.stderr.count("the certificate stays as it was: ") == 1
    assert f"key_file {made.key} is not the key of tls.cert_file {made.certificate}" in server.stderr
    assert {shown(server) for _ in range(8)} == {good}
    made.key.unlink()
    until(lambda: server.stderr.count("the certificate stays as it was: ") == 2)
    assert f"cannot read tls.key_file {made.key}: No such file or directory" in server.stderr
    assert {shown(server) for _ in range(8)} == {good}
    put(new, made)
    until(lambda: {shown(server) for _ in range(8)} == {of(new)})


# The start


def test_the_first_lines_and_the_clients_say_https(far, made, tmp_path):
    config = with_tls(upstream_config(far.url), made)
    with running_tidegate(config, folder=tmp_path / "t", workers=1, trust=made.trust()) as server:
        assert f"serving  https://{server.host}, 1 worker\n" in server.stdout
        command = [sys.executable, "-m", "proxy", "client-config", "containerd", "-c", str(tmp_path / "t/config.toml")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert 'server = "https://127.0.0.1:5000"' in done.stdout


def started(tmp_path, keys):
    """(exit status, its one line) of a server that must not start."""
    folder = tmp_path / "t"
    folder.mkdir(exist_ok=True)
    lines = [f'{key} = "{value}"' for key, value in keys.items()]
    (folder / "config.toml").write_text("\n".join(["[tls]", *lines]))
    command = [sys.executable, "-m", "proxy", "serve", "-c", str(folder / "config.toml"),
               "--listen", f"127.0.0.1:{free_port()}", "--data", str(folder / "data")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=20)
    return done.returncode, done.stderr


def written(path, content):
    path.write_text(content)
    return path


def encrypted(made, path):
    command = ["openssl", "pkey", "-in", made.key, "-aes128", "-passout", "pass:x", "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    return path


MISTAKES = {
    "missing": (lambda m, d: {"cert_file": d / "no.pem"}, r"cannot read tls.cert_file /\S+/no.pem: No such file"),
    "not-pem": (lambda m, d: {"cert_file": written(d / "x", "hello")}, "tls.cert_file .* holds no certificate in PEM"),
    "no-key": (lambda m, d: {"cert_file": m.certificate}, "tls.cert_file .* holds no private key in PEM"),
    "key-missing": (lambda m, d: {"cert_file": m.certificate, "key_file": d / "no.key"}, "cannot read tls.key_file"),
    "other-key": (
        lambda m, d: {"cert_file": m.ca, "key_file": m.key},
        r"tls.key_file /\S+server.key is not the key of tls.cert_file /\S+ca.pem",
    ),
    "encrypted": (
        lambda m, d: {"cert_file": m.certificate, "key_file": encrypted(m, d / "k")},
        "tls.key_file .*: the key is encrypted",
    ),
    "damaged": (
        lambda m, d: {"cert_file": written(d / "x", m.certificate.read_text()[:200]), "key_file": m.key},
        "tls: .*x and .*server.key cannot be used: ",
    ),
    "client-ca": (
        lambda m, d: {"cert_file": m.certificate, "key_file": m.key, "client_ca_file": m.key},
        "tls.client_ca_file .* holds no certificate in PEM",
    ),
    "alone": (lambda m, d: {"key_file": m.key}, r"config.toml:2: tls.key_file has no effect without a certificate"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_wrong_file_is_one_line(made, tmp_path, name):
    keys, said = MISTAKES[name]
    status, output = started(tmp_path, keys(made, tmp_path))
    assert status == 1
    assert re.search(said, output), output
    assert output.count("\n") == 1
    assert "BEGIN" not in output.replace("-----BEGIN ...", "")


def test_an_expired_certificate_is_a_warning(far, made, tmp_path):
    request, old = tmp_path / "old.csr", tmp_path / "old.pem"
    openssl = ["openssl", "req", "-new", "-key", made.key, "-subj", "/CN=localhost", "-out", request]
    subprocess.run(openssl, check=True, capture_output=True)
    openssl = ["openssl", "x509", "-req", "-in", request, "-signkey", made.key, "-days", "-1", "-out", old]
    subprocess.run(openssl, check=True, capture_output=True)
    config = upstream_config(far.url) | {"tls": {"cert_file": str(old), "key_file": str(made.key)}}
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    with running_tidegate(config, folder=tmp_path / "t", workers=1, trust=careless) as server:
        assert re.search(r"old.pem: the certificate expired on 20\d\d-\d\d-\d\d, clients will refuse it", server.stderr)


def test_no_warning_of_plain_http_where_there_is_none(made, tmp_path):
    keys = {"cert_file": made.certificate, "key_file": made.key}
    folder = tmp_path / "t"
    folder.mkdir()
    lines = [f'{key} = "{value}"' for key, value in keys.items()]
    (folder / "config.toml").write_text("\n".join(["[tls]", *lines]))
    port = free_port()
    command = [sys.executable, "-m", "proxy", "serve", "-c", str(folder / "config.toml"),
               "--listen", f"0.0.0.0:{port}", "--data", str(folder / "data")]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT) as process:
        try:
            lines = [process.stdout.readline() for _ in range(4)]
        finally:
            process.terminate()
            process.wait(20)
    assert lines[1] == f"serving  https://0.0.0.0:{port}, {lines[1].split()[2]} {lines[1].split()[3]}\n"
