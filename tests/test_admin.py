"""/api/ as programs and commands of other machines use it: the token, what everybody sees, the port of its own, and the
description of all that. Everything goes over real connections.
"""

import http.client
import http.server
import json
import re
import socket
import subprocess
import sys
import threading
from contextlib import closing

import bcrypt
import jsonschema
import pytest

from tests.fakes import Stall
from tests.real.certificates import authority
from tests.real.processes import fetch, free_port
from tests.real.tidegate import ROOT, upstream_config
from tests.support import MIB, blob_path, client, get, kept, noise, until

TOKEN = "a-token-of-some-length"
REGISTRY, PRIVATE = "registry.k8s.io", "private.example"


@pytest.fixture
def token(tmp_path):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


def admin(token, **more):
    return {"admin": {"token_file": str(token), **more}}


def asked(server, path, method="GET", body=None, **headers):
    """Status, headers, JSON of one request over TCP; `headers` with the token unless it is None."""
    headers = {"Authorization": f"Bearer {TOKEN}"} | {name.replace("_", "-"): text for name, text in headers.items()}
    sent = {name: text for name, text in headers.items() if text is not None}
    host, port = server.removeprefix("http://").split(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=20)) as connection:
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        text = answer.read()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, answer.headers, json.loads(text) if text and is_json else text


def socket_asks(server, path):
    with closing(http.client.HTTPConnection("tidegate")) as connection, socket.socket(socket.AF_UNIX) as unix:
        unix.connect(str(server.data / "admin.sock"))
        connection.sock = unix
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "proxy", *words], capture_output=True, text=True, timeout=60, cwd=ROOT
    )  # fmt: skip


def test_the_token_opens_everything_and_nothing_else_does(tidegate, far, token):
    server = tidegate(upstream_config(far.url) | admin(token), workers=2)
    assert asked(server.url, "/api/status")[2]["view"] == "full"
    assert asked(server.url, "/api/status", Authorization=None)[2]["view"] == "public"
    for path in ("/api/egress", "/api/legacy", "/api/doctor", "/api/images?search="):
        assert asked(server.url, path)[0] == 200
    for given in ("Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", "Bearer \xe4"):
        for path in ("/api/status", "/api/egress", "/api/nothing"):
            status, headers, said = asked(server.url, path, Authorization=given)
            assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="tidegate"')
            assert TOKEN not in json.dumps(said)
    for page in ("GET egress", "HEAD doctor", "POST pins", "DELETE pins", "POST remove", "POST scrub"):
        method, _, name = page.partition(" ")
        path = f"/api/{name}"
        for given in (None, "Basic dGlkZTpnYXRl"):
            status, headers, _ = asked(server.url, path, method, Authorization=given)
            assert (status, headers["WWW-Authenticate"]) == (401, 'Bearer realm="tidegate"')
    assert asked(server.url, "/api/nothing", Authorization=None)[0] == 404
    assert asked(server.url, "/api/pins?set=x", "DELETE")[0] == 404
    assert TOKEN not in server.stdout + server.stderr
    [row] = until(lambda: [row for row in socket_asks(server, "/api/status")["problems"] if row["status"] == 401][:1])
    assert row["image"].startswith("/api/") and row["client"] == "127.0.0.1"


def test_a_changed_token_counts_at_once_and_a_bad_one_opens_nothing(tidegate, token):
    server = tidegate(admin(token))
    assert asked(server.url, "/api/egress")[0] == 200
    token.write_text("another-token-of-some-length")
    assert asked(server.url, "/api/egress")[0] == 401
    assert asked(server.url, "/api/egress", Authorization="bearer another-token-of-some-length")[0] == 200
    for text in ("short", "", "two words are no token"):
        token.write_text(text)
        for given in (f"Bearer {text}", "Bearer ", "Bearer another-token-of-some-length", f"Bearer {TOKEN}"):
            assert asked(server.url, "/api/egress", Authorization=given.strip())[0] == 401
    token.unlink()
    assert asked(server.url, "/api/egress")[0] == 401
    assert asked(server.url, "/api/status", Authorization=None)[0] == 200


