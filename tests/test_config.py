"""Settings: precedence and origins, what follows from what, and a table of mistakes with the line each one prints."""

import json
import math
import re

import pytest

from proxy import config
from proxy.config import ConfigError, Secret, load
from proxy.config.quantities import format_duration, format_size, lasting
from proxy.config.values import parse_listen


@pytest.fixture
def write(tmp_path):
    """Write a configuration file, give back its name."""

    def write(text, name="tidegate.toml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_defaults_need_nothing():
    settings = load(None, {"STATE_DIRECTORY": "/srv/a:/srv/b"}, {})
    assert settings.server.listen == "127.0.0.1:5000"
    assert settings.server.data == "/srv/a"
    assert settings.origins["server.data"] == "STATE_DIRECTORY"
    assert 1 <= settings.server.workers <= 4
    assert settings.server.drain == 30
    assert settings.server.unqualified == ("registry.k8s.io",)
    upstream = settings.upstreams["registry.k8s.io"]
    assert upstream.urls == ("https://registry.k8s.io",)
    assert upstream.aliases == ("k8s.gcr.io",)
    assert (upstream.tag_ttl, upstream.stale_if_error, upstream.on_gone) == (3600, math.inf, "keep")
    assert upstream.public
    assert upstream.egress == settings.egress
    assert set(settings.origins.values()) == {"default", "STATE_DIRECTORY"}


def test_option_before_variable_before_file_before_default(write):
    file = write('[server]\nlisten = "127.0.0.1:1"\ndrain = "1m"\n\n[log]\nlevel = "debug"\n')
    environ = {
        "TIDEGATE_SERVER_LISTEN": "127.0.0.1:2",
        "TIDEGATE_SERVER_DRAIN": "2m",
        "TIDEGATE_SERVER_NAMES": "a.b, C.D:443",
    }
    settings = load(file, environ, {"--listen": "127.0.0.1:3"})
    assert settings.server.listen == "127.0.0.1:3"
    assert settings.server.drain == 120
    assert settings.server.names == ("a.b", "c.d")
    assert settings.log.level == "debug"
    assert settings.origins["server.listen"] == "--listen"
    assert settings.origins["server.drain"] == "TIDEGATE_SERVER_DRAIN"
    assert settings.origins["log.level"] == f"{file}:6"
    assert settings.origins["log.format"] == "default"
    assert settings.file == file


def test_the_variable_names_the_file(write):
    file = write("[server]\nworkers = 3\n")
    assert load(None, {"TIDEGATE_CONFIG": file}, {}).server.workers == 3


@pytest.mark.parametrize("url", ["http://my_cache:5000", "http://bücher.example:5000", "http://[::1]:5000"])
def test_unusual_names_of_our_own_are_no_mistake(write, url):
    assert load(write(f'[server]\nurl = "{url}"\n'), {}, {}).server.url == url


def test_one_table_is_enough_for_an_upstream(write):
    settings = load(write('[upstreams."Quay.IO:443"]\n[upstreams."docker.io"]\n'), {}, {})
    assert settings.upstreams["quay.io"].urls == ("https://quay.io",)
    assert settings.upstreams["docker.io"].urls == ("https://registry-1.docker.io",)
    assert "registry.k8s.io" not in settings.upstreams
    assert settings.server.unqualified == ("quay.io",)


def test_upstreams_by_variable_keep_their_tables(write):
    file = write('[upstreams."docker.io"]\ntag_ttl = "5m"\n[upstreams."quay.io"]\n')
    settings = load(file, {"TIDEGATE_UPSTREAMS": "docker.io, registry.k8s.io"}, {})
    assert list(settings.upstreams) == ["docker.io", "registry.k8s.io"]
    assert settings.upstreams["docker.io"].tag_ttl == 300
    assert settings.upstreams["registry.k8s.io"].aliases == ("k8s.gcr.io",)
    assert settings.server.unqualified == ("registry.k8s.io",)


def test_an_upstream_has_its_own_way_out(write):
    settings = load(
        write(
            '[egress]\nstall_timeout = "5s"\nproxy = "proxy.corp:3128"\n'
            '[upstreams."quay.io"]\nproxy = ""\nconnect_timeout = "1s"\n[upstreams."ghcr.io"]\n'
        ),
        {},
        {},
    )
    own = settings.upstreams["quay.io"].egress
    assert (own.proxy, own.connect_timeout, own.stall_timeout) == ("", 1, 5)
    assert settings.upstreams["ghcr.io"].egress == settings.egress
    assert settings.egress.proxy == "http://proxy.corp:3128"


def test_the_usual_proxy_variables_come_last(write):
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".corp,10.0.0.0/8"}
    egress = load(None, environ, {}).egress
    assert egress.proxy_for("registry.k8s.io") == "http://p:1"
    assert egress.proxy_for("cache.corp") == egress.proxy_for("10.1.2.3") == ""
    assert load(None, environ, {}).origins["egress.proxy"] == "HTTPS_PROXY"
    assert load(write('[egress]\nproxy = "http://q:2"\n'), environ, {}).egress.proxy == "http://q:2"
    assert load(None, {**environ, "TIDEGATE_EGRESS_PROXY": ""}, {}).egress.proxy == ""


