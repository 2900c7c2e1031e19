"""What people read when it does not work: our sentence out of containerd's and skopeo's own errors, and its shape.

Also what must never be read anywhere: tokens, queries, and what a hostile client sent.
"""

import contextlib
import json
import secrets
import socket

import pytest

from tests.fakes import Bearer, Status, origin_in_thread
from tests.real.processes import free_port
from tests.real.tidegate import tidegate as running
from tests.real.tidegate import upstream_config
from tests.real.tools import skopeo_inspect
from tests.support import get, noise, until

REGISTRY = "registry.k8s.io"
NOWHERE = "http://127.0.0.1:1"  # where containerd goes on to
NO_DIGEST = f"sha256:{'0' * 64}"


@pytest.fixture
def cache(tidegate, far):
    far.add_image("app", "v1", b"layer")
    return tidegate(upstream_config(far.url), workers=2)


@pytest.fixture
def dead():
    """The URL of a host that refuses connections."""
    return f"http://127.0.0.1:{free_port()}"


# What the clients print


@pytest.fixture(params=[pytest.param("ctr", marks=pytest.mark.real("containerd")),
                        pytest.param("skopeo", marks=pytest.mark.real("skopeo"))])  # fmt: skip
def said(request):
    """said(server, image, registry): what the client prints when it cannot have that image."""

    def by_ctr(server, image, registry=REGISTRY):
        node = request.getfixturevalue("node")
        node.mirror(registry, server.url, server=NOWHERE)
        return node.fetch(f"{registry}/{image}")

    def by_skopeo(server, image, registry=REGISTRY):
        return skopeo_inspect(f"{server.host}/{registry}/{image}")

    def run(*args):
        done = {"ctr": by_ctr, "skopeo": by_skopeo}[request.param](*args)
        assert done.returncode != 0
        return done.stdout + done.stderr

    return run


def test_a_registry_that_is_not_served_is_named_with_those_that_are(cache, far, said):
    text = said(cache, "team/app:v1", "ghcr.example")
    assert "ghcr.example is none of the registries here: k8s.gcr.io, registry.k8s.io" in text
    assert far.count() == 0


def test_a_dead_upstream_is_named_with_the_cause(tidegate, dead, said):
    text = said(tidegate(upstream_config(dead)), "app:v1")
    assert "503 tidegate: 127.0.0.1: no connection: Connection refused" in text


def test_the_body_names_the_upstream_and_what_to_do(tidegate, dead):
    [problem] = json.loads(get(tidegate(upstream_config(dead)), "/v2/app/manifests/v1").body)["errors"]
    assert problem["detail"].startswith(f"upstream {REGISTRY}: run `tidegate doctor`")


def test_of_several_registries_the_one_that_failed_is_named(tidegate, dead):
    settings = {**upstream_config(dead), "local": {"names": []}, "server": {"unqualified": ["local", REGISTRY]}}
    [problem] = json.loads(get(tidegate(settings), "/v2/app/manifests/v1").body)["errors"]
    assert problem["detail"].startswith(f"upstream {REGISTRY}: run `tidegate doctor`")


def test_an_upstream_that_throttles_is_no_missing_image(cache, far, said):
    far.fault("/v2/", Status(429, {"Retry-After": "7"}))
    assert "503 tidegate: 127.0.0.1 is throttling (429)" in said(cache, "app:v1")
    got = get(cache, "/v2/app/manifests/v1")
    assert (got.status, got.headers["Retry-After"]) == (503, "7")
    [problem] = json.loads(got.body)["errors"]
    assert problem["detail"].startswith(f"upstream {REGISTRY}: it asks for fewer requests")


def test_an_upstream_that_refuses_is_named(cache, far, said):
    far.fault("/v2/", Status(403))
    assert "127.0.0.1 answered 403 for app" in said(cache, "app:v1")


@pytest.mark.real("containerd")
def test_a_blob_that_cannot_be_had_is_explained_too(cache, far, node):
    """By containerd; skopeo shows nothing of a blob's answer but its status."""
    far.fault("/blobs/", Status(500))
    node.mirror(REGISTRY, cache.url, server=NOWHERE)
    assert "503 tidegate: 127.0.0.1 answered 500 for app" in node.fetch(f"{REGISTRY}/app:v1").stderr


@pytest.mark.real("skopeo")
def test_skopeo_says_which_image_is_unknown(cache, far):
    done = skopeo_inspect(f"{cache.host}/{REGISTRY}/app:v2")
    assert "127.0.0.1 has no such manifest in app" in done.stderr


