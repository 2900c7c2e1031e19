"""The supervisor and its workers as processes: restart, giving up, drain, sockets handed in, folders already in use.

Every service is `proxy.worker.serve` with tests/dummy_service.py in place of the registry, on a free port.
"""

import concurrent.futures
import contextlib
import glob
import http.client
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
SERVE = """
import os, sys
from proxy import config, worker
from proxy.errors import StartError
if os.environ.get("LISTEN_FDS"):
    os.environ["LISTEN_PID"] = str(os.getpid())
try:
    load = lambda: config.load(os.environ.get("DUMMY_CONFIG", os.devnull), os.environ, {})
    sys.exit(worker.serve(load(), load, "dummy_service"))
except StartError as error:
    sys.exit(str(error))
"""


class Service:
    """One supervisor in a process of its own, and what it wrote."""

    def __init__(self, data, log, *, listen="127.0.0.1:0", workers=2, drain="5s", stdin=None, code=SERVE, **environ):
        self.data, self.log = str(data), log
        with open(log, "w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": f"{ROOT}:{HERE}",
                    "TIDEGATE_SERVER_DATA": self.data,
                    "TIDEGATE_SERVER_LISTEN": listen,
                    "TIDEGATE_SERVER_WORKERS": str(workers),
                    "TIDEGATE_SERVER_DRAIN": drain,
                    **environ,
                },
                stdin=stdin,
                stdout=output,
                stderr=output,
            )

    def output(self):
        with open(self.log) as file:
            return file.read()

    def ready(self):
        """Wait for the first lines and every worker; the service itself."""
        until(lambda: "\nnext " in self.output() or self.process.poll() is not None)
        assert self.process.poll() is None, self.output()
        self.port = int(re.search(r"serving  http://\S+:(\d+), ", self.output())[1])
        self.get("/")
        return self

    def get(self, path, timeout=10):
        """(slot, pid) of the worker that answered."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            body = connection.getresponse().read().decode()
        finally:
            connection.close()
        slot, pid, _ = body.split()
        return int(slot), int(pid)

    def children(self):
        pid = self.process.pid
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]

    def end(self, number=signal.SIGTERM, timeout=15):
        self.process.send_signal(number)
        return self.process.wait(timeout)


def until(condition, seconds=10):
    """Wait for a condition, which is returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return found


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def ticks(pid):
    """Processor time of a process, in hundredths of a second."""
    with open(f"/proc/{pid}/stat") as file:
        return sum(int(field) for field in file.read().rpartition(")")[2].split()[11:13])


@pytest.fixture
def start(tmp_path):
    """Start services; all of them and their workers are ended by their own pid."""
    started = []

    def start(data=tmp_path / "data", **options):
        started.append(Service(data, tmp_path / f"log{len(started)}", **options))
        return started[-1]

    yield start
    for service in started:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        yield pool


def test_first_lines_and_a_clean_end(start):
    service = start().ready()
    first, second, third, fourth = service.output().splitlines()
    assert re.match(r"tidegate \S+   config /dev/null   data \S+/data \(.*\d (GiB|TiB|MiB) free\)", first)
    assert second == f"serving  http://127.0.0.1:{service.port}, 2 workers"
    assert third == "upstream registry.k8s.io (also k8s.gcr.io)"
    assert fourth.startswith("next     tidegate doctor")
    admin = os.stat(f"{service.data}/admin.sock")
    assert stat.S_ISSOCK(admin.st_mode)
    assert stat.S_IMODE(admin.st_mode) == 0o660
    assert stat.S_IMODE(os.stat(service.data).st_mode) & 0o007 == 0
    assert service.end() == 0
    assert "draining: " in service.output()
    assert "up to 5 s (again to stop now)" in service.output()
    assert not os.path.exists(f"{service.data}/admin.sock")


