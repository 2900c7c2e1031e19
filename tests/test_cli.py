"""The commands as people run them: help, one-line errors, exit statuses, text and JSON."""

import fcntl
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
SERVE = """
import os
from proxy import config, worker
settings = config.load(os.devnull, os.environ, {})
worker.serve(settings, lambda: settings, "dummy_service")
"""


def environment(**more):
    return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{HERE}", **more}


@pytest.fixture
def run(tmp_path):
    """Run a command; (status, stdout, stderr)."""

    def run(*words, **environ):
        done = subprocess.run(
            [sys.executable, "-m", "proxy", *words],
            env=environment(TIDEGATE_SERVER_DATA=str(tmp_path), TIDEGATE_CONFIG=os.devnull, **environ),
            capture_output=True,
            text=True,
            timeout=20,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture
def serving(tmp_path):
    """A running service on tmp_path; called with variables for it."""
    started = []

    def serving(**environ):
        environ = environment(TIDEGATE_SERVER_DATA=str(tmp_path), TIDEGATE_SERVER_LISTEN="127.0.0.1:0", **environ)
        process = subprocess.Popen([sys.executable, "-c", SERVE], env=environ, stdout=subprocess.PIPE, text=True)
        started.append(process)
        while not process.stdout.readline().startswith("next "):
            assert process.poll() is None
        return process

    yield serving
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_help_is_one_screen_and_names_what_exists(run, words):
    status, output, errors = run(*words)
    assert (status, errors) == (0, "")
    assert output.startswith(
        "One machine goes out for images; every node asks it.\n\nUsage: tidegate COMMAND [OPTIONS]\n"
    )
    assert re.findall(r"^  ([a-z-]+) {2,}", output, re.MULTILINE) == [
        "serve",
        "config",
        "status",
        "ls",
        "egress",
        "doctor",
        "legacy",
        "pin",
        "unpin",
        "rm",
        "scrub",
        "gc",
        "client-config",
    ]
    assert re.findall(r"^([A-Z][\w ]*)$", output, re.MULTILINE) == ["Run", "Look", "Keep", "Set up"]
    assert max(len(line) for line in output.splitlines()) <= 100


@pytest.mark.parametrize("words", [("-V",), ("--version",), ("status", "-V"), ("--json", "config", "--version")])
def test_version(run, words):
    status, output, _ = run(*words)
    assert status == 0
    assert re.fullmatch(r"tidegate \d+\.\d+\.\d+\n", output)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("serv",), "No such command 'serv'"),
        (("serve", "--lissten", "x"), "No such option '--lissten'"),
        (("config", "extra"), "Got unexpected extra argument (extra); see tidegate config --help"),
        (("serve", "--listen"), "Option '--listen' requires an argument"),
    ],
)
def test_wrong_usage_is_one_line_and_2(run, words, line):
    status, output, errors = run(*words)
    assert (status, output) == (2, "")
    assert errors.startswith(line)
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("-c", "/nope", "config"), "cannot read /nope: No such file or directory\n"),
        (("config", "-c", "/nope"), "cannot read /nope: No such file or directory\n"),
        (("serve", "--data", "/proc/x"), "cannot write to /proc/x: No such file or directory; use --data DIR"),
    ],
)
def test_what_is_wrong_is_one_line_and_1(run, words, line):
    status, output, errors = run(*words)
    assert (status, output) == (1, "")
    assert errors.startswith(line)
    assert errors.count("\n") == 1


def test_config_shows_values_and_origins(run, tmp_path):
    file = tmp_path / "t.toml"
    file.write_text('[server]\ndrain = "1m"\n')
    for words in (("-c", str(file), "config"), ("config", "-c", str(file))):
        status, output, _ = run(*words)
        assert status == 0
        assert re.search(rf'^server\.drain +"1m" +{re.escape(str(file))}:2$', output, re.MULTILINE)
        assert re.search(rf'^server\.data +"{tmp_path}" +TIDEGATE_SERVER_DATA$', output, re.MULTILINE)


def test_config_as_json(run):
    for words in (("--json", "config"), ("config", "--json")):
        status, output, _ = run(*words)
        assert status == 0
        assert json.loads(output)["settings"]["server.drain"] == {"value": "30s", "origin": "default"}


