"""buildah, podman and skopeo on an image store in a folder of the test's own, not on this machine's."""

import json
import os
import subprocess
from pathlib import Path

from tests.real.images import Built
from tests.real.processes import program


class Storage:
    """One machine's images. The vfs driver needs no mounts; every layer of it is a copy, so large ones come last."""

    def __init__(self, folder: Path) -> None:
        for name in ("home", "tmp", "context"):
            (folder / name).mkdir(parents=True)
        self.folder = folder
        lines = ["[storage]", 'driver = "vfs"', f'graphroot = "{folder}/graph"', f'runroot = "{folder}/run"']
        (folder / "storage.conf").write_text("\n".join(lines) + "\n")
        anything = json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
        (folder / "home/.config/containers").mkdir(parents=True)
        (folder / "home/.config/containers/policy.json").write_text(anything)

    def run(self, tool: str, *args: str, timeout: float = 120) -> str:
        """Standard output. Raises AssertionError with standard error when the tool fails."""
        folder = str(self.folder)
        env = {**os.environ, "HOME": f"{folder}/home", "TMPDIR": f"{folder}/tmp", "XDG_RUNTIME_DIR": f"{folder}/tmp",
               "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf", "no_proxy": "127.0.0.1,localhost"}  # fmt: skip
        command = [program(tool) or tool, *_OPTIONS.get(tool, ()), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=env, cwd=folder)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr[-2000:]}"
        return done.stdout

    def push(self, tool: str, image: str, ref: str) -> str:
        """The digest the tool says it pushed."""
        kept = self.folder / "digest"
        match tool:
            case "skopeo":
                rest = ["copy", "--dest-tls-verify=false", f"--digestfile={kept}", f"containers-storage:{image}"]
            case _:
                rest = ["push", "--tls-verify=false", f"--digestfile={kept}", image]
        self.run(tool, *rest, f"docker://{ref}")
        return kept.read_text().strip()

    def pull(self, tool: str, ref: str) -> str:
        """The image's ID: the hex digest of its config."""
        if tool == "skopeo":
            self.run(tool, "copy", "--src-tls-verify=false", f"docker://{ref}", f"containers-storage:{ref}")
        else:
            self.run(tool, "pull", "--tls-verify=false", ref)
        return self.image_id(ref)

    def image_id(self, ref: str) -> str:
        return self.run("buildah", "images", "--no-trunc", "--format", "{{.ID}}", ref).strip().removeprefix("sha256:")

    def load(self, image: Built, tag: str) -> None:
        """Put an image made by hand into the store."""
        folder = self.folder / "loaded"
        folder.mkdir()
        (folder / "version").write_text("Directory Transport Version: 1.1\n")
        (folder / "manifest.json").write_bytes(image.manifests[-1].content)
        for digest, content in image.blobs.items():
            (folder / digest.partition(":")[2]).write_bytes(content)
        self.run("skopeo", "copy", f"dir:{folder}", f"containers-storage:{tag}")

    def build(self, tag: str, *lines: str) -> None:
        """What buildah makes of these lines; files are those of the folder `context`."""
        (self.folder / "Containerfile").write_text("\n".join(lines) + "\n")
        words = ["--layers", "--isolation", "chroot", "--pull-never", "--tag", tag]
        self.run("buildah", "build", *words, "-f", f"{self.folder}/Containerfile", f"{self.folder}/context")


_OPTIONS = {
    "podman": ("--cgroup-manager", "cgroupfs", "--events-backend", "file"),
    "skopeo": ("--insecure-policy",),
}
