"""`tidegate client-config`: the command, and real containerd and skopeo pulling with exactly the files it wrote."""

import functools
import json
import os
import tomllib
from dataclasses import replace
from urllib.parse import quote

import bcrypt
import pytest

from proxy import clients
from proxy.config import ConfigError, load
from tests.client_config import ALIAS, CERTS, HOST, HUB, REGISTRY, command, written
from tests.real.certificates import authority
from tests.real.processes import free_port, running
from tests.real.storage import Storage
from tests.real.tidegate import upstream_config
from tests.real.tools import skopeo
from tests.support import get
from tests.test_clients import copied, everything, fetched


@pytest.fixture
def run(tmp_path):
    """run(CLIENT, *options, config=..., **environment) -> (status, stdout, stderr)."""
    return functools.partial(command, tmp_path)


# where the cache is


def told(listen="127.0.0.1:5000", url=""):
    settings = load(os.devnull, {"TIDEGATE_SERVER_URL": url}, {"--listen": listen})
    return clients.address(settings, "vm1")


@pytest.mark.parametrize(
    ("listen", "url", "doubt"),
    [
        ("127.0.0.1:5000", "http://127.0.0.1:5000", "this machine only"),
        ("localhost:5000", "http://localhost:5000", "this machine only"),
        ("[::1]:5000", "http://[::1]:5000", "this machine only"),
        ("0.0.0.0:5000", "http://vm1:5000", "a guess"),
        ("[::]:5000", "http://vm1:5000", "a guess"),
        ("10.1.2.3:5000", "http://10.1.2.3:5000", ""),
        ("cache.corp:80", "http://cache.corp:80", ""),
    ],
)
def test_without_server_url_the_listen_address_is_used_with_a_word_of_doubt(listen, url, doubt):
    found, said = told(listen)
    assert found == url
    assert (doubt in said and "set server.url" in said) if doubt else said == ""


def test_server_url_is_never_doubted():
    assert told("127.0.0.1:5000", "https://cache.corp") == ("https://cache.corp", "")


def test_a_port_nobody_knows_yet_is_asked_for():
    with pytest.raises(ConfigError, match=r"server\.url: must be set"):
        told("0.0.0.0:0")


def test_the_doubt_goes_to_stderr_and_is_no_failure(run):
    status, output, errors = run("podman", TIDEGATE_SERVER_URL="")
    assert status == 0
    assert tomllib.loads(output)["registry"][0]["location"] == "127.0.0.1:5000"
    assert errors.count("\n") == 1
    assert "set server.url" in errors


# the command


@pytest.mark.parametrize("client", clients.WRITERS)
def test_text_is_every_file_below_its_path(run, client):
    files = json.loads(run(client, "--json", config=HUB)[1])
    status, output, errors = run(client, config=HUB)
    assert (status, errors) == (0, "")
    expected = ("".join(f"# {line}\n" for line in (file["path"], *file["note"].splitlines())) for file in files)
    assert output == "\n".join(head + file["content"] for head, file in zip(expected, files, strict=True))


def test_an_unknown_client_is_wrong_usage(run):
    status, _, errors = run("rkt")
    assert status == 2
    assert "containerd" in errors
    assert errors.count("\n") == 1


def test_files_are_written_below_a_folder_and_what_differs_is_left(run, tmp_path):
    out = tmp_path / "out"
    status, output, _ = run("containerd", "--write", str(out))
    assert status == 0
    assert f"# {out}/{CERTS}/{REGISTRY}/hosts.toml\n" in output
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    hosts = {f"{CERTS}/{name}/hosts.toml" for name in (REGISTRY, ALIAS, HOST)}
    assert names == hosts | {"etc/containerd/config.toml.1.x", "etc/containerd/config.toml.2.x"}
    assert run("containerd", "--write", str(out))[0] == 0  # the same again changes nothing
    changed = out / CERTS / ALIAS / "hosts.toml"
    changed.write_text("# mine\n")
    (out / CERTS / REGISTRY / "hosts.toml").unlink()
    status, _, errors = run("containerd", "--write", str(out))
    assert (status, errors) == (1, f"{changed} is there and differs: nothing is written; --yes replaces it\n")
    assert changed.read_text() == "# mine\n"
    assert not (out / CERTS / REGISTRY / "hosts.toml").exists()
    status, output, _ = run("containerd", "--write", str(out), "--yes")
    assert status == 0
    assert f"--- {changed}\n+++ {changed}\n@@ -1 +1,4 @@\n-# mine\n+server =" in output
    assert f"--- /dev/null\n+++ {out}/{CERTS}/{REGISTRY}/hosts.toml\n" in output
    assert changed.read_text() == (out / CERTS / REGISTRY / "hosts.toml").read_text()


