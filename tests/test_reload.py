"""SIGHUP: settings change without a restart, pulls that run do not notice, and a mistake changes nothing.

Where the machinery alone is meant the supervisor runs tests/dummy_service.py; the rest is the real thing.
"""

import os
import pty
import signal
import threading
import time

import pytest

from tests.fakes import Drip
from tests.real.certificates import authority
from tests.real.processes import fetch, free_port
from tests.real.tidegate import toml, upstream_config
from tests.support import MIB, blob_path, client, get, noise, quick, until
from tests.test_worker import SERVE, gone, start

__all__ = ["start"]  # the fixture


def config_of(server):
    return server.data.parent / "config.toml"


def reload(server, config=None):
    """Ask for it and wait until it is said how it went; that line."""
    if config is not None:
        config_of(server).write_text(config if isinstance(config, str) else toml(config))
    before = len(said(server))
    server.process.signal(signal.SIGHUP)
    return until(lambda: said(server)[before:], 20)[-1]


def said(server):
    lines = server.stderr.splitlines()
    return [line for line in lines if line.startswith(("reloaded: ", "reload refused"))]


def ready(server):
    return fetch(f"{server.url}/readyz")[1].decode().strip()


# Settings


def test_a_new_upstream_a_rule_and_the_number_of_workers(tidegate, far):
    far.add_image("app", "1", b"layer")
    config = upstream_config(far.url)
    server = tidegate(config)
    old = server.worker_pids()
    assert get(server, "/v2/quay.io/app/manifests/1").status == 403
    more = upstream_config(far.url, deny_repositories=["secret/*"])
    more["upstreams"] |= upstream_config(far.url, "quay.io")["upstreams"]
    line = reload(server, more | {"server": {"workers": len(old) + 1}, "cache": {"max_size": "1GiB"}})
    keys = 'server.workers, cache.max_size, upstreams."registry.k8s.io".deny_repositories, upstreams."quay.io"'
    assert line == f"reloaded: {keys} changed"
    until(lambda: len(server.worker_pids()) == len(old) + 1 and not set(old) & set(server.worker_pids()))
    assert get(server, "/v2/quay.io/app/manifests/1").status == 200
    assert get(server, "/v2/secret/app/manifests/1").status == 403
    assert server.metrics().total("tidegate_cache_limit_bytes") == 1 << 30
    assert server.metrics().total("tidegate_config_last_reload_successful") == 1


def test_a_certificate_can_come_by_reload(tidegate, far, tmp_path):
    made = authority(tmp_path / "ca")
    server = tidegate(upstream_config(far.url), workers=2)
    old = server.worker_pids()
    tls = {"tls": {"cert_file": str(made.certificate), "key_file": str(made.key)}}
    assert reload(server, upstream_config(far.url) | tls) == "reloaded: tls.cert_file, tls.key_file changed"
    until(lambda: not set(old) & set(server.worker_pids()))  # who may still take a connection until then
    server.trust = made.trust()
    assert get(server, "/v2/").status == 200


