"""A data folder carried by tar to a machine without any network: the same tags and digests, nothing else."""

import os
import subprocess
import sys

import pytest

from tests.real import images
from tests.real.netns import namespace, within
from tests.real.processes import free_port, running
from tests.real.tidegate import ROOT, Tidegate
from tests.real.tools import skopeo_copy
from tests.real.twohosts import digests_in
from tests.support import blob_path, get, kept, noise, quick


def carried(data, folder):
    """The way people do it: `tar -C data -c . | tar -C folder -x`."""
    folder.mkdir()
    packed = subprocess.run(["tar", "-C", str(data), "-cf", "-", "."], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-C", str(folder), "-xf", "-"], check=True, input=packed)
    return folder


@pytest.mark.real("ip", "skopeo", "tar")
def test_a_folder_carried_by_tar_serves_the_same_where_there_is_no_network(tidegate, far, tmp_path):
    image = images.small("pause", "3.9", noise(1 << 20, 1), noise(2 << 20, 2))
    (manifest,) = image.manifests
    for content in image.blobs.values():
        far.add_blob("pause", content)
    far.add_manifest("pause", "3.9", manifest.content, manifest.media_type)
    first = tidegate(quick(far.url, tag_ttl="1ms"), workers=2)
    assert get(first, "/v2/pause/manifests/3.9").body == manifest.content
    for digest, content in image.blobs.items():
        assert get(first, blob_path("pause", digest)).is_blob(content)
        kept(first, digest)
    assert first.stop() == 0
    asked = far.count()
    copy = carried(first.data, tmp_path / "copy")
    with namespace() as nowhere, within(nowhere):
        host = f"127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "proxy", "serve", "--offline", "--data", str(copy), "--listen", host]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "TIDEGATE_SERVER_WORKERS": "2"}
        with running(command, tmp_path, "offline", f"http://{host}/readyz", env) as process:
            server = Tidegate(process, f"http://{host}", copy)
            done = skopeo_copy(f"{host}/registry.k8s.io/pause:3.9", tmp_path / "copied")
            assert done.returncode == 0, done.stderr
            assert digests_in(tmp_path / "copied") == {manifest.digest, *image.blobs}
            assert get(server, f"/v2/pause/manifests/{manifest.digest}").body == manifest.content
            for path in ("/v2/pause/manifests/3.8", blob_path("pause", f"sha256:{'0' * 64}")):
                unknown = get(server, path)
                assert unknown.status == 503
                assert unknown.reason.startswith("tidegate: registry.k8s.io is set offline")
    assert far.count() == asked
