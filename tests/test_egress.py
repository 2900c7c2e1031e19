"""The way out: what may be connected to, through what, and what the ledger says of it. Real servers, real proxy."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import fakes
from tests.fakes import Origin
from tests.fakes.connect import Connect
from tests.fakes.thread import in_thread, origin_in_thread
from tests.real.certificates import authority
from tests.real.servers import tinyproxy
from tests.real.tidegate import Tidegate, upstream_config
from tests.real.tools import curl

Start = Callable[..., Tidegate]
LAYER = b"layer" * 5000


def _get(url: str, **headers: str) -> tuple[str, bytes]:
    """The status line with its reason, and the body."""
    given = [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
    head, _, body = curl("-si", *given, url).stdout.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), body


def _command(*args: str) -> str:
    return subprocess.run([sys.executable, "-m", "proxy", *args], capture_output=True, text=True, check=True).stdout


def _redirected(origin: Origin, target: str) -> str:
    digest = origin.add_blob("app", LAYER)
    origin.fault(digest, fakes.Status(307, {"Location": f"{target}/v2/app/blobs/{digest}"}))
    return digest


def test_a_redirect_inside_is_refused_at_once_and_by_name(tidegate: Start) -> None:
    with origin_in_thread() as origin, origin_in_thread() as inside:
        digest = _redirected(origin, inside.url)
        inside.add_blob("app", LAYER)
        server = tidegate(upstream_config(origin.url, allow_private=False), workers=2)
        status, _ = _get(f"{server.url}/v2/app/blobs/{digest}")
        assert status.startswith("HTTP/1.1 503 tidegate: 127.0.0.1: not allowed by [egress] allow_private = false")
        assert (origin.count(contains=digest), inside.count()) == (1, 0)
        assert server.metrics().total("tidegate_upstream_errors_total", reason="refused") == 1
        table = _command("egress", "--data", str(server.data))
        assert "redirect" in table and "not allowed by [egress] allow_private" in table


def test_allow_is_checked_at_every_hop(tidegate: Start, tmp_path: Path) -> None:
    with origin_in_thread() as origin, origin_in_thread() as other:
        digest = _redirected(origin, other.url.replace("127.0.0.1", "localhost"))
        other.add_blob("app", LAYER)
        closed = tidegate(upstream_config(origin.url, allow=["127.0.0.1"]), folder=tmp_path / "closed")
        status, _ = _get(f"{closed.url}/v2/app/blobs/{digest}")
        assert "503 tidegate: localhost: not allowed by [egress] allow" in status
        assert other.count() == 0
        named = tidegate(upstream_config(origin.url, deny=["local*"]), folder=tmp_path / "named")
        assert 'deny = "local*"' in _get(f"{named.url}/v2/app/blobs/{digest}")[0]
        opened = tidegate(upstream_config(origin.url, allow=["127.0.0.1", "localhost"]), folder=tmp_path / "opened")
        assert _get(f"{opened.url}/v2/app/blobs/{digest}") == ("HTTP/1.1 200 OK", LAYER)
        assert _command("egress", "--data", str(opened.data), "--list").split() == ["127.0.0.1", "localhost"]


def test_a_token_realm_inside_is_refused(tidegate: Start) -> None:
    with origin_in_thread() as origin, origin_in_thread() as inside:
        challenge = {"WWW-Authenticate": f'Bearer realm="{inside.url}/token",service="x"'}
        origin.add_image("app", "1", LAYER)
        origin.fault("manifests", fakes.Status(401, challenge))
        server = tidegate(upstream_config(origin.url, allow_private=False), workers=1)
        assert "allow_private = false" in _get(f"{server.url}/v2/app/manifests/1")[0]
        assert inside.count() == 0


@pytest.mark.real("tinyproxy", "openssl")
def test_https_goes_through_the_proxy_and_needs_the_firewalls_ca(tidegate: Start, tmp_path: Path) -> None:
    corp = authority(tmp_path / "ca")
    with origin_in_thread(tls=corp.context()) as origin, tinyproxy(tmp_path / "proxy") as forward:
        image = origin.add_image("app", "1", LAYER)
        keys = {"proxy": forward.url, "connect_timeout": "3s"}
        without = tidegate(upstream_config(origin.url, **keys), workers=1, folder=tmp_path / "without")
        status, _ = _get(f"{without.url}/v2/app/manifests/1")
        assert "503 tidegate: 127.0.0.1: certificate signed by unknown authority (issuer " in status
        trusting = tidegate(upstream_config(origin.url, ca_file=str(corp.ca), **keys), folder=tmp_path / "with")
        assert _get(f"{trusting.url}/v2/app/manifests/1") == ("HTTP/1.1 200 OK", image.manifest)
        for digest, content in image.blobs.items():
            assert _get(f"{trusting.url}/v2/app/blobs/{digest}")[1] == content
        assert f"CONNECT {origin.host}" in (tmp_path / "proxy" / "proxy.log").read_text()


@pytest.mark.real("tinyproxy")
def test_a_proxy_that_is_away_is_named(tidegate: Start) -> None:
    with origin_in_thread() as origin:
        origin.add_image("app", "1", LAYER)
        url = origin.url.replace("http:", "https:")
        server = tidegate(upstream_config(url, proxy="http://127.0.0.1:9"), workers=1)
        status, _ = _get(f"{server.url}/v2/app/manifests/1")
        assert "503 tidegate: 127.0.0.1: through proxy 127.0.0.1: no connection" in status


@pytest.mark.real("openssl")
def test_a_proxy_gets_its_account_and_nobody_else_does(tidegate: Start, tmp_path: Path) -> None:
    corp = authority(tmp_path / "ca")
    with origin_in_thread(tls=corp.context()) as origin, in_thread(Connect()) as forward:
        forward.account = "me:p@ss"
        image = origin.add_image("app", "1", LAYER)
        keys = {"proxy": forward.url, "ca_file": str(corp.ca)}
        without = tidegate(upstream_config(origin.url, **keys), workers=1, folder=tmp_path / "without")
        said = "through proxy 127.0.0.1: CONNECT was answered 407: set [egress] proxy_username and proxy_password_file"
        assert said in _get(f"{without.url}/v2/app/manifests/1")[0]
        (tmp_path / "password").write_text("p@ss\n")
        keys |= {"proxy_username": "me", "proxy_password_file": str(tmp_path / "password")}
        paying = tidegate(upstream_config(origin.url, **keys), workers=1, folder=tmp_path / "paying")
        assert _get(f"{paying.url}/v2/app/manifests/1") == ("HTTP/1.1 200 OK", image.manifest)
        assert not any("Proxy-Authorization" in request.headers for request in origin.log)
        assert "p@ss" not in paying.stdout + paying.stderr


@pytest.mark.real("openssl")
def test_the_name_of_who_signed_is_in_the_answer_through_a_proxy_too(tidegate: Start, tmp_path: Path) -> None:
    corp = authority(tmp_path / "ca")
    with origin_in_thread(tls=corp.context()) as origin, in_thread(Connect()) as forward:
        origin.add_image("app", "1", LAYER)
        for name, keys in {"direct": {}, "proxied": {"proxy": forward.url}}.items():
            server = tidegate(upstream_config(origin.url, **keys), workers=1, folder=tmp_path / name)
            said = "127.0.0.1: certificate signed by unknown authority (issuer Corp Inspection CA); run tidegate doctor"
            assert f"503 tidegate: {said}" in _get(f"{server.url}/v2/app/manifests/1")[0]
        assert not origin.log, "nothing may be sent to a host that is not trusted"


@pytest.mark.real("openssl")
def test_a_proxy_that_is_spoken_to_over_tls(tidegate: Start, tmp_path: Path) -> None:
    corp = authority(tmp_path / "ca")
    with origin_in_thread(tls=corp.context()) as origin, in_thread(Connect(tls=corp.context())) as forward:
        image = origin.add_image("app", "1", LAYER)
        keys = {"proxy": forward.url, "ca_file": str(corp.ca)}
        server = tidegate(upstream_config(origin.url, **keys), workers=1)
        assert _get(f"{server.url}/v2/app/manifests/1") == ("HTTP/1.1 200 OK", image.manifest)
        for digest, content in image.blobs.items():
            assert _get(f"{server.url}/v2/app/blobs/{digest}")[1] == content
        assert forward.log


def test_a_copied_data_folder_serves_offline_elsewhere(tidegate: Start, tmp_path: Path) -> None:
    with origin_in_thread() as origin:
        image = origin.add_image("app", "1", LAYER)
        config = upstream_config(origin.url, tag_ttl="1ms")
        first = tidegate(config, workers=2, folder=tmp_path / "first")
        assert _get(f"{first.url}/v2/app/manifests/1")[1] == image.manifest
        for digest in image.blobs:
            _get(f"{first.url}/v2/app/blobs/{digest}")
        assert first.stop() == 0
        shutil.copytree(first.data, tmp_path / "copy", copy_function=shutil.copy2)
        asked = len(origin.log)
        config["server"] = {"offline": True}
        second = tidegate(config, workers=2, folder=tmp_path / "second", data=tmp_path / "copy")
        assert _get(f"{second.url}/v2/app/manifests/1") == ("HTTP/1.1 200 OK", image.manifest)
        for digest, content in image.blobs.items():
            assert _get(f"{second.url}/v2/app/blobs/{digest}") == ("HTTP/1.1 200 OK", content)
        assert "503 tidegate: registry.k8s.io is set offline" in _get(f"{second.url}/v2/app/manifests/2")[0]
        assert len(origin.log) == asked


def test_the_old_name_is_served_from_the_same_store_and_who_asks_is_known(tidegate: Start) -> None:
    with origin_in_thread() as origin:
        image = origin.add_image("pause", "3.9", LAYER)
        server = tidegate(upstream_config(origin.url, aliases=["k8s.gcr.io"]), workers=2)
        assert _get(f"{server.url}/v2/pause/manifests/3.9?ns=registry.k8s.io")[1] == image.manifest
        asked = len(origin.log)
        assert _get(f"{server.url}/v2/pause/manifests/3.9?ns=k8s.gcr.io")[1] == image.manifest
        assert _get(f"{server.url}/v2/k8s.gcr.io/pause/manifests/3.9")[1] == image.manifest
        assert _get(f"{server.url}/v2/pause/manifests/3.9", Host="k8s.gcr.io")[1] == image.manifest
        assert len(origin.log) == asked
        assert server.metrics().total("tidegate_legacy_requests_total", alias="k8s.gcr.io") == 3
        (row,) = json.loads(_command("legacy", "--data", str(server.data), "--json"))
        assert (row["client"], row["image"], row["count"]) == ("127.0.0.1", "k8s.gcr.io/pause:3.9", 3)
        assert server.stop() == 0
        assert "k8s.gcr.io/pause:3.9" in _command("legacy", "--data", str(server.data))
        assert " by k8s.gcr.io" in server.stdout
        line = "127.0.0.1 asks for k8s.gcr.io/pause:3.9 by the old name: let it ask registry.k8s.io"
        assert server.stderr.count(line) <= 2, "once a worker and day"
        assert line in server.stderr


def test_a_version_that_moves_is_told_and_held_by_choice(tidegate: Start, tmp_path: Path) -> None:
    with origin_in_thread() as origin:
        first = origin.add_image("app", "v1.2.3", LAYER)
        keys = {"tag_ttl": "1ms"}
        follows = tidegate(upstream_config(origin.url, **keys), workers=1, folder=tmp_path / "follows")
        holds = tidegate(upstream_config(origin.url, on_move="hold", **keys), workers=1, folder=tmp_path / "holds")
        for server in (follows, holds):
            assert _get(f"{server.url}/v2/app/manifests/v1.2.3")[1] == first.manifest
        second = origin.add_image("app", "v1.2.3", LAYER, b"another")
        assert _get(f"{follows.url}/v2/app/manifests/v1.2.3")[1] == second.manifest
        assert _get(f"{holds.url}/v2/app/manifests/v1.2.3")[1] == first.manifest
        for server in (follows, holds):
            assert server.metrics().total("tidegate_tags_moved_total") == 1
            assert f"app:v1.2.3 moved from {first.digest[:19]} to {second.digest[:19]}" in server.stderr
