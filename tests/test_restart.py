"""The real service started, stopped, killed and started again while clients pull: nobody gets a wrong byte.

The supervisor's own rules, with a dummy in place of the registry, stand in test_worker.py. Here the test is also the
service manager: it holds the listening socket, as a systemd socket unit does.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes import Drip
from tests.real.processes import free_port
from tests.real.tidegate import ROOT, toml, upstream_config
from tests.support import (
    CLIENTS,
    MIB,
    blob_path,
    client,
    finished,
    get,
    kept,
    noise,
    part,
    read_all,
    spread,
    until,
    written,
)

REPO = "pause"
SLOW = Drip(128 << 10, 0.05)  # 2.5 MiB/s
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE_", "LISTEN_"))}


def cold(origin, size=4 * MIB, *faults):
    """A blob nobody has asked for yet: content, digest, path."""
    content = noise(size)
    digest = origin.add_blob(REPO, content)
    if faults:
        origin.fault(digest, *faults)
    return content, digest, blob_path(REPO, digest)


def config(origin, drain="10s", **keys):
    return {"server": {"drain": drain}} | upstream_config(origin.url, **keys)


# A socket that outlives the service

AS_SYSTEMD = """
import os, sys
os.dup2(0, 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "proxy", "serve", *sys.argv[1:]])
"""


class Unit:
    """A service unit with a socket unit: the socket stays, the service comes and goes."""

    trust = None

    def __init__(self, folder, document):
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._folder, self._process = folder, None
        (folder / "config.toml").write_text(toml(document))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def start(self):
        options = ["--config", str(self._folder / "config.toml"), "--data", str(self._folder / "data")]
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", AS_SYSTEMD, *options], stdin=self._socket, stdout=output, stderr=output,
                env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, cwd=self._folder,
            )  # fmt: skip

    def stop(self):
        """SIGTERM; the exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)


def test_two_restarts_under_50_pulling_clients(tmp_path, far):
    contents = [noise(size, size) for size in (300_000, 2_000_000, 1)]
    paths = [blob_path(REPO, far.add_blob(REPO, content)) for content in contents]
    image = far.add_image(REPO, "3.9", b"layer")
    over, pulls = threading.Event(), []

    def pull(number):
        """Each request on a connection of its own: a kept one may be closed between two at any time."""
        done = 0
        while not over.is_set():
            at = (number + done) % len(contents)
            done += 1
            blob, manifest = get(unit, paths[at]), get(unit, "/v2/pause/manifests/3.9")
            assert blob.is_blob(contents[at]), blob
            assert manifest.is_blob(image.manifest), manifest
            pulls.append(number)
        return done

    with Unit(tmp_path, config(far) | {"server": {"workers": 2}}) as unit, ThreadPoolExecutor(CLIENTS) as pool:
        running = [pool.submit(pull, number) for number in range(CLIENTS)]
        try:
            for _ in range(2):
                enough = len(pulls) + CLIENTS
                until(lambda enough=enough: len(pulls) > enough or any(each.done() for each in running), 30)
                assert unit.stop() == 0
                unit.start()
            enough = len(pulls) + 2 * CLIENTS
            until(lambda: len(pulls) > enough or any(each.done() for each in running), 30)
        finally:
            over.set()
        assert all(each.result(60) for each in running)
        assert unit.stop() == 0
    assert "Traceback" not in (tmp_path / "output").read_text()
    for path in paths:
        assert far.count("GET", path) == 1


# Stopping


def test_sigterm_lets_a_running_answer_finish(tidegate, far):
    content, digest, path = cold(far, MIB, SLOW)
    server = tidegate(config(far))
    with client(server) as connected:
        response = connected.start(path)
        server.process.signal(signal.SIGTERM)
        until(lambda: "draining: " in server.stdout + server.stderr)
        assert read_all(response) == (content, True)
    assert server.process.wait(15) == 0
    assert finished(server, digest).read_bytes() == content
    with pytest.raises(OSError, match="refused"):
        get(server, "/v2/")


def test_a_fill_that_outlasts_the_drain_is_resumed_by_the_next_start(tidegate, far):
    content, digest, path = cold(far, 4 * MIB, SLOW)
    server = tidegate(config(far, "200ms"))
    with client(server) as connected:
        response = connected.start(path)
        until(lambda: written(server, digest) >= MIB)
        assert server.stop() == 0
        assert read_all(response)[1] is False
    kept_bytes = part(server, digest).read_bytes()
    assert MIB <= len(kept_bytes) < len(content)
    assert content.startswith(kept_bytes)
    far.rules.clear()
    far.log.clear()
    again = tidegate(config(far))
    assert get(again, path).is_blob(content)
    assert [request.headers.get("range") for request in far.log] == [f"bytes={len(kept_bytes)}-"]
    assert kept(again, digest) == content