MISTAKES = {
    "unknown-key": ("[server]\nlisten_on = 5\n", "unknown key listen_on in [server]"),
    "wrong-type": ('[cache]\nmax_size = "much"\n', "cache.max_size must be a size"),
    "not-toml": ("[server\n", "not TOML"),
    "ca": ('[egress]\nca_file = "/nowhere/ca.pem"\n', "/nowhere/ca.pem"),
    "users": ('[auth]\npull = "users"\nusers_file = "/nowhere/users"\n', "cannot read auth.users_file /nowhere/users"),
    "certificate": ('[tls]\ncert_file = "/nowhere/c.pem"\n', "cannot read tls.cert_file /nowhere/c.pem"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_changes_nothing_and_is_told_everywhere(tidegate, far, name):
    wrong, words = MISTAKES[name]
    far.add_image("app", "1", b"layer")
    config = upstream_config(far.url)
    server = tidegate(config, workers=1)
    workers = server.worker_pids()
    line = reload(server, wrong)
    assert line.startswith("reload refused, the settings stay as they were: ")
    assert words in line
    assert server.worker_pids() == workers
    assert get(server, "/v2/app/manifests/1").status == 200
    assert ready(server).startswith("degraded: the last reload was refused")
    assert "nowhere" not in ready(server), "anybody may read this page"
    assert server.metrics().total("tidegate_config_last_reload_successful") == 0
    assert reload(server, config) == "reloaded: no setting changed"
    assert ready(server) == "ok"
    assert server.metrics().total("tidegate_config_last_reload_successful") == 1


def test_every_reason_is_told(tidegate, far):
    server = tidegate(upstream_config(far.url), workers=1)
    far.refusing = True
    assert get(server, "/v2/app/manifests/1").status == 503
    reload(server, MISTAKES["certificate"][0])
    assert ready(server).startswith("degraded: no answer from registry.k8s.io; the last reload was refused")


def test_no_secret_is_told(tidegate, far):
    config = upstream_config(far.url)
    server = tidegate(config, workers=1)
    line = reload(server, upstream_config(far.url, username="me", password="hunter2"))
    assert ".password" in line
    assert "hunter2" not in server.stderr + server.stdout
    line = reload(server, upstream_config(far.url, username="me", password="hunter2", passwort="hunter3"))
    assert "unknown key passwort" in line
    assert "hunter" not in server.stderr + server.stdout


# Pulls


def test_a_download_over_a_reload_is_one_and_whole(tidegate, far):
    content = noise(2 * MIB)
    digest = far.add_blob("app", content)
    far.fault(digest, Drip(16 << 10, 0.03), times=1)
    server = tidegate(quick(far.url) | {"server": {"drain": "1s"}}, workers=2)
    old = server.worker_pids()
    with client(server) as slow:
        response = slow.start(blob_path("app", digest))
        first = response.read(1000)
        assert reload(server) == "reloaded: no setting changed"
        until(lambda: len(set(server.worker_pids()) - set(old)) == 2)
        with client(server) as late:
            joined = late.get(blob_path("app", digest))
        assert first + response.read() == content, "longer than drain, which is for stopping"
    assert joined.is_blob(content), "a new worker follows what an old one leads"
    assert far.count("GET", digest) == 1
    until(lambda: not set(old) & set(server.worker_pids()))
    assert server.stop() == 0


def test_many_reloads_under_requests_lose_none(tidegate, far):
    content = noise(100_000)
    digest = far.add_blob("app", content)
    server = tidegate(quick(far.url), workers=2)
    assert get(server, blob_path("app", digest)).is_blob(content)
    over, bad, done = threading.Event(), [], []

    def ask():
        while not over.is_set():
            got = get(server, blob_path("app", digest))
            (done if got.is_blob(content) else bad).append(got)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(3):
            reload(server)
    finally:
        over.set()
        for asker in askers:
            asker.join(30)
    assert not bad
    until(lambda: len(server.worker_pids()) == 2)
    counted = server.metrics().total("tidegate_requests_total", kind="blob", method="GET")
    assert counted == len(done) + 1, "counters of workers that are gone still count"
    assert server.metrics().total("tidegate_worker_restarts_total") == 0, "nobody died"
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    until(lambda: server.metrics().total("tidegate_worker_restarts_total") == 1)


def test_a_stop_does_not_wait_for_what_a_reload_left(tidegate, far):
    digest = far.add_blob("app", noise(MIB))
    far.fault(digest, Drip(1000, 0.3))
    server = tidegate(quick(far.url) | {"server": {"drain": "500ms"}}, workers=1)
    with client(server) as slow:
        slow.start(blob_path("app", digest)).read(100)
        reload(server)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 10
    # stopped in order, so the next start need not count the files
    assert not (server.data / "run" / "running").exists()


# The machinery


def dummy(start, tmp_path, text="", **options):
    path = tmp_path / "dummy.toml"
    path.write_text(text)
    return start(DUMMY_CONFIG=str(path), **options).ready(), path


def test_workers_that_do_not_come_up_are_no_loss(start, tmp_path):
    service, path = dummy(start, tmp_path)
    workers = service.children()
    path.write_text('[server]\nurl = "http://broken"\n')
    service.process.send_signal(signal.SIGHUP)
    until(lambda: "reload refused" in service.output())
    assert "the settings stay as they were: a new worker ended with status 1" in service.output()
    until(lambda: sorted(service.children()) == sorted(workers))
    assert service.get("/")[1] in workers
    path.write_text("")
    service.process.send_signal(signal.SIGHUP)
    until(lambda: "reloaded: no setting changed" in service.output())
    assert service.end() == 0


def test_what_the_composition_refuses_starts_no_worker(start, tmp_path):
    service, path = dummy(start, tmp_path)
    workers = service.children()
    path.write_text('[server]\nurl = "http://refused"\n')
    service.process.send_signal(signal.SIGHUP)
    until(lambda: "reload refused, the settings stay as they were: not with this URL" in service.output())
    assert service.children() == workers


def test_listen_and_data_need_a_restart(start, tmp_path):
    code = "import os\nos.environ = dict(os.environ)\n" + SERVE  # its own, so that what the file says counts
    code = code.replace("sys.exit(worker", "del os.environ['TIDEGATE_SERVER_LISTEN']\n    sys.exit(worker")
    service, path = dummy(start, tmp_path, code=code)
    path.write_text(f'[server]\nlisten = "127.0.0.1:{free_port()}"\ndrain = "3s"\n')
    for number in (1, 2):
        service.process.send_signal(signal.SIGHUP)
        until(lambda: service.output().count("reloaded: ") == number)  # noqa: B023 - waited for here
    assert service.output().count("server.listen changed: that needs a restart, until then the old one stays\n") == 2
    assert service.get("/")
    assert service.end() == 0


def test_signals_that_come_while_it_reloads(start, tmp_path):
    service, _ = dummy(start, tmp_path)
    first = service.children()
    service.process.send_signal(signal.SIGHUP)
    os.kill(first[0], signal.SIGKILL)
    for _ in range(4):
        service.process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    until(lambda: service.output().count("reloaded: ") >= 2)
    until(lambda: len(service.children()) == 2 and not set(first) & set(service.children()))
    for _ in range(10):
        assert service.get("/")[1] in service.children()
    assert service.end() == 0


def test_slots_are_used_again(start, tmp_path):
    service, _ = dummy(start, tmp_path)
    seen = set()
    for number in range(1, 4):
        service.process.send_signal(signal.SIGHUP)
        until(lambda: service.output().count("reloaded: ") == number)  # noqa: B023 - waited for here
        until(lambda: len(service.children()) == 2)
        seen |= {service.get("/")[0] for _ in range(10)}
    assert seen <= {0, 1, 2, 3}, "metrics are files of slots, and should not pile up"


def test_a_terminal_that_goes_away_is_the_end(start, tmp_path):
    ours, theirs = pty.openpty()
    try:
        service = start(stdin=theirs).ready()
    finally:
        os.close(theirs)
    workers = service.children()
    service.process.send_signal(signal.SIGHUP)
    until(lambda: "reloaded: " in service.output())
    os.close(ours)
    service.process.send_signal(signal.SIGHUP)
    assert service.process.wait(15) == 0
    assert all(gone(pid) for pid in workers)