@pytest.mark.real("containerd")
def test_containerd_takes_a_404_for_an_answer(cache, node):
    """It hides every 404's cause and asks its next host; what remains to be seen is that it believed us."""
    node.mirror(REGISTRY, cache.url, server=cache.url)
    assert f"{REGISTRY}/app:v2: not found" in node.fetch(f"{REGISTRY}/app:v2").stderr


# The shape of every error


def assert_is_error(got, status, code, head=False):
    """An OCI error whose sentence stands in the reason phrase too."""
    assert got.status == status, got
    assert got.whole
    assert got.headers["Content-Type"] == "application/json"
    assert len(got.reason) <= 200
    assert all(" " <= each <= "~" for each in got.reason)
    assert got.reason.startswith("tidegate: ")
    if head:
        return
    [problem] = json.loads(got.body)["errors"]
    assert problem.keys() == {"code", "message", "detail"}
    assert problem["code"] == code
    sentence = "".join(each if " " <= each <= "~" else " " for each in f"tidegate: {problem['message']}")
    assert got.reason == sentence or (got.reason.endswith("...") and sentence.startswith(got.reason[:-3]))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/app/manifests/v2", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/app/manifests/{NO_DIGEST}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/app/blobs/{NO_DIGEST}", 404, "BLOB_UNKNOWN"),
        ("/v2/none/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/_catalog", 404, "UNSUPPORTED"),
        ("/v1/app", 404, "UNSUPPORTED"),
        ("/v2/app/blobs/sha256:12", 400, "DIGEST_INVALID"),
        ("/v2/app/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"),
        ("/v2/App/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/app/../../etc/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/app/%2e%2e/%2e%2e/etc/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/app%00/manifests/v1", 400, "NAME_INVALID"),
        (f"/v2/{'a' * 600}/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/app/tags/list?n=some", 400, "UNSUPPORTED"),
        ("/v2/app/tags/list?n=%ff", 400, "UNSUPPORTED"),
        ("/v2/ghcr.io/app/manifests/v1", 403, "DENIED"),
        ("/v2/app/manifests/v1?ns=ghcr.io", 403, "DENIED"),
        (f"/v2/{REGISTRY}/manifests/v1", 400, "NAME_INVALID"),
        ("/v2/caf%C3%A9/manifests/v1", 400, "NAME_INVALID"),
    ],
)
def test_every_error_is_an_oci_error(shared_cache, method, path, status, code):
    assert_is_error(get(shared_cache, path, method), status, code, method == "HEAD")


def test_a_range_outside_the_blob(shared_cache):
    digest = next(iter(shared_cache.image.blobs))
    for number in range(2):  # out of the fill, and out of the store
        got = get(shared_cache, f"/v2/app/blobs/{digest}", Range="bytes=99999-")
        assert_is_error(got, 416, "RANGE_INVALID")
        assert got.headers["Content-Range"] == f"bytes */{len(shared_cache.image.blobs[digest])}", number


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize(
    "path",
    ["/v2/", "/v2/app/manifests/v1", f"/v2/app/manifests/{NO_DIGEST}", f"/v2/app/blobs/{NO_DIGEST}",
     "/v2/app/blobs/uploads/", "/v2/app/blobs/uploads/3a0e8c9e", f"/v2/app/blobs/uploads/?mount={NO_DIGEST}&from=b",
     "/v2/app/tags/list", f"/v2/app/referrers/{NO_DIGEST}", f"/v2/{REGISTRY}/app/manifests/v1"],
)  # fmt: skip
def test_writing_is_405(shared_cache, method, path):
    got = get(shared_cache, path, method)
    assert_is_error(got, 405, "UNSUPPORTED")
    assert got.headers["Allow"] == "GET, HEAD"


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory):
    """One server for the tests that only ask it for what it cannot give; `image` is what it can."""
    with origin_in_thread() as origin:
        image = origin.add_image("app", "v1", noise(3000))
        with running(upstream_config(origin.url), workers=2, folder=tmp_path_factory.mktemp("errors")) as server:
            server.image = image
            yield server


# Hostile clients


def raw(server, sent):
    """Everything a server says to these bytes until it hangs up; what it no longer takes is not sent."""
    host, port = server.host.split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    return answer


