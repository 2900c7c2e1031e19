"""The fakes and the servers do what they say: whatever these tests do not hold, no other test may build upon."""

import asyncio
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import pytest

from tests import fakes
from tests.descriptors import left_since, opened
from tests.fakes import Origin
from tests.fakes.faults import Fault
from tests.real import images
from tests.real.certificates import authority
from tests.real.processes import Process, fetch, processes
from tests.real.servers import Containerd, docker_registry
from tests.real.tidegate import ROOT, toml
from tests.real.tools import curl, skopeo_copy, skopeo_inspect
from tests.real.world import Upstream

BLOB = bytes(range(256)) * 4096  # 1 MiB
REPO = "team/app"


async def get(
    url: str, headers: dict[str, str] | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own, redirects and codings left alone."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
        session.request(method, url, headers=headers, allow_redirects=False) as answer,
    ):
        return answer.status, dict(answer.headers), await answer.read()


@pytest.fixture
def blob_url(origin: Origin) -> str:
    """A blob of the origin, BLOB in size and content."""
    return f"{origin.url}/v2/{REPO}/blobs/{origin.add_blob(REPO, BLOB)}"


# The origin without faults


async def test_origin_serves_an_image(origin: Origin) -> None:
    image = origin.add_image(REPO, "v1", b"layer")
    for reference in ("v1", image.digest):
        status, headers, body = await get(f"{origin.url}/v2/{REPO}/manifests/{reference}")
        assert (status, body, headers["Docker-Content-Digest"]) == (200, image.manifest, image.digest)
    for digest, content in image.blobs.items():
        assert (await get(f"{origin.url}/v2/{REPO}/blobs/{digest}"))[2] == content
    assert origin.count("GET", "/blobs/") == 2
    assert origin.log.sent("/blobs/") == sum(map(len, image.blobs.values()))


async def test_origin_head_has_a_length_and_no_body(origin: Origin, blob_url: str) -> None:
    status, headers, body = await get(blob_url, method="HEAD")
    assert (status, headers["Content-Length"], body) == (200, str(len(BLOB)), b"")
    assert origin.log[0].sent == 0


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [("bytes=1048575-", 206, "bytes 1048575-1048575/1048576"), ("bytes=0-9", 206, "bytes 0-9/1048576"),
     ("bytes=1048576-", 416, "bytes */1048576")],
)  # fmt: skip
async def test_origin_ranges(blob_url: str, asked: str, status: int, told: str) -> None:
    found, headers, _ = await get(blob_url, {"Range": asked})
    assert (found, headers["Content-Range"]) == (status, told)


async def test_origin_has_sha512_tags_in_pages_and_referrers(origin: Origin) -> None:
    digest = origin.add_blob(REPO, b"x", "sha512")
    assert digest == "sha512:" + hashlib.sha512(b"x").hexdigest()
    image = origin.add_image(REPO, "b")
    origin.add_image(REPO, "a", subject=image.digest)
    status, headers, body = await get(f"{origin.url}/v2/{REPO}/tags/list?n=1")
    assert (status, json.loads(body)["tags"]) == (200, ["a"])
    assert headers["Link"] == f'</v2/{REPO}/tags/list?n=1&last=a>; rel="next"'
    found = json.loads((await get(f"{origin.url}/v2/{REPO}/referrers/{image.digest}"))[2])
    assert [row["artifactType"] for row in found["manifests"]] == ["application/vnd.oci.image.config.v1+json"]


