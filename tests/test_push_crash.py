"""Power cuts under pushes: what was acknowledged is there, byte for byte, and nothing dangles.

A real worker is traced while it is pushed to; tests/traced.py makes of that every state a power cut can leave, and a
real server starts on each. Kills are in tests/test_push_kill.py.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import PurePosixPath

import pytest

from tests.conformance import content as make
from tests.conformance.client import Registry
from tests.fakes import origin_in_thread
from tests.real.tidegate import tidegate
from tests.support import blob_path, digest_of, get, kept, noise, quick
from tests.traced import Disk, Op, ops, read_tree, tracing, write_tree

PROMISED = ("blobs", "repositories")
"""Of the folders below local/ these are promises; uploads and what is in the making are not."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request and, once it was acknowledged, what paths answer: bytes, or None for a 404."""

    method: str
    path: str
    body: bytes
    media_type: str
    means: dict[str, bytes | None]


class Script:
    """The pushes, in order, with what each of them promises."""

    def __init__(self, registry, cached):
        self.steps = []
        self._registry = registry
        self._cached = cached

    def ask(self, method, path, body=b"", media_type=make.OCTETS, means=None):
        answer = self._registry.ask(method, path, body, Content_Type=media_type).expect(201, 202)
        self.steps.append(Step(method, path, body, media_type, means or {}))
        return answer

    def blob(self, repo, content, pieces):
        """In one request, or in so many chunks and a last one."""
        means = {f"/v2/{repo}/blobs/{content.digest}": content.body}
        if not pieces:
            self.ask("POST", f"/v2/{repo}/blobs/uploads/?digest={content.digest}", content.body, means=means)
            return
        where = self.ask("POST", f"/v2/{repo}/blobs/uploads/").header("Location")
        size = len(content.body) // (pieces + 1) + 1
        for number in range(pieces):
            self.ask("PATCH", where, content.body[number * size : (number + 1) * size])
        self.ask("PUT", f"{where}?digest={content.digest}", content.body[pieces * size :], means=means)

    def manifest(self, repo, content, *names):
        for name in names:
            paths = {f"/v2/{repo}/manifests/{each}" for each in (name, content.digest)}
            path = f"/v2/{repo}/manifests/{name}"
            self.ask("PUT", path, content.body, content.media_type, dict.fromkeys(paths, content.body))

    def run(self):
        first, second = make.image(2), make.image(1)
        signature = make.artifact("application/vnd.example.signature", first)
        both = make.index([first, second])
        for pieces, content in enumerate(first.parts):
            self.blob("dev/app", content, pieces)
        self.manifest("dev/app", first, "1", "latest")
        self.blob("dev/app", second.parts[0], 0)
        self.blob("dev/app", second.parts[1], 2)
        self.manifest("dev/app", second, "latest", second.digest)
        self.manifest("dev/app", both, "both")
        for content in signature.parts:
            self.blob("dev/app", content, 0)
        self.manifest("dev/app", signature, signature.digest)
        for content in first.parts:
            mounted = f"/v2/dev/other/blobs/uploads/?mount={content.digest}&from=dev/app"
            self.ask("POST", mounted, means={f"/v2/dev/other/blobs/{content.digest}": content.body})
        self.manifest("dev/other", first, "1")
        digest, body = self._cached
        self.ask("POST", f"/v2/dev/other/blobs/uploads/?mount={digest}", means={f"/v2/dev/other/blobs/{digest}": body})
        self.ask("DELETE", "/v2/dev/app/manifests/1", means={"/v2/dev/app/manifests/1": None})
        gone = {f"/v2/dev/app/manifests/{name}": None for name in (both.digest, "both")}
        self.ask("DELETE", f"/v2/dev/app/manifests/{both.digest}", means=gone)
        stray = make.blob(3000)
        self.blob("dev/app", stray, 0)
        self.ask("DELETE", path := f"/v2/dev/app/blobs/{stray.digest}", means={path: None})
        return first, signature


pytestmark = pytest.mark.real("strace")


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """The trace of a worker that took all of it: steps, operations, and what lay there before."""
    folder = tmp_path_factory.mktemp("traced")
    content = noise(5000, "cached")
    with origin_in_thread() as far, tidegate(quick(far.url) | config(), workers=1, folder=folder) as server:
        path = blob_path("pause", far.add_blob("pause", content))
        assert get(server, f"/v2/registry.k8s.io{path.removeprefix('/v2')}").is_blob(content)
        kept(server, digest_of(content))
        root, base = server.data, read_tree(server.data / "local")
        (worker,) = server.worker_pids()
        script = Script(Registry("tidegate", server.url), (digest_of(content), content))
        with tracing(worker, folder / "trace"):
            subjects = script.run()
        found = ops(folder / "trace", root)
    assert "Traceback" not in server.stderr
    below = [op for op in found if op.kind == "answer" or (op.to or op.path).startswith("local/")]
    yield script.steps, [_local(op) for op in below], base, subjects
    shutil.rmtree(folder)