def test_a_folder_that_cannot_be_written_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, errors = run("podman", "--write", str(tmp_path / "file"))
    assert status == 1
    assert errors.startswith("cannot write ")
    assert errors.count("\n") == 1


def test_a_secret_is_its_owners_and_no_differences_show_it(run, tmp_path):
    words = ("k3s", "--user", "node", "--write", str(tmp_path / "out"))
    status, output, _ = run(*words, stdin="pass word\n")
    file = tmp_path / "out" / "etc/rancher/k3s/registries.yaml"
    assert status == 0
    assert "pass word" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    _, changed, _ = run(*words, "--yes", stdin="another\n")
    assert f"changed, and holds a password: {file}" in changed
    assert "another" in file.read_text()
    assert "pass word" not in output + changed
    assert not {"pass word", "another"} & set((output + changed).split())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("podman", "--url", "cache.corp"), "must be a URL"),
        (("podman", "--url", "http://a", "--url", "https://b"), "--url: either all http or all https"),
        (
            ("podman", "--upstream", "gcr.io"),
            "--upstream: 'gcr.io' is not there; known are k8s.gcr.io, registry.k8s.io",
        ),
        (("podman", "--user", "a:b"), "--user is a name without a colon"),
        (("podman", "--user", "node"), "the password of node is the first line of standard input"),
    ],
    ids=["no URL", "both kinds", "upstream", "colon", "no password"],
)
def test_wrong_usage_is_one_line_and_2(run, words, sentence):
    status, output, errors = run(*words)
    assert (status, output) == (2, "")
    assert sentence in errors
    assert errors.count("\n") == 1


def test_upstreams_can_be_chosen(run):
    assert set(written(run, "containerd", "--upstream", "docker.io", config=HUB)) == {
        "/etc/containerd/certs.d/docker.io/hosts.toml",
        f"/etc/containerd/certs.d/{HOST}/hosts.toml",
        "/etc/containerd/config.toml containerd 2",
        "/etc/containerd/config.toml containerd 1",
    }


# what the service gives


@pytest.mark.parametrize("client", clients.WRITERS)
def test_the_service_gives_the_same_files(run, tidegate, client, tmp_path):
    server = tidegate(HUB.replace("registry.k8s.io", REGISTRY), workers=1)
    out = tmp_path / "out"
    assert run(client, "--url", server.url, "--write", str(out), config=HUB)[0] == 0
    names = get(server, f"/client-config/{client}").body.decode().splitlines()
    assert {out / name for name in names} == {path for path in out.rglob("*") if path.is_file()}
    for name in names:
        assert get(server, f"/client-config/{client}/{name}").body == (out / name).read_bytes()


@pytest.mark.parametrize("client", clients.WRITERS)
def test_the_service_names_a_ca_as_the_command_does(run, tidegate, client, tmp_path):
    url, ca, out = "https://cache.example:5000", "/etc/ssl/certs/corp.pem", tmp_path / "out"
    server = tidegate(f'[server]\nurl = "{url}"\n{HUB}', workers=1)
    assert run(client, "--url", url, "--ca", ca, "--write", str(out), config=HUB)[0] == 0
    for path in (each for each in out.rglob("*") if each.is_file()):
        found = get(server, f"/client-config/{client}{str(path).removeprefix(str(out))}?ca={ca}").body
        assert found == path.read_bytes()
    if client == "containerd":
        assert ca in "".join(path.read_text() for path in out.rglob("hosts.toml"))