def test_credentials_from_a_file_are_stars_everywhere(write):
    secret = write("s3cret\n", "password")
    settings = load(
        write(
            f'[egress]\nproxy = "http://me:pr0xy@proxy:3128"\n'
            f'[upstreams."quay.io"]\nusername = "robot"\npassword_file = "{secret}"\n'
        ),
        {},
        {},
    )
    upstream = settings.upstreams["quay.io"]
    assert upstream.password.reveal() == "s3cret"
    assert not upstream.public
    assert upstream.on_gone == "obey"
    for shown in (repr(settings), config.render(settings), config.as_json(settings), f"{upstream.password}"):
        assert "s3cret" not in shown
        assert "pr0xy" not in shown
    rows = {row.key: row for row in config.rows(settings)}
    assert rows['upstreams."quay.io".password'].value == '"***"'
    assert rows['upstreams."quay.io".password'].origin.endswith(f":5 ({secret})")
    assert rows["egress.proxy"].value == '"http://me:***@proxy:3128"'


def test_the_account_at_the_proxy(write):
    secret = write("pr0xy@:/\n", "password")
    account = f'proxy_username = "corp\\\\me"\nproxy_password_file = "{secret}"\n'
    text = f'[egress]\nproxy = "http://proxy:3128"\n{account}[upstreams."a.b"]\n[upstreams."c.d"]\nproxy = "http://other:1"\n'
    settings = load(write(text), {}, {})
    assert settings.egress.proxy == "http://corp%5Cme:pr0xy%40%3A%2F@proxy:3128"
    assert settings.upstreams["a.b"].egress.proxy == settings.egress.proxy
    assert settings.upstreams["c.d"].egress.proxy == "http://other:1", "another proxy does not get this one's account"
    for shown in (repr(settings), config.render(settings), config.as_json(settings)):
        assert "pr0xy" not in shown
    environ = {"HTTPS_PROXY": "http://p:1", "TIDEGATE_EGRESS_PROXY_USERNAME": "u"}
    environ["TIDEGATE_EGRESS_PROXY_PASSWORD_FILE"] = str(secret)
    assert load(None, environ, {}).egress.proxy == "http://u:pr0xy%40%3A%2F@p:1"


def test_json_holds_every_setting_with_its_origin():
    document = json.loads(config.as_json(load(None, {}, {})))
    assert document["settings"]["server.listen"] == {"value": "127.0.0.1:5000", "origin": "default"}
    assert document["settings"]['upstreams."registry.k8s.io".max_fills']["value"] == 16


def test_kubernetes_service_links_are_no_mistake():
    load(
        None, {"TIDEGATE_SERVICE_HOST": "10.0.0.1", "TIDEGATE_PORT": "tcp://x", "TIDEGATE_PORT_5000_TCP_ADDR": "y"}, {}
    )


