"""The main job with the real clients: containerd, skopeo and curl pull through an upstream shaped like registry.k8s.io.

What arrived is compared by digest with what was pushed into the registry behind it, and what it cost is counted by the
upstream's own logs, never by our metrics.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.real import images
from tests.real.tidegate import upstream_config
from tests.real.tools import curl, insecure, skopeo, skopeo_copy
from tests.support import MIB, noise

pytestmark = pytest.mark.xdist_group("world")  # its images take seconds to make: once is enough

REGISTRY, ALIAS = "registry.k8s.io", "k8s.gcr.io"
NOWHERE = "http://127.0.0.1:1"  # where containerd would go on to: the real registry is out of bounds for a test
NODES = 8
numbers = itertools.count()


@pytest.fixture
def cache(tidegate, upstream):
    """A cold tidegate with four workers; the upstream counts from here."""
    server = tidegate(upstream_config(upstream.url), workers=4)
    upstream.clear()
    return server


@pytest.fixture
def fresh(upstream):
    """An image nobody has pulled yet: two layers of 1 MiB."""
    number = next(numbers)
    image = upstream.add(images.small(f"fresh/image{number}", "v1", noise(MIB, number), noise(MIB, number + 0.5)))
    upstream.clear()
    return image


def everything(image):
    """The digests of all an image consists of."""
    return {manifest.digest for manifest in image.manifests} | set(image.blobs)


def copied(folder):
    """The digests of what skopeo wrote, by content: its file names prove nothing."""
    return {images.digest_of(path.read_bytes()) for path in folder.iterdir() if path.name != "version"}


def untouched(upstream):
    return not any(upstream.log.values())


def assert_each_blob_came_once(upstream, image):
    """One chain of requests a blob, and not a byte more than the image has."""
    for digest in image.blobs:
        assert upstream.count("GET", digest) == 1, digest
    assert upstream.sent() == sum(map(len, image.blobs.values())) + sum(len(each.content) for each in image.manifests)


def fetched(node, ref, *args, name=None):
    """What a containerd holds after pulling `ref`."""
    name = name or node.node()
    done = node.fetch(ref, name, "--all-platforms", *args)
    assert done.returncode == 0, done.stderr
    return node.digests(name)


# containerd


@pytest.mark.real("containerd")
def test_containerd_by_hosts_toml(cache, upstream, node):
    node.mirror(REGISTRY, cache.url, server=NOWHERE)
    for image in (upstream.image, upstream.schema2):
        assert fetched(node, image.ref(REGISTRY)) == everything(image)
    assert upstream.count("GET") == sum(len(everything(image)) for image in (upstream.image, upstream.schema2))
    upstream.clear()
    for image in (upstream.image, upstream.schema2):
        assert fetched(node, image.ref(REGISTRY)) == everything(image)
        assert fetched(node, f"{REGISTRY}/{image.name}@{image.digest}") == everything(image)
    assert untouched(upstream)


@pytest.mark.real("containerd")
def test_containerd_with_the_registry_in_the_mirrors_path(cache, upstream, node):
    node.mirror(REGISTRY, f"{cache.url}/v2/{REGISTRY}", "override_path = true", server=NOWHERE)
    assert fetched(node, upstream.image.ref(REGISTRY)) == everything(upstream.image)


@pytest.mark.real("containerd")
def test_the_old_name_is_the_same_content(cache, upstream, node):
    node.mirror(REGISTRY, cache.url, server=NOWHERE)
    node.mirror(ALIAS, cache.url, server=NOWHERE)
    assert fetched(node, upstream.schema2.ref(REGISTRY)) == everything(upstream.schema2)
    upstream.clear()
    assert fetched(node, upstream.schema2.ref(ALIAS)) == everything(upstream.schema2)
    assert untouched(upstream)
    assert cache.metrics().total("tidegate_legacy_requests_total", alias=ALIAS) >= len(everything(upstream.schema2))
    assert cache.metrics().total("tidegate_requests_total", upstream=ALIAS) == 0


@pytest.mark.real("containerd")
def test_many_nodes_cost_one_download(cache, upstream, node, fresh):
    node.mirror(REGISTRY, cache.url, server=NOWHERE)
    with ThreadPoolExecutor(NODES) as pool:
        found = list(pool.map(lambda _: fetched(node, fresh.ref(REGISTRY)), range(NODES)))
    assert found == [everything(fresh)] * NODES
    assert_each_blob_came_once(upstream, fresh)


# skopeo


@pytest.mark.real("skopeo")
def test_skopeo_copies_every_platform(cache, upstream, tmp_path):
    for image in (upstream.image, upstream.schema2):
        for number, refers in enumerate((f":{image.tag}", f"@{image.digest}")):
            folder = tmp_path / f"{image.tag}-{number}"
            done = skopeo_copy(f"{cache.host}/{REGISTRY}/{image.name}{refers}", folder)
            assert done.returncode == 0, done.stderr
            assert copied(folder) == everything(image)
            assert (folder / "manifest.json").read_bytes() == image.manifests[-1].content
            if number == 0:
                upstream.clear()
    assert untouched(upstream)


@pytest.mark.real("skopeo")
def test_skopeo_of_one_platform_and_by_the_old_name(cache, upstream, tmp_path):
    image = upstream.image
    amd64 = image.manifests[0]
    for number, name in enumerate((REGISTRY, ALIAS)):
        source = f"docker://{image.ref(cache.host, name)}"
        done = skopeo("copy", "--override-arch", "amd64", source, f"dir:{tmp_path}/{number}",
                      registries=insecure(cache.host))  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"{number}/manifest.json").read_bytes() == amd64.content
        assert copied(tmp_path / str(number)) < everything(image)
        if number == 0:
            assert upstream.count("GET", image.manifests[1].digest) == 0
            upstream.clear()
    assert untouched(upstream)


@pytest.mark.real("skopeo")
def test_skopeo_with_a_mirror_in_registries_conf(cache, upstream, tmp_path):
    conf = f'[[registry]]\nprefix = "{REGISTRY}"\nlocation = "{cache.host}/{REGISTRY}"\ninsecure = true\n'
    done = skopeo("copy", f"docker://{upstream.schema2.ref(REGISTRY)}", f"dir:{tmp_path}/it", registries=conf)
    assert done.returncode == 0, done.stderr
    assert copied(tmp_path / "it") == everything(upstream.schema2)


@pytest.mark.real("skopeo")
def test_many_skopeos_cost_one_download(cache, upstream, fresh, tmp_path):
    ref = fresh.ref(cache.host, REGISTRY)
    with ThreadPoolExecutor(NODES) as pool:
        done = list(pool.map(lambda number: skopeo_copy(ref, tmp_path / str(number)), range(NODES)))
    assert [each.returncode for each in done] == [0] * NODES, done
    assert all(copied(tmp_path / str(number)) == everything(fresh) for number in range(NODES))
    assert_each_blob_came_once(upstream, fresh)


# curl


@pytest.mark.real("curl")
def test_curl_reads_every_byte(cache, upstream):
    for image in (upstream.image, upstream.schema2):
        base = f"{cache.url}/v2/{image.name}"
        assert curl(f"{base}/manifests/{image.tag}").stdout == image.manifests[-1].content
        for manifest in image.manifests:
            assert curl(f"{base}/manifests/{manifest.digest}").stdout == manifest.content
        for digest, content in image.blobs.items():
            assert curl(f"{base}/blobs/{digest}").stdout == content
    upstream.clear()
    image, digest = upstream.image, upstream.image.layers[0]
    content, url = image.blobs[digest], f"{cache.url}/v2/{image.name}/blobs/{digest}"
    assert curl("-r", "1000-1999999", url).stdout == content[1000:2000000]
    assert curl("-r", "-500", url).stdout == content[-500:]
    assert curl("-r", "700000-", url).stdout == content[700000:]
    assert curl("-I", "-H", f'If-None-Match: "{digest}"', url).stdout.startswith(b"HTTP/1.1 304 ")
    assert untouched(upstream)


@pytest.mark.real("curl")
def test_curl_sees_the_headers_of_the_kinds(cache, upstream):
    for image in (upstream.image, upstream.schema2):
        for manifest in image.manifests:
            told = curl("-I", f"{cache.url}/v2/{image.name}/manifests/{manifest.digest}").stdout.decode()
            lines = {line.lower() for line in told.splitlines()}
            assert {f"content-type: {manifest.media_type}", f"docker-content-digest: {manifest.digest}",
                    f"content-length: {len(manifest.content)}"} <= lines  # fmt: skip
    listed = curl(f"{cache.url}/v2/{REGISTRY}/{upstream.image.name}/tags/list").stdout.decode()
    assert listed == f'{{"name": "{REGISTRY}/{upstream.image.name}", "tags": ["{upstream.image.tag}"]}}'
