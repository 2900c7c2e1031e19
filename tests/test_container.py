"""deploy/Containerfile, built by buildah from an unpacked bundle without network and run by podman: as nobody, on a
read-only root, with the health check that is in the image. The base is made here of this machine's own Python.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.real.processes import fetch, free_port, program
from tests.real.tidegate import ROOT

pytestmark = pytest.mark.real("buildah", "podman", "runc", "unshare")
# Rights and limits of the machine the tests run on may be less than podman's defaults: ask for little.
RUN = ("--network=host", "--cgroupns=host", "--ulimit=nofile=4096:4096", "--ulimit=nproc=1024:1024")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A root that holds Python, a shell and what they need, from this machine's own files."""
    root = tmp_path_factory.mktemp("base")
    python = Path(os.path.realpath("/usr/bin/python3"))
    library = Path(f"/usr/lib/{python.name}")
    tools = [Path(shutil.which(name)) for name in ("sh", "mkdir", "chown", "ls", "id", "touch", "cat")]
    modules = [*library.glob("lib-dynload/*.so")]
    needed = {Path(os.path.realpath(each)) for each in _libraries([python, *tools, *modules])}
    for path in [python, *tools]:
        _copy(path, root)
    for link in _libraries([python, *tools, *modules]):
        _copy(Path(link), root)
    assert needed
    shutil.copytree(library, root / library.relative_to("/"), ignore=shutil.ignore_patterns("__pycache__", "test"))
    shutil.copytree("/usr/share/python-wheels", root / "usr/share/python-wheels")
    for name in ("python3", python.name):
        link = root / "usr/bin" / name
        if not link.exists():
            link.symlink_to(python.name)
    for path, target in {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}.items():
        _merge(root, path, target)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    for name in ("tmp", "proc", "dev", "sys", "var/lib"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    return root


def _libraries(paths) -> set[str]:
    listed = subprocess.run(["ldd", *paths], capture_output=True, text=True).stdout
    return set(re.findall(r"(?:=> |^\t)(/\S+) \(", listed, re.MULTILINE))


def _copy(path: Path, root: Path) -> None:
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def _merge(root: Path, path: str, target: str) -> None:
    """`/lib` is `/usr/lib` on this machine and in what is made of it."""
    (root / target).mkdir(parents=True, exist_ok=True)
    if (root / path).is_dir():
        shutil.copytree(root / path, root / target, dirs_exist_ok=True, symlinks=True)
        shutil.rmtree(root / path)
    (root / path).symlink_to(target)


@pytest.fixture(scope="module")
def store():
    """Options of buildah and podman: a store of our own, removed at the end, mounts first. Its path is short: podman
    takes 50 characters."""
    folder = Path(tempfile.mkdtemp(prefix="store"))
    options = ["--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
    yield options
    subprocess.run([program("podman"), *options, "rm", "--all", "--force"], capture_output=True, timeout=60)
    subprocess.run([program("buildah"), *options, "rm", "--all"], capture_output=True, timeout=60)
    shutil.rmtree(folder, ignore_errors=True)


def buildah(store, *words, **rest):
    done = subprocess.run([program("buildah"), *store, *words], capture_output=True, text=True, timeout=240, **rest)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def podman(store, *words):
    command = [program("podman"), "--cgroup-manager=cgroupfs", "--runtime=runc", *store, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def image(base, store, tmp_path_factory):
    """The image, built from a bundle where no network is."""
    folder = tmp_path_factory.mktemp("context")
    passed_over = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "dist", "tests")
    shutil.copytree(ROOT, folder / "checkout", ignore=passed_over)
    command = [folder / "checkout/deploy/bundle", "--without-sbom"]
    made = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    with tarfile.open(folder / "checkout" / made.stdout.splitlines()[0]) as packed:
        packed.extractall(folder, filter="data")
    (context,) = folder.glob("tidegate-*")
    container = buildah(store, "from", "scratch")
    buildah(store, "add", "--quiet", container, str(base), "/")
    buildah(store, "commit", "--quiet", container, "localhost/base")
    buildah(store, "rm", container)
    words = ["bud", "--isolation=chroot", "--format=docker", "--build-arg", "BASE=localhost/base"]
    words += ["--file", "deploy/Containerfile", "--tag", "localhost/tidegate", "."]
    command = ["unshare", "--net", program("buildah"), *store, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=context)
    assert done.returncode == 0, done.stderr[-3000:]
    return "localhost/tidegate"


@contextmanager
def started(store, image, *options):
    name = f"tidegate-{os.getpid()}"
    done = podman(store, "run", "--detach", "--name", name, "--read-only", "--cap-drop=ALL", *RUN, *options, image)
    assert done.returncode == 0, done.stderr
    try:
        yield name
    finally:
        podman(store, "rm", "--force", "--time=5", name)


def test_it_runs_as_nobody_on_a_read_only_root_and_says_how_it_is(store, image):
    port = free_port()
    address = f"TIDEGATE_SERVER_LISTEN=127.0.0.1:{port}"
    with started(store, image, "--env", address) as name:
        deadline = time.monotonic() + 20
        while "next " not in podman(store, "logs", name).stdout:
            assert time.monotonic() < deadline, podman(store, "logs", name).stderr
            time.sleep(0.2)
        assert fetch(f"http://127.0.0.1:{port}/healthz") == (200, b"ok\n")
        assert podman(store, "exec", name, "id", "-u").stdout == "65532\n"
        assert "Read-only file system" in podman(store, "exec", name, "touch", "/opt/tidegate/x").stderr
        status = podman(store, "exec", name, "/opt/tidegate/bin/tidegate", "status", "--json")
        assert json.loads(status.stdout)["data"] == "/var/lib/tidegate"
        assert podman(store, "stop", "--time=20", name).returncode == 0
        assert podman(store, "inspect", name, "--format", "{{.State.ExitCode}}").stdout == "0\n"
        assert "Traceback" not in podman(store, "logs", name).stderr


def test_the_health_check_in_the_image_tells_well_from_ill(store, image):
    about = json.loads(buildah(store, "inspect", "--type=image", image))["Docker"]["config"]
    assert about["User"] == "65532:65532"
    assert about["Entrypoint"] == ["/opt/tidegate/bin/tidegate"]
    assert about["Volumes"] == {"/var/lib/tidegate": {}}
    kind, *command = about["Healthcheck"]["Test"]
    assert kind == "CMD"
    port = free_port()
    with started(store, image, "--env", f"TIDEGATE_SERVER_LISTEN=127.0.0.1:{port}") as name:
        elsewhere = [word.replace(":5000/", f":{port}/") for word in command]
        deadline = time.monotonic() + 20
        while podman(store, "exec", name, *elsewhere).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        closed = [word.replace(":5000/", f":{free_port()}/") for word in command]
        assert podman(store, "exec", name, *closed).returncode == 1