MISTAKES = [
    ("[server\n", r"FILE:1: not TOML: "),
    ('[server]\nlisten = "x', r"FILE: not TOML: .* at the end of the file|FILE:2: not TOML: "),
    ("[sever]\n", r"FILE:1: unknown section \[sever\]; did you mean server\?"),
    ("[server]\n\n# c\nlissen = 1\n", r"FILE:4: unknown key lissen in \[server\]; did you mean listen\?"),
    ("x = " + "[" * 2000 + "]" * 2000, r"FILE: is nested too deep"),
    (f"server.listen{'.a' * 5000} = 1\n", r"FILE: server\.listen must be text of one line, not a table"),
    ("[server]\nzzzz = 1\n", r"FILE:2: unknown key zzzz in \[server\]; known are body_timeout, data, drain, "),
    ("server = 1\n", r"FILE:1: server must be a table: \[server\]"),
    ("[upstreams.quay.io]\n", r'FILE:1: a registry\'s name with a dot needs quotes: \[upstreams\."quay\.io"\]'),
    ('[upstreams."a.b"]\nurl = "x"\n', r'FILE:2: unknown key url in \[upstreams\."a\.b"\]; did you mean urls\?'),
    ('[upstreams]\n"a.b" = 1\n', r"FILE:2: a registry's name"),
    ("[server]\nlisten = 5000\n", r"FILE:2: server\.listen must be text of one line, not 5000"),
    ('[server]\nlisten = ":5000"\n', r"FILE:2: server\.listen must be HOST:PORT such as .*0\.0\.0\.0:5000.*"),
    ('[server]\nlisten = "::1:5000"\n', r"FILE:2: server\.listen must be HOST:PORT"),
    ('[server]\nlisten = "a:99999"\n', r"FILE:2: server\.listen must be HOST:PORT"),
    ("[server]\nworkers = 65\n", r"FILE:2: server\.workers must be a whole number from 0 to 64, not 65"),
    ("[server]\nworkers = true\n", r"FILE:2: server\.workers must be a whole number from 0 to 64, not true"),
    ('[server]\ndrain = "30"\n', r'FILE:2: server\.drain must be a duration such as "30s", "5m" or "1h", not "30"'),
    ("[server]\ndrain = 30\n", r"FILE:2: server\.drain must be a duration"),
    ('[server]\nnames = "a"\n', r"FILE:2: server\.names must be a list of texts"),
    ('[server]\nnames = ["a/b"]\n', r'FILE:2: server\.names must be a host such as .*, not "a/b"'),
    ('[server]\nurl = "cache:5000"\n', r"FILE:2: server\.url must be a URL such as"),
    ('[server]\nunqualified = ["quay.io"]\n', r"FILE:2: server\.unqualified: no upstream is called quay\.io"),
    ('[egress]\nstall_timeout = "0s"\n', r'FILE:2: egress\.stall_timeout must be longer than zero, not "0s"'),
    ('[egress]\nproxy = "ftp://me:pw@x"\n', r'FILE:2: egress\.proxy must be a URL .*, not "ftp://me:\*\*\*@x"'),
    ('[log]\nlevel = "loud"\n', r'FILE:2: log\.level must be "debug" or "info" or "warning" or "error", not "loud"'),
    ('[upstreams."a b"]\n', r'FILE:1: an upstream\'s name must be a host such as .*, not "a b"'),
    ('[upstreams."a.b"]\nurls = []\n', r"FILE:2: upstreams\.a\.b\.urls must be a list of URLs"),
    ('[upstreams."a.b"]\nurls = ["https://a.b/?x=1"]\n', r"FILE:2: upstreams\.a\.b\.urls must be a URL"),
    ('[upstreams."a.b"]\nurls = ["https://u:p@a.b"]\n', r"FILE:2: upstreams\.a\.b\.urls must not hold an account"),
    ('[upstreams."a.b"]\nurls = ["https://a.b:x"]\n', r"FILE:2: upstreams\.a\.b\.urls must be a URL"),
    ('[upstreams."a.b"]\nurls = ["https://xn--a.com"]\n', r"FILE:2: upstreams\.a\.b\.urls must be a URL"),
    ('[server]\nurl = "http://xn--:5000"\n', r"FILE:2: server\.url must be a URL"),
    ('[egress]\nproxy = "http://xn--a.com:3128"\n', r"FILE:2: egress\.proxy must be a URL"),
    ('[egress]\ndeny = ["büch*.example"]\n', r"FILE:2: egress\.deny must be a list of host patterns, wildcards"),
    ('[upstreams."a.b"]\non_gone = "hide"\n', r'FILE:2: upstreams\.a\.b\.on_gone must be "keep" or "obey", not "hide"'),
    ('[upstreams."a.b"]\nmax_fills = 0\n', r"FILE:2: upstreams\.a\.b\.max_fills must be a whole number from 1 to 1000"),
    ('[upstreams."a.b"]\nprefix = "a/b"\n', r"FILE:2: upstreams\.a\.b\.prefix must be one path segment"),
    ('[egress]\nproxy_username = "u"\n', r"FILE:2: egress needs proxy_username and proxy_password_file together"),
    ('[egress]\nproxy_username = "u"\nproxy_password = "p"\n', r"FILE:2: egress\.proxy_username needs a proxy; set"),
    (
        '[egress]\nproxy = "http://a:b@p:1"\nproxy_username = "u"\nproxy_password = "p"\n',
        r"FILE:3: egress\.proxy holds an account and proxy_username names one",
    ),
    ('[egress]\nproxy_password_file = "/nope"\n', r"FILE:2: cannot read proxy_password_file /nope: No such"),
    ('[upstreams."a.b"]\nmax_bandwidth = "1KiB"\n', r"FILE:2: upstreams\.a\.b\.max_bandwidth must be a size for each"),
    ('[upstreams."a.b"]\nmax_bandwidth = "much"\n', r"FILE:2: upstreams\.a\.b\.max_bandwidth must be a size such as"),
    ('[upstreams."a.b"]\nusername = "u"\n', r"FILE:1: upstream a\.b needs username and password_file together"),
    ('[upstreams."a.b"]\nusername = "u"\npassword_file = "/nope"\n', r"FILE:3: cannot read password_file /nope: No"),
    ('[upstreams."a.b"]\npassword = 1\n', r"FILE:2: upstreams\.a\.b\.password must be text of one line"),
    ('[upstreams."a.b"]\npassword = "x"\npassword_file = "/y"\n', r"FILE:3: password and password_file are both set"),
    ('[upstreams."a.b"]\n[upstreams."c.d"]\naliases = ["A.B"]\n', r"FILE:2: a\.b belongs to a\.b and to c\.d"),
    ('[upstreams."a.b"]\nprefix = "x"\n[upstreams."c.d"]\nhosts = ["x"]\n', r"FILE:3: x belongs to a\.b and to c\.d"),
    ('[server]\nnames = ["a.b"]\n[upstreams."a.b"]\n', r"FILE:3: a\.b belongs to server\.names and to a\.b"),
    ('[upstreams."a.b"]\n[upstreams."A.B:443"]\n', r"FILE:2: upstream a\.b stands twice"),
]