SECRET = secrets.token_hex(16)
GET = b"GET /v2/app/manifests/v1 HTTP/1.1\r\nHost: a\r\n"
HOSTILE = {
    "a header of 1 MB": GET + b"Authorization: Bearer " + SECRET.encode() + b"x" * (1 << 20) + b"\r\n\r\n",
    "1 MB of headers": GET + b"".join(b"X-%d: %s\r\n" % (n, SECRET.encode() * 8) for n in range(4000)) + b"\r\n",
    "a path of 1 MB": b"GET /v2/" + SECRET.encode() + b"a" * (1 << 20) + b"/manifests/v1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "garbage": bytes(range(256)) * 64 + SECRET.encode() + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET.encode() * 4 + b"\r\n\r\n",
    "NUL in the path": b"GET /v2/\0app/manifests/v1?token=" + SECRET.encode() + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in a header": GET + b"X-A: \0" + SECRET.encode() + b"\r\n\r\n",
    "two lengths": GET + b"Content-Length: 1\r\nContent-Length: 2\r\nX-A: " + SECRET.encode() + b"\r\n\r\nab",
    "length and chunks": GET + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": GET + b"Content-Length: -1\r\n\r\n",
    "a name that is none": GET + b"X A: " + SECRET.encode() + b"\r\n\r\n",
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_cannot_be_read_is_a_clean_refusal(shared_cache, sent):
    answer = raw(shared_cache, sent)
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("ascii").split("\r\n")
    version, code, reason = status.split(" ", 2)
    assert version.startswith("HTTP/")
    assert 400 <= int(code) < 500, answer[:300]
    assert reason.startswith("tidegate: ")
    assert "content-type: application/json" in {line.lower() for line in lines}
    [problem] = json.loads(body)["errors"]
    assert problem["code"] and problem["message"]
    assert SECRET.encode() not in answer
    assert get(shared_cache, "/healthz").status == 200
    assert SECRET not in shared_cache.stdout + shared_cache.stderr


@pytest.mark.parametrize("path", ["/v2/app/../../../etc/passwd", "/../../etc/passwd", "//v2//app//manifests//v1",
                                  "/v2/app/blobs/..", "/v2/app/manifests/%2e%2e%2f%2e%2e", "/metrics/../v2/app",
                                  "/v2/%252e%252e/manifests/v1", "ftp://evil.example/v2/app/manifests/v1",
                                  "*", "/v2/app/blobs/sha256:" + "../" * 21 + "a"])  # fmt: skip
def test_hostile_paths_are_4xx(shared_cache, path):
    answer = raw(shared_cache, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert 400 <= int(head.split(b" ")[1]) < 500, answer[:300]
    assert json.loads(body)["errors"][0]["code"]


def test_a_client_that_only_begins_a_request_harms_nobody(shared_cache):
    host, port = shared_cache.host.split(":")
    with contextlib.ExitStack() as many:
        for _ in range(50):
            many.enter_context(socket.create_connection((host, int(port)))).sendall(b"GET /v2/app")
        assert get(shared_cache, "/v2/app/manifests/v1").status == 200


# What must not be said


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_token_and_no_query_is_ever_printed(tidegate, far, form):
    far.auth = Bearer("user", SECRET)
    image = far.add_image("app", "v1", b"layer")
    keys = {"username": "user", "password": SECRET}
    server = tidegate({"log": {"format": form, "level": "debug"}} | upstream_config(far.url, **keys))
    mine = {"Authorization": f"Bearer {SECRET}-mine", "Cookie": f"session={SECRET}"}
    for path in ("manifests/v1", f"blobs/{next(iter(image.blobs))}", "manifests/nope", "tags/list"):
        get(server, f"/v2/app/{path}?ns={REGISTRY}&token={SECRET}-query", **mine)
    get(server, f"/v2/ghcr.io/app/tags/list?token={SECRET}", **mine)
    far.auth.password = "another"
    far.auth.revoke()
    refused = get(server, "/v2/app/manifests/v3")
    assert refused.status == 403
    until(lambda: server.stdout.count("app") >= 6)
    assert server.stop() == 0
    printed = server.stdout + server.stderr + refused.reason + refused.body.decode()
    assert SECRET not in printed
    assert "token-" not in printed
    assert "ns=" not in server.stdout.replace("ghcr.io is none", "")
    assert not any(SECRET.encode() in request.target.encode() for request in far.log)
    assert not any(SECRET in str(request.headers) for request in far.log if request.path != "/token")


@pytest.mark.xdist_group("world")
def test_no_redirects_path_is_ever_printed(tidegate, upstream):
    server = tidegate(upstream_config(upstream.url))
    for digest in upstream.image.blobs:
        assert get(server, f"/v2/{upstream.image.name}/blobs/{digest}").status == 200
    assert server.stop() == 0
    assert "artifacts-downloads" not in server.stdout + server.stderr
    assert any("artifacts-downloads" in request.path for request in upstream.pkgdev.log)