@pytest.mark.parametrize(
    ("text", "why"), [("short\n", "at least 16"), (None, "No such file"), ("a b " * 9, "one word")]
)
def test_a_token_file_that_cannot_be_one_is_said_at_the_start(tmp_path, text, why):
    file, config = tmp_path / "token", tmp_path / "config.toml"
    if text is not None:
        file.write_text(text)
    config.write_text(f'[admin]\ntoken_file = "{file}"\n')
    done = run("serve", "--config", str(config), "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"admin.token_file {file} ") and why in done.stderr
    assert "short" not in done.stderr


def test_without_a_token_file_only_the_socket_has_it_all(tidegate):
    server = tidegate()
    assert asked(server.url, "/api/egress")[0] == 401
    assert asked(server.url, "/api/status")[0] == 401
    assert asked(server.url, "/api/status", Authorization=None)[2]["view"] == "public"
    assert socket_asks(server, "/api/egress") == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_sites_page_asks_for_nothing(tidegate, token, method):
    server = tidegate(admin(token))
    for foreign in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"},
                    {"Sec_Fetch_Site": "same-site"}, {"Origin": "http://["}):  # fmt: skip
        for path in ("/api/status", "/api/scrub"):
            assert asked(server.url, path, method, **foreign)[0] == 403
    own = {"Origin": server.url, "Sec_Fetch_Site": "same-origin"}
    assert asked(server.url, "/api/status", **own)[0] == 200
    assert asked(server.url, "/api/scrub", "POST", b"{}", **own)[0] == 200