def config():
    return {"local": {"own": ["dev/*"]}, "server": {"unqualified": ["local", "registry.k8s.io"]}}


def _local(op):
    return Op(op.kind, op.path.removeprefix("local/"), op.to.removeprefix("local/"), op.data, op.at)


def promised(path):
    return path.partition("/")[0] in PROMISED and ".making" not in path


def test_every_byte_and_name_is_on_the_disk_before_its_answer(pushed):
    steps, log, base, _ = pushed
    disk, answers, names = Disk(base), 0, 0
    for op in log:
        if op.kind in ("rename", "link") and promised(op.to):
            file = disk.now[op.path] if op.kind == "rename" else None
            assert file is None or file.now == file.synced, f"renamed before it was synced: {op.to}"
            names += 1
        disk.do(op)
        if op.kind == "answer":
            assert not [path for path in disk.changed() if promised(path)], f"answered too early: {steps[answers]}"
            answers += 1
    assert answers == len(steps)
    assert names > 25
    assert not [path for path, file in disk.now.items() if promised(path) and file and file.now != file.synced]


def states(log, base):
    """Every state once, with the numbers of answers that may have been given when it was left."""
    found = {}
    disk, answers = Disk(base), 0
    for op in log:
        disk.do(op)
        answers += op.kind == "answer"
        for tree in disk.states():
            # Of what is on its way the most is taken: no promise depends on it, and every one of its states, 400 in
            # all, takes servers seven minutes.
            known = found.setdefault(tuple(sorted(path for path in tree.items() if promised(path[0]))), [tree, set()])
            known[0] = max(known[0], tree, key=lambda each: sum(len(data or b"") + 1 for data in each.values()))
            known[1].add(answers)
    return list(found.values())


def allowed(steps, answers):
    """What each path may answer when so many steps were acknowledged and the next one may be on its way."""
    sure: dict[str, set[bytes | None]] = {path: {None} for step in steps for path in step.means}
    for step in steps[:answers]:
        sure |= {path: {body} for path, body in step.means.items()}
    for path, body in steps[answers].means.items() if answers < len(steps) else ():
        sure[path] = sure[path] | {body}
    return sure


def check(server, steps, answers, subjects):
    registry = Registry("tidegate", server.url)
    for path, bodies in allowed(steps, answers).items():
        answer = registry.ask("GET", path, Accept=make.ACCEPT).expect(200, 404)
        body = answer.body if answer.status == 200 else None
        assert body in bodies, f"{path}: {answer} after {answers} answers"
        if body is not None and "/manifests/" in path:
            whole(registry, PurePosixPath(path).parts[2:4], json.loads(body))
    for repo in ("dev/app", "dev/other"):
        listed = registry.ask("GET", f"/v2/{repo}/tags/list").expect(200, 404)
        for tag in listed.json()["tags"] if listed.status == 200 else ():
            registry.ask("GET", f"/v2/{repo}/manifests/{tag}").expect(200)
    first, signature = subjects
    listed = registry.ask("GET", f"/v2/dev/app/referrers/{first.digest}").expect(200).json()["manifests"]
    there = registry.ask("GET", f"/v2/dev/app/manifests/{signature.digest}").status == 200
    assert [each["digest"] for each in listed] == ([signature.digest] if there else [])


def whole(registry, repo, manifest):
    """Whatever a manifest names is there, and is what its digest says."""
    name = "/".join(repo)
    for entry in [manifest["config"], *manifest["layers"]] if "layers" in manifest else ():
        answer = registry.ask("GET", f"/v2/{name}/blobs/{entry['digest']}")
        assert answer.status == 200, f"{name} misses {entry}"
        assert digest_of(answer.body) == entry["digest"]
    for entry in manifest.get("manifests", ()):
        registry.ask("GET", f"/v2/{name}/manifests/{entry['digest']}").expect(200)


def test_a_server_starts_on_every_state_and_keeps_every_promise(pushed, tmp_path):
    steps, log, base, subjects = pushed
    found = states(log, base)
    assert len(found) > 40
    for number, (tree, answers) in enumerate(found):
        folder = tmp_path / str(number)
        write_tree(folder / "data" / "local", tree)
        with tidegate({"local": {"own": ["dev/*"]}}, workers=1, folder=folder) as server:
            for count in answers:
                check(server, steps, count, subjects)
            assert "Traceback" not in server.stderr
        shutil.rmtree(folder)
