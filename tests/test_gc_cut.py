"""Power cuts under gc: whatever it had done by then, what is left is whole, and a second run ends what the first began.

As with pushes (tests/test_push_crash.py) a real worker is traced, and real servers start on every state that a cut can
leave. What is not on the disk yet may come back: a link that gc has removed, with or without its file.
"""

import json
import shutil

import pytest

from tests.conformance import content as make
from tests.conformance.client import Registry
from tests.real.tidegate import tidegate
from tests.test_gc import LOCAL, age, collected, digests, files, intact
from tests.test_push_crash import whole
from tests.traced import Disk, Op, ops, read_tree, tracing, write_tree

pytestmark = pytest.mark.real("strace")


class Pushed:
    """Two repositories: what stays, and what nothing reaches any more."""

    def __init__(self, server):
        registry = Registry("tidegate", server.url)
        self.app, self.other = (registry.repository(f"dev/{name}") for name in ("app", "other"))
        self.image, self.inner, self.gone = make.image(2), make.image(1), make.image(2)
        self.index = make.index([self.inner])
        self.apart, self.stray = make.image(1), make.blob(2000)
        self.app.push_all(self.image, "1")
        self.app.push_all(self.index, "both")
        self.app.push_all(self.gone, "gone")
        self.app.push_blob(self.stray)
        self.other.push_all(self.apart, "1")
        self.other.push_all(self.image, "2")
        for repo, tag in (("app", "gone"), ("other", "2")):
            registry.ask("DELETE", f"/v2/dev/{repo}/manifests/{tag}").expect(202)

    @property
    def kept(self):
        return digests(self.image, self.index, self.apart)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """What was pushed, what gc did to the disk, and what lay there before."""
    folder = tmp_path_factory.mktemp("traced")
    with tidegate(LOCAL, workers=1, folder=folder) as server:
        pushed = Pushed(server)
        age(server)
        base = read_tree(server.data / "local")
        (worker,) = server.worker_pids()
        with tracing(worker, folder / "trace"):
            assert collected(server, "--delete", "--untagged")["files"]
        found = ops(folder / "trace", server.data)
        assert files(server) == pushed.kept
    below = [Op(op.kind, _below(op.path), _below(op.to), op.data, op.at) for op in found if _in_local(op)]
    yield pushed, below, base
    shutil.rmtree(folder)


def _below(path):
    return path.removeprefix("local/")


def _in_local(op):
    return (op.to or op.path).startswith(("local/blobs", "local/repositories"))


def _states(log, base):
    """Every state once; of files only whether they are there, because gc writes none."""
    disk, found = Disk(base), {}
    for op in log:
        disk.do(op)
        for tree in disk.states():
            found.setdefault(frozenset(tree), tree)
    return list(found.values())


def test_what_a_cut_leaves_of_gc_is_whole(traced, tmp_path):
    pushed, log, base = traced
    assert {op.kind for op in log} >= {"unlink", "sync"}
    found = _states(log, base)
    assert len(found) > 15
    for number, tree in enumerate(found):
        folder = tmp_path / str(number)
        write_tree(folder / "data" / "local", tree)
        with tidegate(LOCAL, workers=1, folder=folder) as server:
            _check(server, pushed)
            age(server)
            collected(server, "--delete", "--untagged")
            assert files(server) == pushed.kept, "the second run ends what the first began"
            _check(server, pushed)
            assert "Traceback" not in server.stderr
        shutil.rmtree(folder)


def _check(server, pushed):
    registry = Registry("tidegate", server.url)
    for repository, content, tag in (
        ("app", pushed.image, "1"),
        ("app", pushed.index, "both"),
        ("other", pushed.apart, "1"),
    ):
        intact(registry.repository(f"dev/{repository}"), content, tag)
    for repository in ("app", "other"):
        for content in (pushed.gone, pushed.image, pushed.inner):
            answer = registry.ask("GET", f"/v2/dev/{repository}/manifests/{content.digest}", Accept=make.ACCEPT)
            if answer.expect(200, 404).status == 200:
                whole(registry, ("dev", repository), json.loads(answer.body))