def test_a_port_of_its_own_takes_all_of_it(tidegate, far, token):
    port = free_port()
    desk = f"http://127.0.0.1:{port}"
    server = tidegate(upstream_config(far.url) | admin(token, listen=f"127.0.0.1:{port}"), workers=2)
    assert f"admin    {desk}\n" in server.stdout
    assert f" | {desk}/\n" in server.stdout
    for path in ("/healthz", "/readyz"):
        assert fetch(server.url + path)[0] == fetch(desk + path)[0] == 200
    for path in ("/metrics", "/api/status", "/api/openapi.json", "/api/egress"):
        assert asked(server.url, path)[0] == 404
        assert asked(desk, path)[0] == 200
    assert asked(desk, "/v2/")[0] == 404
    assert asked(server.url, "/v2/")[0] == 200
    assert asked(desk, "/api/status")[2]["admin_listen"] == f"127.0.0.1:{port}"
    moved = run("status", "--server", server.url, "--token-file", str(token))
    assert (moved.returncode, moved.stderr) == (
        1,
        f"{server.url} has no /api/: where admin.listen is set, it is at that address\n",
    )
    assert server.stop() == 0
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_a_port_that_is_taken_is_said(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = tmp_path / "config.toml"
        config.write_text(f'[admin]\nlisten = "127.0.0.1:{port}"\n')
        done = run("serve", "--config", str(config), "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert re.fullmatch(
        rf"port {port} is taken by pid \d+ \(.*\); use \[admin\] listen = 127.0.0.1:{port + 1}\n", done.stderr
    )


@pytest.mark.parametrize("pull", ["anyone", "users"])
def test_everybody_sees_only_what_they_could_pull(tidegate, far, tmp_path, pull):
    users = tmp_path / "users"
    users.write_text(f"me:{bcrypt.hashpw(b'x', bcrypt.gensalt(4)).decode()}\n")
    image = far.add_image("pause", "3.9")
    account = {REGISTRY: {}, PRIVATE: {"username": "u", "password": "p"}}
    config = {"upstreams": {name: {"urls": [far.url], "allow_private": True, **account[name]} for name in account}}
    first = tidegate(config)
    for name in (REGISTRY, PRIVATE):
        assert get(first, f"/v2/{name}/pause/manifests/3.9").status == 200
    far.refusing = True
    for name in (REGISTRY, PRIVATE):
        assert get(first, f"/v2/{name}/other/manifests/1").status == 503
    assert get(first, "/v2/pause/manifests/3.9?ns=nowhere.example").status == 403
    until(lambda: len(socket_asks(first, "/api/status")["problems"]) == 3)
    assert first.stop() == 0
    server = tidegate(config | {"auth": {"push": "users", "pull": pull, "users_file": str(users)}})
    everything, seen = socket_asks(server, "/api/status"), asked(server.url, "/api/status", Authorization=None)[2]
    assert {row["client"] for row in everything["problems"]} == {"127.0.0.1"}
    assert PRIVATE in json.dumps(everything)
    shown = {REGISTRY} if pull == "anyone" else set()
    assert {row["name"] for row in seen["upstreams"]} == shown
    assert {row["upstream"] for row in seen["hosts"]} == shown
    assert {(row["upstream"], row["client"]) for row in seen["problems"]} == {(name, "") for name in shown}
    text = json.dumps(seen)
    assert str(server.data) not in text
    assert PRIVATE not in text
    images = asked(server.url, "/api/images?search=PAU", Authorization=None)[2]
    assert {row["repository"].split("/")[0] for row in images} == shown
    assert all("pinned" not in row and row["digest"] == image.digest for row in images)
    assert {row["repository"].split("/")[0] for row in socket_asks(server, "/api/images?search=pau")} == {
        REGISTRY,
        PRIVATE,
    }


def test_searching_what_is_here(tidegate, far, token):
    for name in ("pause", "coredns/coredns", "kube-proxy"):
        far.add_image(name, "v1", noise(100, name))
    server = tidegate(upstream_config(far.url) | admin(token))
    for name in ("pause", "coredns/coredns", "kube-proxy"):
        assert get(server, f"/v2/{name}/manifests/v1").status == 200

    def found(query, **headers):
        return [row["repository"] for row in asked(server.url, f"/api/images?{query}", **headers)[2]]

    until(lambda: len(found("search=")) == 3)
    assert found("search=core") == found("search=coredns:V1") == [f"{REGISTRY}/coredns/coredns"]
    assert found("search=nothing") == []
    assert len(found("search=v1&limit=2")) == len(found("search=v1&limit=2", Authorization=None)) == 2
    for bad in ("limit=x", "limit=-1", "limit=201"):
        assert asked(server.url, f"/api/images?search=&{bad}", Authorization=None)[0] == 400
    for bad in ("0", "401", "x", "-1", "%D9%A1"):
        assert asked(server.url, f"/api/status?days={bad}")[0] == 400


@pytest.fixture
def described(tidegate, far, token):
    """A server with content, its description, and a validator for a schema of it."""
    image = far.add_image("pause", "3.9", noise(MIB))
    server = tidegate(upstream_config(far.url) | admin(token), workers=2)
    assert get(server, "/v2/k8s.gcr.io/pause/manifests/3.9").status == 200
    for digest in image.blobs:
        assert get(server, blob_path("pause", digest)).status == 200
        kept(server, digest)
    assert get(server, "/v2/pause/manifests/3.9?ns=nowhere.example").status == 403
    document = asked(server.url, "/api/openapi.json", Authorization=None)[2]

    def check(value, path, method, status="200"):
        [content] = document["paths"][path][method]["responses"][status]["content"].values()
        schema = {"components": document["components"], **content["schema"]}
        jsonschema.Draft202012Validator(schema).validate(value)

    return server, document, check


def test_answers_are_as_they_are_described(described, far):
    server, document, check = described
    jsonschema.Draft202012Validator.check_schema({"components": document["components"]})
    assert document["openapi"].startswith("3.1")
    version = run("--version").stdout.split()[1]
    assert document["info"]["version"] == version
    slow = far.add_blob("slow", noise(2 * MIB))
    far.fault(slow, Stall(MIB))
    with client(server) as connected:
        connected.start(blob_path("slow", slow))
        full = until(lambda: (said := asked(server.url, "/api/status")[2])["fills"] and said)
        fill = until(lambda: [f for f in asked(server.url, "/api/status")[2]["fills"] if f["readers"]])
        assert fill[0] | {"bytes": 0, "rate": 0} == {
            "digest": slow, "bytes": 0, "rate": 0, "size": 2 * MIB, "readers": 1, "image": f"{REGISTRY}/slow"
        }  # fmt: skip
        connected.leave()
    until(lambda: asked(server.url, "/api/status")[2]["problems"])
    for name in ("days", "hosts", "upstreams"):
        assert full[name]
    for path in ("/api/status", "/api/images", "/api/openapi.json", "/api/egress", "/api/legacy", "/api/doctor"):
        status, headers, value = asked(server.url, path)
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert value
        check(value, path, "get")
    for path in ("/api/status", "/api/images"):
        check(asked(server.url, f"{path}?search=", Authorization=None)[2], path, "get")
    check(asked(server.url, "/api/images?image=pause:3.9")[2], "/api/images", "get")
    check(asked(server.url, "/api/egress", Authorization=None)[2], "/api/egress", "get", "401")
    check(asked(server.url, "/api/status?days=0")[2], "/api/status", "get", "400")
    for path, body in (
        ("/api/pins", {"images": ["pause:3.9"]}),
        ("/api/remove", {"images": ["nothing"]}),
        ("/api/scrub", {}),
    ):
        status, headers, text = asked(server.url, path, "POST", json.dumps(body))
        assert (status, headers.get_content_type()) == (200, "application/x-ndjson")
        lines = [json.loads(line) for line in text.splitlines()]
        assert lines[-1]["done"]
        for line in lines:
            check(line, path, "post")
    check(asked(server.url, "/api/pins?set=default", "DELETE")[2], "/api/pins", "delete")


def test_every_page_is_described_and_no_other(described):
    """What answers 404 to the right token is no page."""
    server, document, _ = described
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    source = "".join(file.read_text() for file in (ROOT / "proxy").rglob("*.py"))
    paths = {
        *re.findall(r"/api/[a-z.]+", source),
        *(f"/api/{name}" for name in re.findall(r'"([a-z]+)": self\.', source)),
    }
    real = set()
    for path in paths | {path for _, path in told}:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            # Without a token what is no page is 404, and what is one for the token alone 401.
            if asked(server.url, path, method, Authorization=None)[0] in (200, 401):
                real.add((method, path))
    assert real == told


COMMANDS = [
    ["status"],
    ["ls"],
    ["egress"],
    ["doctor"],
    ["legacy"],
    ["scrub"],
    ["pin", "pause:3.9"],
    ["rm", "other"],
    ["unpin", "pause:3.9"],
]


def test_every_command_asks_another_machine(described, token):
    server, *_ = described
    for words in COMMANDS:
        done = run(*words, "--server", server.url, "--token-file", str(token))
        assert done.stderr == "" or words == ["rm", "other"], words
        assert done.returncode in (0, 1), words
        local = run(*words, "--data", str(server.data))
        if words[0] in ("ls", "egress", "legacy"):
            assert (done.returncode, done.stdout) == (local.returncode, local.stdout)
    assert (
        json.loads(run("status", "--json", "--server", server.url, "--token-file", str(token)).stdout)["view"] == "full"
    )


@pytest.mark.parametrize("words", [words[:1] for words in COMMANDS])
def test_wrong_usage_is_2(tmp_path, token, words):
    words = [*words, "x"] if words[0] in ("pin", "rm", "unpin") else words
    url = ("--server", "http://127.0.0.1:1")
    for more, said in (
        (url, "--server needs --token-file FILE"),
        (("--token-file", str(token)), "--token-file goes with --server URL"),
        (("--ca", "x"), "--ca goes with --server URL"),
        ((*url, "--token-file", str(tmp_path / "none")), "cannot be read: No such file or directory"),
        ((*url, "--token-file", str(token), "--data", "x"), "choose one"),
        (("--server", "127.0.0.1:5000", "--token-file", str(token)), "--server must be a URL"),
        (("--server", "http://x/y/", "--token-file", str(token)), "--server must be a URL"),
    ):
        done = run(*words, *more)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
        assert said in done.stderr


def test_what_cannot_be_asked_is_one_line(tidegate, far, tmp_path, token):
    server = tidegate(upstream_config(far.url) | admin(token))
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-token-of-it")
    port = free_port()

    def said(url, file=token, *more):
        done = run("status", "--server", url, "--token-file", str(file), *more)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert TOKEN not in done.stderr and "not-the-token" not in done.stderr
        return done.stderr

    assert said(server.url, wrong) == f"{server.url}: the token is not the one of admin.token_file\n"
    assert said(f"http://127.0.0.1:{port}") == f"http://127.0.0.1:{port} cannot be reached: Connection refused\n"
    assert said(far.url).startswith(f"{far.url} is no tidegate: it says 404")
    assert "cannot be reached" in said(server.url.replace("http:", "https:"))
    assert "--ca /none cannot be used" in said("https://127.0.0.1:1", token, "--ca", "/none")


class _Legacy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers["Authorization"] == f"Bearer {TOKEN}" and self.path == "/api/legacy"
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *said):
        """Nothing on the test's standard error."""


@pytest.mark.real("openssl")
def test_over_tls_the_certificate_counts(tmp_path, token):
    made = authority(tmp_path / "tls")
    with http.server.HTTPServer(("127.0.0.1", 0), _Legacy) as server:
        server.socket = made.context().wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            url = f"https://127.0.0.1:{server.server_port}"
            words = ("legacy", "--json", "--server", url, "--token-file", str(token))
            done = run(*words, "--ca", str(made.ca))
            assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
            done = run(*words)
            assert (done.returncode, done.stdout) == (1, "")
            assert re.fullmatch(
                rf"the certificate of {url} is not trusted: .*; name its CA with --ca FILE\n", done.stderr
            )
        finally:
            server.shutdown()
            thread.join()