def test_an_abandoned_fill_is_resumed_too(tidegate, far):
    content, digest, path = cold(far, 4 * MIB, SLOW)
    server = tidegate(config(far))
    with client(server) as connected:
        connected.start(path)
        until(lambda: written(server, digest) >= MIB)
        connected.leave()
    assert server.stop() == 0
    size = part(server, digest).stat().st_size
    assert size >= MIB
    far.rules.clear()
    far.log.clear()
    assert get(tidegate(config(far)), path).is_blob(content)
    assert [request.headers.get("range") for request in far.log] == [f"bytes={size}-"]


def test_a_second_signal_ends_at_once(tidegate, far):
    content, _, path = cold(far, 4 * MIB, SLOW)
    server = tidegate(config(far, "1m"), workers=2)
    with client(server) as connected:
        response = connected.start(path)
        workers = server.worker_pids()
        server.process.signal(signal.SIGTERM)
        until(lambda: "draining: " in server.stdout + server.stderr)
        assert server.stop(3) == 1
        assert read_all(response)[1] is False
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)
    far.rules.clear()
    assert get(tidegate(config(far)), path).is_blob(content)


def test_kill_9_of_one_worker_breaks_its_own_connections_only(tidegate, far):
    content, digest, path = cold(far, 2 * MIB, SLOW)
    server = tidegate(config(far), workers=3)
    before = server.worker_pids()
    with spread(server, 12) as clients, ThreadPoolExecutor(12) as pool:
        running = [pool.submit(each.get, path) for each in clients]
        until(lambda: written(server, digest) >= MIB // 2)
        victim = before[1]
        os.kill(victim, signal.SIGKILL)
        for each, answer in zip(clients, running, strict=True):
            got = answer.result(30)
            assert got.is_blob(content) == (each.pid != victim), (each.pid, victim, got)
            assert each.pid != victim or not got.whole
    after = until(lambda: len(found := server.worker_pids()) == 3 and found)
    assert len(set(after) & set(before)) == 2
    assert f"(pid {victim}) was killed by SIGKILL; starting another" in server.stdout + server.stderr
    with spread(server, 3) as clients:
        assert all(each.get(path).is_blob(content) for each in clients)
    assert far.log.sent() <= 2 * len(content)


# What does not start


@pytest.fixture
def refused(tmp_path):
    """refused(*options, **environment): the one line and the status of a `serve` that cannot."""

    def run(*options, **environment):
        done = subprocess.run(
            [sys.executable, "-m", "proxy", "serve", *options], capture_output=True, text=True, timeout=30,
            env=ENVIRONMENT | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)} | environment, cwd=tmp_path,
        )  # fmt: skip
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr.rstrip("\n"), done.returncode

    return run


def test_a_wrong_configuration(refused, tmp_path):
    file = tmp_path / "tidegate.toml"
    file.write_text('[server]\nlisten = "127.0.0.1:0"\n\n[upstreams."quay.io"]\ntag_tll = "1h"\n')
    line, status = refused("--config", str(file))
    assert status == 1
    assert line == f'{file}:5: unknown key tag_tll in [upstreams."quay.io"]; did you mean tag_ttl?'


def test_wrong_usage(refused):
    line, status = refused("--prot", "5000")
    assert status == 2
    assert line.endswith("; see tidegate serve --help")


def test_a_taken_port(refused, tidegate):
    server = tidegate()
    line, status = refused("--listen", server.host, "--data", f"{server.data}-2")
    port = int(server.host.rpartition(":")[2])
    assert status == 1
    assert re.fullmatch(rf"port {port} is taken by pid \d+ \(.+\); use --listen 127\.0\.0\.1:{port + 1}", line)


def test_two_instances_on_one_folder(refused, tidegate):
    server = tidegate()
    line, status = refused("--listen", f"127.0.0.1:{free_port()}", "--data", str(server.data))
    assert (line, status) == (f"{server.data} is in use by pid {server.pid}; stop it or use --data DIR", 1)
    assert get(server, "/healthz").status == 200


@pytest.mark.parametrize("data", ["/proc/tidegate", "/dev/null/tidegate"])
def test_a_folder_nobody_can_write(refused, data):
    line, status = refused("--listen", "127.0.0.1:0", "--data", data)
    assert status == 1
    assert line.startswith(f"cannot write to {data}: ")
    assert line.endswith("; use --data DIR or make it writable")


def test_a_ca_file_that_is_none(refused, tmp_path):
    (tmp_path / "ca.pem").write_text("no certificate\n")
    file = tmp_path / "tidegate.toml"
    file.write_text(f'egress.ca_file = "{tmp_path}/ca.pem"\n')
    line, status = refused("--config", str(file), "--listen", "127.0.0.1:0", "--data", str(tmp_path / "data"))
    assert status == 1
    assert "ca_file" in line