def test_the_way_out_and_the_open_door_stand_in_the_first_lines(start):
    service = start(listen="0.0.0.0:0", HTTPS_PROXY="http://me:pw@127.0.0.1:9").ready()
    assert "WARNING: plain HTTP: anyone on the path can change what tags mean" in service.output()
    assert "out through http://me:***@127.0.0.1:9 (HTTPS_PROXY)" in service.output()


def test_a_burst_spreads_over_all_workers(start, pool):
    service = start(workers=4).ready()
    until(lambda: len(service.children()) == 4)
    time.sleep(0.5)  # all four in their loops
    slots = [slot for slot, _ in pool.map(lambda _: service.get("/?s=0.3"), range(50))]
    shares = [slots.count(slot) for slot in range(4)]
    # Whoever is free takes the next one, so shares are uneven where cores are few; one worker taking all is the bug.
    assert max(shares) <= 40, shares
    assert sum(share > 0 for share in shares) >= 3, shares


def test_a_killed_worker_is_replaced_in_its_slot(start):
    service = start(workers=1).ready()
    slot, pid = service.get("/")
    stale = f"{service.data}/run/metrics/gauge_all_0.db"
    other = f"{service.data}/run/metrics/counter_0.db"
    for path in (stale, other):
        with open(path, "w"):
            pass
    os.kill(pid, signal.SIGKILL)
    until(lambda: "starting another" in service.output())
    again = service.get("/")
    assert again[0] == slot == 0
    assert again[1] != pid
    assert f"worker 0 (pid {pid}) was killed by SIGKILL; starting another" in service.output()
    assert not os.path.exists(stale)
    assert os.path.exists(other)
    assert service.end() == 0


def test_metrics_of_an_earlier_life_are_wiped(start):
    service = start().ready()
    leftover = f"{service.data}/run/metrics/counter_9.db"
    with open(leftover, "w"):
        pass
    assert service.end() == 0
    start().ready()
    assert not os.path.exists(leftover)


def test_five_deaths_end_it_with_the_reason(start):
    service = start(DUMMY_START="the moon is full")
    assert service.process.wait(20) == 1
    assert "the moon is full\n" in service.output()
    assert "workers keep dying, 5 within 30 s, the last one ended with status 1; giving up\n" in service.output()
    assert "Traceback" not in service.output()


def test_what_prepare_refuses_is_one_line(start):
    service = start(DUMMY_PREPARE="no board today")
    assert service.process.wait(20) == 1
    assert service.output() == "no board today\n"


def test_workers_follow_their_killed_supervisor_and_a_new_one_starts(start, pool):
    service = start().ready()
    workers = service.children()
    slow = pool.submit(service.get, "/spin?s=0.5")
    time.sleep(0.2)
    service.process.kill()
    service.process.wait()
    again = start(listen=f"127.0.0.1:{service.port}").ready()  # while one of the old workers still holds the lock
    until(lambda: all(gone(pid) for pid in workers), 3)
    assert again.get("/")[1] not in workers
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        slow.result(10)


def test_drain_finishes_what_runs_and_refuses_what_is_new(start, pool):
    service = start().ready()
    running = [pool.submit(service.get, "/?s=1.5") for _ in range(3)]
    time.sleep(0.5)
    service.process.send_signal(signal.SIGTERM)
    until(lambda: re.search(r"draining: [3-9] connections, ", service.output()))
    time.sleep(0.2)
    with pytest.raises(ConnectionRefusedError):
        service.get("/")
    assert all(slot in (0, 1) for slot, _ in (future.result(10) for future in running))
    assert service.process.wait(10) == 0


def test_a_drain_has_an_end(start, pool):
    service = start(drain="500ms").ready()
    running = pool.submit(service.get, "/?s=30")
    time.sleep(0.3)
    before = time.monotonic()
    assert service.end() == 0
    assert time.monotonic() - before < 4
    assert running.exception(5) is not None