def test_docker_without_docker_io_is_told_why_there_is_nothing(tidegate):
    server = tidegate('[server]\nurl = "https://cache.example:5000"\n', workers=1)
    answer = get(server, "/client-config/docker")
    assert answer.status == 400
    said = json.loads(answer.body)["errors"][0]["message"]
    assert "mirrors for docker.io only" in said
    assert "docker pull cache.example:5000/registry.k8s.io/NAME:TAG" in said


BAD_PATHS = ("corp.pem", '/a"b', "/a'b", "/a b", "/a\nb", "/a$(id)", "/a`id`", "/\u00e4", "/" + "a" * 300, "/")


def test_what_is_not_there_is_said(tidegate):
    server = tidegate(HUB, workers=1)
    assert get(server, "/client-config/").body.decode().split() == list(clients.WRITERS)
    for path, status, sentence in (
        ("/rkt", 404, "is no client; there are containerd"),
        ("/podman/etc/passwd", 404, "/client-config/podman lists them"),
        ("/podman?upstream=gcr.io", 400, "tidegate: upstream: 'gcr.io' is not there"),
        ("/podman?upstreams=docker.io", 400, "tidegate: 'upstreams' is none of the keys; did you mean upstream?"),
        ("/podman?token=x", 400, "tidegate: 'token' is none of the keys; known are ca, upstream"),
        *((f"/podman?ca={quote(path)}", 400, "tidegate: ca: the path of a file") for path in BAD_PATHS),
    ):
        answer = get(server, f"/client-config{path}")
        assert answer.status == status
        assert sentence in answer.reason


# containerd


@pytest.fixture
def cache(tidegate, upstream):
    return tidegate(upstream_config(upstream.url), workers=2)


def configured(run, node, out, url, *options):
    """That containerd with the generated hosts.toml files and no others."""
    config = upstream_config("http://127.0.0.1:1")  # the command asks nobody
    status, _, errors = run("containerd", "--write", str(out), *options, config=config, TIDEGATE_SERVER_URL=url)
    assert (status, errors) == (0, "")
    return replace(node, hosts=out / CERTS)


@pytest.mark.real("containerd")
@pytest.mark.xdist_group("world")
def test_containerd_pulls_with_what_was_written(run, cache, upstream, node, tmp_path):
    node = configured(run, node, tmp_path / "out", cache.url)
    image = upstream.schema2
    for name in (REGISTRY, ALIAS, f"{cache.host}/{REGISTRY}"):
        assert fetched(node, image.ref(name)) == everything(image)