def test_status_without_a_server(run, tmp_path):
    expected = (1, "", f"no tidegate is running for {tmp_path}; start it with: tidegate serve\n")
    assert run("status") == expected
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "admin.sock"))
    assert run("status") == expected


def test_status_of_a_running_service(run, serving, tmp_path):
    serving()
    status, output, errors = run("status")
    assert (status, errors) == (0, "")
    for words in (
        "tidegate 0.1.0   ok   up 2 h",
        f"data {tmp_path}",
        "cache     1.5 GiB of 50 GiB in 7 objects   0 B pinned   oldest unused for 2 h   1 KiB evicted\n",
        "disk      1 TiB free of 2 TiB\n",
        "today                3   100%        2 KiB          1 KiB       1 KiB       50%\n",
        "since start          3   100%        2 KiB          1 KiB       1 KiB       50%\n",
        "2026-11-22           3   100% ",
        "upstream  registry.k8s.io   DOWN, circuit open   https://registry.k8s.io   the name does not exist\n",
        "fill      a/b sha256:abababababab   1 KiB of an unknown size   0 B/s   1 reader\n",
        ":1? 2 times: 503 the name does not exist\n",
    ):
        assert words in output
    assert output.count("\n") <= 24 and output.replace("\n", "").isprintable()
    shown, known = re.search(r"^PROBLEMS, the last (\d+) of (\d+)$", output, re.MULTILINE).groups()
    assert (int(shown), int(known)) == (output.count("the name does not exist") - 1, 50)
    status, output, _ = run("status", "--json")
    assert status == 0
    assert json.loads(output)["fills"][0]["size"] is None


def test_watching_in_a_pipe(run, serving, tmp_path):
    serving()
    for words in ((), ("--json",)):
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "status", "--watch", *words],
            env=environment(TIDEGATE_SERVER_DATA=str(tmp_path), TIDEGATE_CONFIG=os.devnull, FORCE_COLOR="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process.stdout, process.stderr:
            seen = [process.stdout.readline() for _ in range(2 if words else 40)]
            process.send_signal(signal.SIGINT)
            assert (process.wait(10), process.stderr.read()) == (0, "")
        assert all(line.strip("\n").isprintable() for line in seen)
        if words:
            assert [json.loads(line)["health"] for line in seen] == ["ok", "ok"]
        else:
            assert sum(line.startswith("tidegate 0.1.0") for line in seen) == 2


@pytest.mark.parametrize("plain", [False, True])
def test_watching_on_a_terminal(serving, tmp_path, plain):
    serving(DUMMY_HEALTH="degraded: disk full")
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    given = {"NO_COLOR": "1"} if plain else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "status", "--watch"],
        env=environment(TIDEGATE_SERVER_DATA=str(tmp_path), TIDEGATE_CONFIG=os.devnull, TERM="xterm", **given),
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    os.close(theirs)
    with process.stderr, open(ours, "rb", buffering=0) as terminal:
        seen = b""
        while seen.count(b"\x1b[J") < 2:
            seen += terminal.read(4096)
        process.send_signal(signal.SIGINT)
        assert (process.wait(10), process.stderr.read()) == (0, b"")
    screen = seen.decode().split("\x1b[H")[1]
    assert ("\x1b[31m" in screen) is not plain
    lines = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", screen).split("\r\n")
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    assert lines[0].startswith("tidegate 0.1.0   degraded: disk full   up 2 h")


def test_a_degraded_service_is_1(run, serving):
    serving(DUMMY_HEALTH="degraded: disk full")
    status, output, _ = run("status")
    assert status == 1
    assert "degraded: disk full" in output


def test_a_reader_that_leaves_gets_no_traceback(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "proxy", "config"],
        env=environment(TIDEGATE_CONFIG=os.devnull),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(10) == 1


