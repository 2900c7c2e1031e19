"""The tools people push with: buildah, podman and skopeo in, containerd and each of them out; artifacts that are no
images, in the sequences of cosign, ORAS and Helm.
"""

import io
import json
import tarfile

import pytest

from tests.conformance.client import Registry
from tests.conformance.content import OCI_MANIFEST, Content, digest_of, encoded
from tests.real import images
from tests.real.storage import Storage
from tests.real.tools import skopeo_copy, skopeo_inspect
from tests.support import MIB, get, noise

pytestmark = pytest.mark.xdist_group("pushing")
TOOLS = ["buildah", "podman", "skopeo"]
LAYERS, LARGE = 40, 300 * MIB
EMPTY = Content(b"{}", "application/vnd.oci.empty.v1+json")
SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"
HELM_CONFIG, HELM_CHART = (
    "application/vnd.cncf.helm.config.v1+json",
    "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
)


@pytest.fixture
def server(tidegate):
    return tidegate({"local": {"names": ["localhost:5001"]}}, workers=3)


@pytest.fixture
def registry(server):
    return Registry("tidegate", server.url)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A machine with an image of 40 layers, the last one of 300 MiB, and a small one of two, from scratch.

    The 39 below it are loaded: buildah takes a second a layer for what is not asked here."""
    storage = Storage(tmp_path_factory.mktemp("storage"))
    for name in "ab":
        (storage.folder / "context" / name).write_bytes(noise(20_000, name))
    storage.build("localhost/small:1", "FROM scratch", "COPY a /a", "COPY b /b", "ENV SMALL=1")
    layers = [archive(f"f{number}", noise(20_000, number)) for number in range(LAYERS - 1)]
    storage.load(images.small("base", "1", *layers), "localhost/base:1")
    with (storage.folder / "context/large").open("xb") as file:
        file.truncate(LARGE)  # a hole: cheap to make and to compress, as long as any to read
    storage.build("localhost/large:1", "FROM localhost/base:1", "COPY large /large")
    return storage


def archive(name, content):
    """A layer of one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as made:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        made.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def pushed_bytes(server):
    return server.metrics().total("tidegate_pushed_bytes_total")


def parts(server, name, tag):
    """All digests of an image, read from the registry, its own first."""
    got = get(server, f"/v2/{name}/manifests/{tag}")
    said = json.loads(got.body)
    return [digest_of(got.body), said["config"]["digest"], *(layer["digest"] for layer in said["layers"])]


@pytest.mark.real("buildah", "podman", "skopeo", "containerd")
@pytest.mark.parametrize("tool", TOOLS)
def test_many_and_large_layers_in_by_each_tool_and_out_by_containerd(server, built, node, tool):
    pushed = built.push(tool, "localhost/large:1", f"{server.host}/dev/{tool}:1")
    found = parts(server, f"dev/{tool}", "1")
    assert (found[0], found[1], len(found)) == (pushed, f"sha256:{built.image_id('localhost/large:1')}", LAYERS + 2)
    node.mirror("localhost:5001", server.url, server="http://127.0.0.1:1")
    name = node.node()
    done = node.fetch(f"localhost:5001/dev/{tool}:1", name, "--all-platforms")
    assert done.returncode == 0, done.stderr
    assert node.digests(name) == set(found)
    before = pushed_bytes(server)
    assert built.push(tool, "localhost/large:1", f"{server.host}/dev/{tool}:2") == pushed
    assert pushed_bytes(server) - before < 100_000, "everything but the manifest was there"


@pytest.mark.real("buildah", "podman", "skopeo")
def test_what_is_pushed_comes_back_as_the_same_image_by_each_tool(server, built, tmp_path):
    sizes = []
    for tool in TOOLS:
        before = pushed_bytes(server)
        assert (
            built.push(tool, "localhost/small:1", f"{server.host}/dev/{tool}:1") == parts(server, f"dev/{tool}", "1")[0]
        )
        sizes.append(pushed_bytes(server) - before)
        for other in TOOLS:
            empty = Storage(tmp_path / f"{tool}-{other}")
            assert empty.pull(other, f"{server.host}/dev/{tool}:1") == built.image_id("localhost/small:1")
    assert sizes[0] > 40_000
    assert max(sizes[1:]) < 10_000, "the layers were mounted from the repository pushed to before"


# Artifacts


def put(registry, name, document, reference=None, blobs=()):
    """Blobs as these tools push them: HEAD, POST, PUT of the whole; then the manifest. Its content."""
    repository = registry.repository(name)
    for blob in blobs:
        repository.blob(blob.digest, "HEAD").expect(404, 200)
        repository.push_blob(blob)
    manifest = encoded({"schemaVersion": 2, "mediaType": OCI_MANIFEST, **document}, blobs)
    repository.put_manifest(manifest, reference).expect(201)
    return manifest