@pytest.fixture
def terminated(cache, tmp_path):
    """nginx that speaks TLS before that tidegate, at its root and below /tide: (host, CA file)."""
    made = authority(tmp_path / "ca")
    folder = tmp_path / "nginx"
    folder.mkdir()
    host = f"127.0.0.1:{free_port()}"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (folder / "nginx.conf").write_text(f"""\
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
        events {{ worker_connections 256; }}
        http {{
            {"".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)} access_log off;
            server {{
                listen {host} ssl; ssl_certificate {made.certificate}; ssl_certificate_key {made.key};
                location / {{ proxy_pass {cache.url}; }}
                location /tide/ {{ proxy_pass {cache.url}/; }}
            }}
        }}
        """)
    command = ["nginx", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with running(command, folder, "nginx") as process:
        process.wait_listening(*host.split(":")[:1], int(host.split(":")[1]))
        yield host, made.ca


@pytest.mark.real("containerd", "nginx", "openssl")
@pytest.mark.xdist_group("world")
@pytest.mark.parametrize("path", ["", "/tide"])
def test_containerd_pulls_over_tls_with_our_ca_and_below_a_path(run, terminated, upstream, node, tmp_path, path):
    host, ca = terminated
    node = configured(run, node, tmp_path / "out", f"https://{host}{path}", "--ca", str(ca))
    assert fetched(node, upstream.schema2.ref(REGISTRY)) == everything(upstream.schema2)


@pytest.mark.real("containerd", "nginx", "openssl")
@pytest.mark.xdist_group("world")
def test_without_the_ca_containerd_refuses(run, terminated, upstream, node, tmp_path):
    node = configured(run, node, tmp_path / "out", f"https://{terminated[0]}")
    done = node.fetch(upstream.schema2.ref(REGISTRY))
    assert done.returncode != 0
    assert "x509" in done.stderr


@pytest.fixture
def guarded(tidegate, upstream, tmp_path):
    """A cache that nobody pulls from without the account node:secret."""
    users = tmp_path / "users"
    users.write_text(f"node:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    auth = {"pull": "users", "users_file": str(users)}
    return tidegate({**upstream_config(upstream.url), "auth": auth}, workers=1)


@pytest.mark.real("containerd")
@pytest.mark.xdist_group("world")
def test_containerd_logs_in_and_passes_over_a_cache_that_is_down(run, guarded, upstream, node, tmp_path):
    image = upstream.schema2
    told = ("containerd", "--url", f"http://127.0.0.1:{free_port()}", "--url", guarded.url)
    status, _, errors = run(*told, "--user", "node", "--write", str(tmp_path / "out"), stdin="secret\n")
    assert status == 0, errors
    assert fetched(replace(node, hosts=tmp_path / "out" / CERTS), image.ref(REGISTRY)) == everything(image)
    assert run(*told, "--user", "node", "--write", str(tmp_path / "wrong"), stdin="wrong\n")[0] == 0
    done = replace(node, hosts=tmp_path / "wrong" / CERTS).fetch(image.ref(REGISTRY))
    assert done.returncode != 0


# podman, skopeo, CRI-O


@pytest.mark.real("skopeo")
@pytest.mark.xdist_group("world")
def test_skopeo_logs_in_and_passes_over_a_cache_that_is_down(run, guarded, upstream, tmp_path):
    image, down = upstream.schema2, f"http://127.0.0.1:{free_port()}"
    told = ("podman", "--url", down, "--url", guarded.url, "--user", "node")
    files = written(run, *told, stdin="secret\n")
    conf = files["/etc/containers/registries.conf.d/50-tidegate.conf"]
    login = tmp_path / "auth.json"
    login.write_text(files["/root/.config/containers/auth.json"])
    words = ("copy", "--all", f"docker://{image.ref(REGISTRY)}", f"dir:{tmp_path / 'image'}")
    done = skopeo(*words, "--src-authfile", str(login), registries=conf)
    assert done.returncode == 0, done.stderr
    assert copied(tmp_path / "image") == everything(image)
    assert "unauthorized" in skopeo(*words, registries=conf).stderr.lower()


@pytest.mark.real("podman", "buildah")
def test_podman_pulls_by_the_original_name(run, tidegate, tmp_path):
    """An image podman can unpack, built and pushed to one tidegate, pulled through another as registry.k8s.io's."""
    origin = {"local": {"names": [REGISTRY]}, "upstreams": {"quay.io": {}}, "server": {"unqualified": ["local"]}}
    far = tidegate(origin, workers=1, folder=tmp_path / "origin")
    cache = tidegate(upstream_config(far.url), workers=1, folder=tmp_path / "cache")
    builder = Storage(tmp_path / "builder")
    (builder.folder / "context" / "file").write_text("here")
    builder.build("localhost/app", "FROM scratch", "COPY file /")
    builder.push("buildah", "localhost/app", f"{far.host}/dev/app:1")
    node = Storage(tmp_path / "node")
    (conf,) = written(run, "podman", TIDEGATE_SERVER_URL=cache.url).values()
    (node.folder / "registries.conf").write_text(conf)
    name = f"{REGISTRY}/dev/app:1"
    node.run("env", f"CONTAINERS_REGISTRIES_CONF={node.folder}/registries.conf", "podman", "pull", name)
    assert node.image_id(name) == builder.image_id("localhost/app")


@pytest.mark.real("skopeo")
@pytest.mark.xdist_group("world")
@pytest.mark.parametrize("client", ["podman", "crio"])
def test_skopeo_pulls_by_the_original_names(run, cache, upstream, tmp_path, client):
    (conf,) = written(run, client, TIDEGATE_SERVER_URL=cache.url).values()
    image = upstream.schema2
    for number, name in enumerate((REGISTRY, ALIAS, f"{cache.host}/{REGISTRY}")):
        folder = tmp_path / str(number)
        done = skopeo("copy", "--all", f"docker://{image.ref(name)}", f"dir:{folder}", registries=conf)
        assert done.returncode == 0, done.stderr
        assert copied(folder) == everything(image)
