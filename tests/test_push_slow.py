"""A disk that takes longer than a client waits: the answer says so in time, the work goes on, and the next one finds it
done. strace makes the disk slow, 25 s for one call; no client here waits more than 23."""

import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance import content as make
from tests.conformance.client import Registry
from tests.real.processes import program
from tests.support import until

pytestmark = pytest.mark.real("strace")
_SLOW, _AT_MOST = 25, 23


@contextmanager
def slow(pid, call, path):
    """The first call of this kind about `path` takes so long."""
    command = [program("strace") or "strace", "-f", "-e", f"trace={call}", "-o", "/dev/null",
               "-e", f"inject={call}:delay_enter={_SLOW}000000:when=1", "-p", str(pid), "-P", str(path)]  # fmt: skip
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text())
        yield
    finally:
        tracer.kill()
        tracer.wait(10)


@pytest.mark.parametrize(
    ("call", "algorithm"), [("fsync", "sha256"), ("pread64", "sha512")], ids=["slow to write", "slow to read"]
)
def test_no_answer_waits_for_a_slow_disk(tidegate, call, algorithm):
    """The digest of the second is a sha512 that nobody announced, so that all of it is read once more."""
    server = tidegate({"local": {"upload_ttl": "1h"}}, workers=1)
    registry = Registry("tidegate", server.url, timeout=_AT_MOST)
    repository = registry.repository("dev/app")
    content = make.blob(100_000, algorithm=algorithm)
    location = repository.patch(repository.session(), content.body).expect(202).header("Location")
    (worker,) = server.worker_pids()
    name = location.rpartition("/")[2].partition("?")[0]
    with slow(worker, call, server.data / "local" / "uploads" / name):
        answer = repository.finish(location, content.digest).refused(503, "UNAVAILABLE")
        assert answer.header("Retry-After") == "1"
        deadline = time.monotonic() + 2 * _SLOW
        while (answer := repository.finish(location, content.digest)).status == 503:
            assert time.monotonic() < deadline
    answer.expect(201)
    assert repository.blob(content.digest).expect(200).body == content.body
    assert list((server.data / "local" / "uploads").iterdir()) == []
    assert "Traceback" not in server.stderr