def test_a_second_signal_ends_at_once(start, pool):
    service = start(drain="1m").ready()
    running = pool.submit(service.get, "/?s=30")
    time.sleep(0.3)
    workers = service.children()
    service.process.send_signal(signal.SIGINT)
    until(lambda: "draining" in service.output())
    before = time.monotonic()
    assert service.end(signal.SIGINT) == 1
    assert time.monotonic() - before < 2
    assert re.search(r"stopping now: not waiting for the workers, killed [12]\n", service.output())
    assert all(gone(pid) for pid in workers)
    assert running.exception(5) is not None


def test_out_of_descriptors_is_a_pause_and_no_end(start):
    few = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))\n" + SERVE
    service = start(workers=1, code=few).ready()
    _, pid = service.get("/")
    with contextlib.ExitStack() as many:
        for _ in range(60):
            many.enter_context(socket.create_connection(("127.0.0.1", service.port)))
        until(lambda: len(os.listdir(f"/proc/{pid}/fd")) >= 29)
        before = ticks(pid)
        time.sleep(0.5)
        assert ticks(pid) - before < 10  # of a hundred a second: it waits and does not spin
    assert service.get("/")[1] == pid
    assert "Traceback" not in service.output()


INHERIT = "import os; os.dup2(0, 3)\n" + SERVE


def test_connections_queue_at_an_inherited_socket_during_a_restart(start, pool):
    with socket.create_server(("127.0.0.1", 0), backlog=128) as held:
        port = held.getsockname()[1]
        options = {"stdin": held, "code": INHERIT, "LISTEN_FDS": "1", "LISTEN_PID": "self", "listen": "127.0.0.1:1"}
        first = start(**options).ready()
        assert first.port == port
        answers = []
        for number in range(50):
            answers.append(pool.submit(first.get, "/?s=0.05", 30))
            if number == 20:
                first.process.send_signal(signal.SIGTERM)
            time.sleep(0.01)
        assert first.process.wait(10) == 0
        waiting = [pool.submit(first.get, "/", 30) for _ in range(10)]
        start(**options).ready()
        assert all(len(future.result(30)) == 2 for future in answers + waiting)


def test_something_that_does_not_listen_is_refused(start):
    with socket.socket() as idle:
        service = start(stdin=idle, code=INHERIT, LISTEN_FDS="1", LISTEN_PID="self")
        assert service.process.wait(10) == 1
        assert "does not listen; use ListenStream=HOST:PORT" in service.output()


def test_a_taken_port_names_its_holder(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        service = start(listen=f"127.0.0.1:{port}")
        assert service.process.wait(10) == 1
        expected = rf"port {port} is taken by pid {os.getpid()} \(.+\); use --listen 127\.0\.0\.1:{port + 1}\n"
        assert re.fullmatch(expected, service.output()), service.output()


def test_an_address_of_another_machine(start):
    service = start(listen="192.0.2.1:5000")
    assert service.process.wait(10) == 1
    assert service.output() == "192.0.2.1 is no address of this machine; use --listen 0.0.0.0:5000\n"


def test_two_on_one_folder(start):
    first = start().ready()
    second = start()
    assert second.process.wait(10) == 1
    assert second.output() == f"{first.data} is in use by pid {first.process.pid}; stop it or use --data DIR\n"
    first.get("/")
    assert os.path.exists(f"{first.data}/admin.sock")


@pytest.mark.parametrize(("data", "why"), [("FILE/data", "Not a directory"), ("/proc/tidegate", "No such file")])
def test_a_folder_that_cannot_be_written(start, tmp_path, data, why):
    (tmp_path / "file").write_text("")
    data = data.replace("FILE", str(tmp_path / "file"))
    service = start(data)
    assert service.process.wait(10) == 1
    assert service.output().startswith(f"cannot write to {data}: {why}")
    assert service.output().endswith("use --data DIR or make it writable\n")


def test_a_long_path_is_no_trouble_for_the_admin_socket(start, tmp_path):
    service = start(tmp_path / ("d" * 120)).ready()
    assert glob.glob(f"{service.data}/admin.sock")
    assert service.end() == 0