async def test_origin_bearer_tokens_are_for_one_scope_and_can_be_revoked(origin: Origin, blob_url: str) -> None:
    origin.auth = auth = fakes.Bearer(username="me", password="secret")
    status, headers, _ = await get(blob_url)
    scope = f"repository:{REPO}:pull"
    assert (status, headers["WWW-Authenticate"]) == (401, auth.challenge(origin.url, scope))
    service = f"{origin.url}/token?scope={scope}"
    assert (await get(service))[0] == 401
    basic = aiohttp.encode_basic_auth("me", "secret")
    token = json.loads((await get(service, {"Authorization": basic}))[2])["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await get(blob_url, bearer))[0] == 200
    assert (await get(blob_url.replace(REPO, "other"), bearer))[0] == 401
    auth.revoke()
    assert (await get(blob_url, bearer))[0] == 401
    assert (auth.issued, auth.refused) == (1, 1)


# The origin's faults


@pytest.mark.parametrize(
    "fault", [fakes.Cut(1000), fakes.WrongLength(5), fakes.Hangup()], ids=lambda fault: type(fault).__name__
)
async def test_faults_that_end_the_connection(origin: Origin, blob_url: str, fault: Fault) -> None:
    rule = origin.fault("/blobs/", fault)
    with pytest.raises(aiohttp.ClientError):
        await get(blob_url)
    rule.left = 0
    assert (await get(blob_url))[2] == BLOB
    assert rule.used == origin.count() - 1  # aiohttp's client itself asks again when not a byte was answered


async def test_cut_counts_what_it_sent(origin: Origin, blob_url: str) -> None:
    origin.fault("/blobs/", fakes.Cut(1000))
    with pytest.raises(aiohttp.ClientPayloadError):
        await get(blob_url)
    assert origin.log[0].sent == 1000


@pytest.mark.parametrize("fault", [fakes.Silence(), fakes.Stall(10)], ids=lambda fault: type(fault).__name__)
async def test_faults_that_never_end(origin: Origin, blob_url: str, fault: Fault) -> None:
    origin.fault("/blobs/", fault)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await get(blob_url)


async def test_flip_is_placed_in_the_whole_blob(origin: Origin, blob_url: str) -> None:
    origin.fault("/blobs/", fakes.Flip(70))
    whole = (await get(blob_url))[2]
    assert [place for place in range(200) if whole[place] != BLOB[place]] == [70]
    assert (await get(blob_url, {"Range": "bytes=70-70"}))[2] == bytes([BLOB[70] ^ 0xFF])
    assert (await get(blob_url, {"Range": "bytes=71-"}))[2] == BLOB[71:]


@pytest.mark.parametrize(
    ("fault", "status", "header"),
    [
        (fakes.IgnoreRange(), 200, None),
        (fakes.WrongRangeStart(), 206, "bytes 11-1048576/1048576"),
        (fakes.WrongRangeTotal(), 206, "bytes 10-1048575/1048577"),
        (fakes.GzipRange(), 206, "bytes 10-1048575/1048576"),
    ],
)
async def test_faults_of_ranges(origin: Origin, blob_url: str, fault: Fault, status: int, header: str | None) -> None:
    origin.fault("/blobs/", fault)
    found, headers, _ = await get(blob_url, {"Range": "bytes=10-"})
    assert (found, headers.get("Content-Range")) == (status, header)


@pytest.mark.parametrize("fault", [fakes.NoLength(), fakes.CloseDelimited()], ids=lambda fault: type(fault).__name__)
async def test_faults_that_hide_the_size(origin: Origin, blob_url: str, fault: Fault) -> None:
    origin.fault("/blobs/", fault)
    _, headers, body = await get(blob_url)
    assert "Content-Length" not in headers
    assert body == BLOB


async def test_faults_of_time_and_status(origin: Origin, blob_url: str) -> None:
    origin.fault("/blobs/", fakes.Status(429, {"Retry-After": "7"}, b"slow down"), times=1)
    origin.fault("/blobs/", fakes.Html(), times=1)
    origin.fault("/blobs/", fakes.Delay(0.1), fakes.Drip(1 << 18, 0.05), times=1)
    status, headers, body = await get(blob_url)
    assert (status, headers["Retry-After"], body) == (429, "7", b"slow down")
    assert (await get(blob_url))[1]["Content-Type"] == "text/html"
    began = time.monotonic()
    assert (await get(blob_url))[2] == BLOB
    assert time.monotonic() - began >= 0.25


async def test_an_origin_that_is_down(origin: Origin, blob_url: str) -> None:
    origin.refusing = True
    with pytest.raises(aiohttp.ClientError):
        await get(blob_url)
    origin.refusing = False
    assert (await get(blob_url))[0] == 200


@pytest.mark.real("curl")
def test_origin_in_a_thread_for_other_processes(tmp_path: Path) -> None:
    with fakes.origin_in_thread() as origin:
        url = f"{origin.url}/v2/{REPO}/blobs/{origin.add_blob(REPO, BLOB * 64)}"
        origin.fault("/blobs/", fakes.Cut(40 << 20), times=1)
        target = str(tmp_path / "blob")
        assert curl("-o", target, url).returncode == 18  # partial file
        assert curl("-C", "-", "-o", target, url).returncode == 0
        assert (tmp_path / "blob").read_bytes() == BLOB * 64
        assert [request.sent >> 20 for request in origin.log] == [40, 24]


@pytest.mark.real("curl", "openssl")
def test_origin_behind_a_certificate_nobody_trusts(tmp_path: Path) -> None:
    made = authority(tmp_path)
    with fakes.origin_in_thread(made.context()) as origin:
        assert curl(f"{origin.url}/v2/").returncode == 60  # peer certificate cannot be authenticated
        assert curl("--cacert", str(made.ca), f"{origin.url}/v2/").returncode == 0


# The registry.k8s.io-shaped world


def test_redirector_as_registry_k8s_io(upstream: Upstream) -> None:
    def ask(path: str, *more: str) -> list[str]:
        form = "%{http_code} %{redirect_url}"
        return curl("-o", "/dev/null", "-w", form, *more, upstream.url + path).stdout.decode().split(" ")

    project = f"{upstream.pkgdev.url}/v2/k8s-artifacts-prod/images/kube-proxy"
    digest = upstream.image.layers[0]
    assert ask("/v2/") == ["200", ""]
    assert ask("/v2/_catalog") == ask("/v2/a/b") == ask("/x") == ["404", ""]
    assert ask("/v2/kube-proxy/manifests/v1.31.0", "-X", "PUT") == ["405", ""]
    assert ask("/v2/kube-proxy/manifests/v1.31.0?ns=x") == ["307", f"{project}/manifests/v1.31.0"]
    assert ask("/v2/kube-proxy/tags/list?n=1") == ["307", f"{project}/tags/list"]
    hosts = {ask(f"/v2/kube-proxy/blobs/{digest}")[1] for _ in range(2)}
    assert hosts == {f"{upstream.cdn.url}/containers/images/{digest}", f"{project}/blobs/{digest}"}


def test_both_ways_to_a_blob_give_its_bytes(upstream: Upstream) -> None:
    upstream.clear()
    digest = upstream.image.layers[0]
    for _ in range(2):
        body = curl("-L", f"{upstream.url}/v2/kube-proxy/blobs/{digest}").stdout
        assert images.digest_of(body) == digest
    assert upstream.count("GET", digest) == 2
    assert upstream.log["cdn"].count("GET", digest) == 1
    assert upstream.sent() == 2 * upstream.image.size(digest)


def test_pkgdev_redirects_relatively_and_wants_its_token_untouched(upstream: Upstream) -> None:
    digest = upstream.image.layers[0]
    base = upstream.pkgdev.url
    url = f"{base}/v2/k8s-artifacts-prod/images/kube-proxy/blobs/{digest}"
    headers = curl("-o", "/dev/null", "-D", "-", url).stdout.decode()
    location = next(line[10:] for line in headers.splitlines() if line.lower().startswith("location: "))
    assert location.startswith("/artifacts-downloads/namespaces/")
    assert all(escape in location for escape in ("%2F", "%3D", "+"))
    assert 900 < len(location) < 1300
    assert fetch(base + location)[0] == 200
    for changed in (("%3D", "="), ("%2F", "/"), ("+", "%2B"), ("%2F", "%2f"), ("%2F", "%252F")):
        assert fetch(base + location.replace(*changed))[0] == 403
    part = curl("-i", "-r", "5-9", base + location).stdout
    assert b" 206 " in part.splitlines()[0]
    assert part.endswith(b"\r\n\r\n" + upstream.image.blobs[digest][5:10])


def test_pkgdev_names_the_repository_its_own_way(upstream: Upstream) -> None:
    found = json.loads(curl("-L", f"{upstream.url}/v2/coredns/coredns/tags/list").stdout)
    assert (found["name"], found["tags"]) == ("k8s-artifacts-prod/images/coredns/coredns", ["v1.11.3"])


def test_the_cdn_serves_ranges_without_etag(upstream: Upstream) -> None:
    url = f"{upstream.cdn.url}/containers/images/{upstream.image.layers[0]}"
    head = curl("-I", "-r", "10-", url).stdout.decode().lower()
    assert " 206 " in head
    assert "etag" not in head


@pytest.mark.real("skopeo")
def test_skopeo_pulls_without_a_cache(upstream: Upstream, tmp_path: Path) -> None:
    for image in (upstream.image, upstream.schema2):
        done = skopeo_copy(image.ref(upstream.host), tmp_path / image.tag)
        assert done.returncode == 0, done.stderr
        for digest, content in image.blobs.items():
            assert (tmp_path / image.tag / digest.removeprefix("sha256:")).read_bytes() == content
    assert json.loads(skopeo_inspect(upstream.schema2.ref(upstream.host)).stdout)["Digest"] == upstream.schema2.digest


@pytest.mark.real("containerd")
def test_containerd_pulls_without_a_cache(upstream: Upstream, node: Containerd) -> None:
    node.mirror("registry.k8s.io", upstream.url)
    ref = upstream.image.ref("registry.k8s.io")
    first, second = node.node(), node.node()
    for each in (first, second):
        upstream.clear()
        done = node.fetch(ref, each)
        assert done.returncode == 0, done.stderr
        assert upstream.image.digest in node.digests(each)
        assert upstream.count("GET", "/blobs/") == 3  # config and two layers: a new node has nothing yet
    assert upstream.redirector.log[0].query == "ns=registry.k8s.io"


def test_more_images_can_be_added(upstream: Upstream) -> None:
    added = upstream.add(images.small("more", "v1", b"one", b"two"))
    assert fetch(f"{upstream.url}/v2/more/manifests/v1", images.ACCEPT)[1] == added.manifests[-1].content


def test_images_are_the_same_each_time() -> None:
    first, second = (images.schema2("a", "b").digest for _ in range(2))
    assert first == second


@pytest.mark.real("docker-registry")
def test_docker_registry_as_a_pull_through_cache(tmp_path: Path) -> None:
    with ExitStack() as stack:
        origin = stack.enter_context(fakes.origin_in_thread())
        image = origin.add_image("library/app", "v1", b"layer")
        cache = stack.enter_context(docker_registry(tmp_path, remote=origin.url))
        assert fetch(f"{cache.url}/v2/library/app/manifests/{image.digest}", images.ACCEPT)[0] == 200
        assert origin.count("GET", image.digest) == 1


# The harness


def test_a_process_ends_with_its_children(tmp_path: Path) -> None:
    process = Process(["bash", "-c", "sleep 300 & echo $!; wait"], tmp_path, "parent")
    while not process.stdout:
        time.sleep(0.01)
    child = Path("/proc") / process.stdout.strip()
    assert child.exists()
    process.end()
    assert not process.running
    assert int(child.name) not in [each.pid for each in processes()]


def test_toml_of_nested_mappings() -> None:
    document = {"server": {"workers": 2}, "upstreams": {"registry.k8s.io": {"urls": ["http://a"], "tag_ttl": "0s"}}}
    assert toml(document).split() == [
        "[\"server\"]", "workers", "=", "2",
        "[\"upstreams\".\"registry.k8s.io\"]", "urls", "=", '["http://a"]', "tag_ttl", "=", '"0s"',
    ]  # fmt: skip


RULE_BREAKERS = """
import asyncio, socket
import pytest
from proxy.oci import digest

kept = []

def test_descriptor():
    kept.append(socket.socket())

async def test_task():
    kept.append(asyncio.create_task(asyncio.sleep(60)))

async def test_blocking():
    exec(compile("import time; time.sleep(0)", digest.__file__, "exec"), {})

@pytest.mark.real("no-such-program")
def test_missing():
    pass

def test_skip():
    pytest.skip("why not")

async def test_good():
    await asyncio.sleep(0)
"""


def test_house_rules_fail_what_breaks_them(tmp_path: Path) -> None:
    (tmp_path / "test_breakers.py").write_text(RULE_BREAKERS)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-q", "-rAs", "-o", "asyncio_mode=auto"]
    command += ["-c", "/dev/null", "-p", "no:cacheprovider", str(tmp_path)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")} | {"CI": "true"}
    found = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True).stdout
    told = re.findall(r"^(ERROR|FAILED|PASSED|SKIPPED).*::test_(\w+)(?: - ([\w.]+:? \w+))?", found, re.MULTILINE)
    assert set(told) >= {
        ("ERROR", "descriptor", "AssertionError: left"),
        ("ERROR", "task", "AssertionError: still"),
        ("FAILED", "blocking", "blockbuster.blockbuster.BlockingError: Blocking"),
        ("ERROR", "missing", "skipped although"),
        ("FAILED", "skip", "skipped although"),
        ("PASSED", "good", ""),
    }, found
    assert "SKIPPED" not in {outcome for outcome, _, _ in told}


def test_a_connection_belongs_to_the_server_that_still_listens() -> None:
    before = opened()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        accepted = server.accept()[0]
        assert {each.number for each in left_since(before)} == {server.fileno(), client.fileno()}
        server.close()
        assert {each.number for each in left_since(before)} == {accepted.fileno(), client.fileno()}
        accepted.close()