@pytest.fixture
def signed(registry):
    """An image to sign."""
    config, layer = Content(b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}',
                            "application/vnd.oci.image.config.v1+json"), Content(noise(5000))  # fmt: skip
    return put(
        registry, "dev/app", {"config": config.descriptor(), "layers": [layer.descriptor()]}, "1", (config, layer)
    )


@pytest.mark.real("skopeo")
@pytest.mark.parametrize("referring", [False, True], ids=["tag", "referrer"])
def test_cosign(server, registry, signed, referring, tmp_path):
    """A signature under the tag made of the digest, and as OCI 1.1 has it: with the image as its subject."""
    payload = Content(
        json.dumps({"critical": {"image": {"docker-manifest-digest": signed.digest}}}).encode(), SIGNATURE
    )
    config = Content(b'{"rootfs":{"type":"layers","diff_ids":[]}}', "application/vnd.oci.image.config.v1+json")
    layer = payload.descriptor() | {"annotations": {"dev.cosignproject.cosign/signature": "MEUCIQ=="}}
    document = {"config": config.descriptor(), "layers": [layer]}
    tag = signed.digest.replace(":", "-") + ".sig"
    repository = registry.repository("dev/app")
    if referring:
        document |= {"subject": signed.descriptor(), "artifactType": "application/vnd.dev.cosign.artifact.sig.v1+json"}
        found = put(registry, "dev/app", document, None, (config, payload))
        listed = repository.referrers(signed.digest).expect(200).json()["manifests"]
        assert [(each["digest"], each["artifactType"]) for each in listed] == [(found.digest, document["artifactType"])]
        where = f"@{found.digest}"
    else:
        repository.manifest(tag, "HEAD").expect(404)
        found, where = put(registry, "dev/app", document, tag, (config, payload)), f":{tag}"
        assert sorted(repository.tags().expect(200).json()["tags"]) == ["1", tag]
        assert registry.repository("dev/app").referrers(signed.digest).expect(200).json()["manifests"] == []
    done = skopeo_copy(f"{server.host}/dev/app{where}", tmp_path / "signature")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "signature/manifest.json").read_bytes() == found.body
    assert (tmp_path / "signature" / payload.digest.partition(":")[2]).read_bytes() == payload.body


@pytest.mark.real("skopeo")
def test_oras(server, registry, signed):
    """Artifacts of two kinds about one image: empty config, artifactType, found again by kind."""
    repository, made = registry.repository("dev/app"), {}
    for kind in ("application/spdx+json", "application/vnd.example.report"):
        file = Content(noise(3000, kind), "application/vnd.oci.image.layer.v1.tar")
        row = file.descriptor() | {"annotations": {"org.opencontainers.image.title": "report.json"}}
        document = {"artifactType": kind, "config": EMPTY.descriptor(), "layers": [row],
                    "subject": signed.descriptor(), "annotations": {"made": "today"}}  # fmt: skip
        made[kind] = put(registry, "dev/app", document, None, (EMPTY, file))
    for kind, manifest in made.items():
        answer = repository.referrers(signed.digest, artifactType=kind).expect(200)
        assert answer.header("OCI-Filters-Applied") == "artifactType"
        (row,) = answer.json()["manifests"]
        assert row == manifest.descriptor() | {"artifactType": kind, "annotations": {"made": "today"}}
    assert len(repository.referrers(signed.digest).expect(200).json()["manifests"]) == 2
    raw = skopeo_inspect(f"{server.host}/dev/app@{made[kind].digest}", "--raw")
    assert (raw.returncode, raw.stdout.encode()) == (0, made[kind].body), raw.stderr
    repository.ask("DELETE", f"manifests/{made[kind].digest}").expect(202)
    assert len(repository.referrers(signed.digest).expect(200).json()["manifests"]) == 1


@pytest.mark.real("skopeo")
def test_helm(server, registry, tmp_path):
    """helm push and helm pull: a chart under its version, with a `+` that tags cannot have written as `_`."""
    config = Content(b'{"name":"app","version":"1.0.0+build","apiVersion":"v2"}', HELM_CONFIG)
    chart = Content(noise(20_000), HELM_CHART)
    provenance = Content(b"-----BEGIN PGP SIGNED MESSAGE-----", "application/vnd.cncf.helm.chart.provenance.v1.prov")
    document = {"config": config.descriptor(), "layers": [chart.descriptor(), provenance.descriptor()]}
    made = put(registry, "charts/app", document, "1.0.0_build", (config, chart, provenance))
    repository = registry.repository("charts/app")
    assert repository.tags().expect(200).json()["tags"] == ["1.0.0_build"]
    assert repository.manifest("1.0.0_build", accept=OCI_MANIFEST).expect(200).body == made.body
    done = skopeo_copy(f"{server.host}/charts/app:1.0.0_build", tmp_path / "chart")
    assert done.returncode == 0, done.stderr
    for blob in (config, chart, provenance):
        assert (tmp_path / "chart" / blob.digest.partition(":")[2]).read_bytes() == blob.body