@pytest.mark.parametrize(("text", "line"), MISTAKES, ids=[text[:60] for text, _ in MISTAKES])
def test_a_mistake_is_one_line(write, text, line):
    file = write(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {}, {})
    message = str(caught.value)
    assert "\n" not in message
    assert re.match("(?:" + line.replace("FILE", re.escape(file)) + ")", message), message


@pytest.mark.parametrize(
    ("environ", "options", "line"),
    [
        (
            {"TIDEGATE_SERVER_LISTN": "x"},
            {},
            "TIDEGATE_SERVER_LISTN: unknown variable; did you mean TIDEGATE_SERVER_LIS",
        ),
        ({"TIDEGATE_CONFIG": "/nope"}, {}, "cannot read /nope: No such file or directory"),
        ({"TIDEGATE_SERVER_WORKERS": "x"}, {}, "TIDEGATE_SERVER_WORKERS: server.workers must be a whole"),
        ({"TIDEGATE_UPSTREAMS": ","}, {}, "TIDEGATE_UPSTREAMS: names no upstream"),
        ({"TIDEGATE_UPSTREAMS": "a/b"}, {}, "TIDEGATE_UPSTREAMS: an upstream's name must be a host"),
        ({}, {"--listen": "5000"}, "--listen: must be HOST:PORT"),
    ],
)
def test_a_mistake_outside_the_file_names_its_place(environ, options, line):
    with pytest.raises(ConfigError) as caught:
        load(None, environ, options)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("127.0.0.1:5000", ("127.0.0.1", 5000)), ("[::]:0", ("::", 0)), ("localhost:1", ("localhost", 1))],
)
def test_listen(text, expected):
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["forever", "0s", "0.5s", "30s", "90s", "5m", "1h", "25h", "2d", "3w"])
def test_durations_are_written_as_read(text):
    assert format_duration(lasting(text)) == text


def test_durations_add_up():
    assert lasting("1h30m500ms") == 5400.5


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (38 * 2**30, "38 GiB"), (5 * 2**50, "5120 TiB")],
)
def test_sizes(count, text):
    assert format_size(count) == text


def test_an_empty_secret_is_no_secret():
    assert not Secret()
    assert repr(Secret("x")) == "***"