@pytest.mark.parametrize(
    ("redirection", "line"),
    [(">&-", "standard output is closed"), (">/dev/full", "standard output: No space left on device")],
)
@pytest.mark.parametrize("words", ["config", "egress --expected --list", "--help", "-V"])
def test_an_answer_that_cannot_be_written_is_one_line_and_1(tmp_path, redirection, line, words):
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} -m proxy {words} {redirection}"],
        env=environment(TIDEGATE_SERVER_DATA=str(tmp_path), TIDEGATE_CONFIG=os.devnull),
        stderr=subprocess.PIPE,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(line)


@pytest.mark.parametrize("image", [b"\xff", b"a\xff:1", b"a\nb"])
def test_an_image_that_is_no_text_is_wrong_usage(run, image):
    assert run("doctor", image) == (2, "", "IMAGE is not text; see tidegate doctor --help\n")


@pytest.mark.parametrize("command", ["egress", "legacy"])
def test_a_damaged_index_is_set_aside_in_one_line(run, tmp_path, command):
    (tmp_path / "run").mkdir()
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "cache.db").write_bytes(b"garbage" * 1000)
    status, _, errors = run(command)
    assert (status, errors.count("\n")) == (0, 1)
    assert "set aside" in errors


@pytest.fixture
def asking(tmp_path):
    """`tidegate status` and its connection to an admin socket that has not answered yet."""
    with socket.socket(socket.AF_UNIX) as admin:
        admin.bind(str(tmp_path / "admin.sock"))
        admin.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", "proxy", "status"],
            env=environment(TIDEGATE_SERVER_DATA=str(tmp_path), TIDEGATE_CONFIG=os.devnull),
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = admin.accept()
        with connection, process.stderr:
            yield process, connection
        assert process.wait(10) == 1


def test_ctrl_c_gets_no_traceback(asking):
    process, _ = asking
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.stderr.read().strip() == ""


def test_a_server_that_hangs_up_is_one_line(asking, tmp_path):
    process, connection = asking
    connection.close()
    assert process.stderr.read().startswith(f"the tidegate at {tmp_path} does not answer: ")


def test_the_commands_start_fast():
    """No command may import what only the server needs: that would cost half a second each time."""
    code = (
        "import sys, proxy.cli; print([name for name in ('asyncio', 'aiohttp', 'http.client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=20)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("serve", "--listen", "foo"), "--listen: must be HOST:PORT"),
        (("egress", "--list", "--json"), "--list and --json are two forms of one answer: choose one"),
        (("egress", "--toml", "--json"), "--toml and --json are two forms"),
        (("egress", "--since", "soon"), "--since must be a duration"),
        (("ls", "--sort", "colour"), "'colour' is not one of"),
        (("pin",), "Missing argument 'IMAGE...'"),
        (("unpin",), "name images, or a set with --set NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "said",
)
def test_wrong_usage_is_2(run, words, sentence):
    status, output, said = run(*words)
    assert (status, output) == (2, "")
    assert sentence in said
    assert said.count("\n") == 1


def test_a_list_for_the_firewall_team_says_beside_it_what_nobody_promises(run):
    status, output, said = run("egress", "--expected", "--list")
    assert status == 0
    assert all(" " not in line for line in output.splitlines())
    assert "cdn.registry.k8s.io" in output
    assert "cdn.registry.k8s.io: not seen yet; known 20" in said
    assert "not promised by the project" in said


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ('[tls]\ncert_file = "/nope"\nkey_file = "/nope"', "/nope"),
        ('[egress]\nca_file = "/nope"', "ca_file /nope, for registry.k8s.io, cannot be used: No such file"),
        ('[admin]\ntoken_file = "/nope"', "admin.token_file /nope cannot be read: No such file"),
        ('[auth]\npull = "users"\nusers_file = "/nope"', "/nope"),
        ('[egress]\nproxy = "proxy.corp"', 'egress.proxy must be a URL such as "http://proxy.corp:3128"'),
    ],
    ids=["certificate", "ca", "token", "users", "proxy"],
)
def test_config_finds_what_serve_would_stumble_over(run, tmp_path, settings, line):
    file = tmp_path / "t.toml"
    file.write_text(settings)
    status, output, errors = run("config", "-c", str(file))
    assert (status, output) == (1, "")
    assert line in errors
    assert errors.count("\n") == 1
