"""An upstream, a proxy or a client that means harm, or is broken, harms its own names and nobody else's."""

import os
import shutil
import socket
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.fakes import Cut, Drip, IgnoreRange, NoLength, Silence, Status, origin_in_thread
from tests.support import MIB, blob_path, client, digest_of, get, noise, quick, until

ONE, OTHER = "one.example", "other.example"


@pytest.fixture
def other():
    with origin_in_thread() as running:
        yield running


@pytest.fixture
def server(tidegate, far, other):
    """Two public upstreams, one worker: what one of them does must not be felt through the other."""
    keys = {"first_byte_deadline": "4s", "stall_timeout": "1s", "allow_private": True}
    config = {"upstreams": {ONE: {"urls": [far.url], **keys}, OTHER: {"urls": [other.url], **keys}}}
    return tidegate(config, workers=1)


def test_junk_longer_than_the_blob_is_thrown_away(server, far, other):
    """What a liar left behind must not keep the honest one from being believed."""
    content = noise(MIB)
    digest = digest_of(content)
    other.add_blob("pause", content)
    far.add_blob("pause", b"")
    far.repos["pause"].blobs[digest] = noise(3 * MIB)
    far.fault(digest, NoLength(), Cut(2 * MIB), times=1)
    far.fault(digest, Status(404))
    assert not get(server, f"/v2/{ONE}/pause/blobs/{digest}").is_blob(content)
    until(lambda: get(server, f"/v2/{OTHER}/pause/blobs/{digest}").is_blob(content), 5)


def test_a_server_that_knows_no_range_is_resumed_however_slow(server, far):
    content = noise(2 * MIB)
    digest = far.add_blob("pause", content)
    far.fault(digest, IgnoreRange(), Cut(MIB + MIB // 2), times=1)
    far.fault(digest, IgnoreRange(), Drip(128 << 10, 0.2))
    got = get(server, f"/v2/{ONE}/pause/blobs/{digest}")
    assert got.is_blob(content)
    assert got.seconds > 2, "what is here already takes longer than a stall, and is none"
    assert far.count() == 2


@pytest.mark.parametrize("status", [400, 405, 410])
def test_an_answer_that_makes_no_sense_is_asked_for_once_and_closes_nothing(server, far, status):
    image = far.add_image("good", "1", b"layer")
    far.fault("/bad/", Status(status))
    for number in range(12):
        assert get(server, f"/v2/{ONE}/bad/manifests/{number}").status == 503
    assert far.count(contains="/bad/") == 12
    assert get(server, f"/v2/{ONE}/good/manifests/1").body == image.manifest


def test_a_silent_upstream_leaves_time_for_another_that_has_the_same(server, far, other):
    content = noise(MIB)
    digest = far.add_blob("pause", content)
    other.add_blob("pause", content)
    far.fault(digest, Silence())
    with client(server) as waiting:
        waiting.send(f"/v2/{ONE}/pause/blobs/{digest}")
        until(lambda: far.count() == 1)
        assert get(server, f"/v2/{OTHER}/pause/blobs/{digest}").is_blob(content)


def test_what_one_upstream_calls_a_manifest_is_not_believed_for_another(server, far, other):
    manifest = b'{"schemaVersion": 2, "layers": []}'
    for origin, kind in ((far, "application/vnd.evil"), (other, "application/vnd.oci.image.manifest.v1+json")):
        origin.add_manifest("app", "1", manifest, kind)
    digest = digest_of(manifest)
    first = get(server, f"/v2/{ONE}/app/manifests/1")
    second = get(server, f"/v2/{OTHER}/app/manifests/{digest}")
    assert (
        first.headers["Content-Type"] == second.headers["Content-Type"] == "application/vnd.oci.image.manifest.v1+json"
    )


def test_a_size_somebody_told_counts_where_it_was_told(server, far, other):
    content = noise(5000)
    digest = other.add_blob("app", content)
    far.add_blob("app", b"")
    far.repos["app"].blobs[digest] = b"0123456789"
    assert get(server, f"/v2/{ONE}/app/blobs/{digest}", "HEAD").headers["Content-Length"] == "10"
    assert get(server, f"/v2/{OTHER}/app/blobs/{digest}", "HEAD").headers["Content-Length"] == "5000"
    assert get(server, f"/v2/{OTHER}/app/blobs/{digest}").is_blob(content)
    assert get(server, f"/v2/{OTHER}/app/blobs/{digest}", "HEAD").headers["Content-Length"] == "5000"


@pytest.mark.parametrize("page", [b"Access to this site is blocked", b"", b"[]", b"{"])
def test_a_page_in_plain_text_never_takes_a_tags_place(tidegate, far, page):
    image = far.add_image("app", "latest", b"layer")
    server = tidegate(quick(far.url, tag_ttl="1ms"), workers=1)
    assert get(server, "/v2/app/manifests/latest").body == image.manifest
    blocked = Status(200, {"Content-Type": "text/plain"}, page)
    far.fault("manifests/latest", blocked)
    for _ in range(2):
        assert get(server, "/v2/app/manifests/latest").body == image.manifest
    assert get(server, "/v2/app/manifests/other").status == 404


def test_a_far_range_that_never_ends_is_given_up(tidegate, tmp_path):
    """A bypass believes nobody: more bytes than were asked for are none."""
    sent = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=_pour, args=(listener, sent), daemon=True).start()
        server = tidegate(quick(f"http://127.0.0.1:{listener.getsockname()[1]}"), workers=1)
        path = blob_path("pause", digest_of(b"whatever"))
        with client(server) as one:
            one.send(path, Range="bytes=30000000-30000099")
            before = _resident(server)
            until(lambda: sent)
            time.sleep(1)
            assert _resident(server) - before < 60
        listener.shutdown(socket.SHUT_RDWR)


def _pour(listener, sent):
    """Answers one request with a beginning and no end, and one for a range with 300 MiB."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, sent), daemon=True).start()


def _answer(connection, sent):
    with closing(connection):
        try:
            head = connection.recv(65536).lower()
            if b"range:" not in head:
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 64000000\r\n\r\n" + bytes(1000)
                )
                time.sleep(3)
                return
            connection.sendall(
                b"HTTP/1.1 206 P\r\nContent-Type: a/b\r\nConnection: close\r\n"
                b"Content-Range: bytes 30000000-30000099/64000000\r\n\r\n"
            )
            sent.append(head)
            for _ in range(300):
                connection.sendall(bytes(MIB))
        except OSError:
            return


def _resident(server):
    """MiB of the largest worker."""
    pages = (Path(f"/proc/{pid}/statm").read_text().split()[1] for pid in server.worker_pids())
    return max(map(int, pages)) * os.sysconf("SC_PAGE_SIZE") / MIB


def test_a_loop_by_somebodys_via_is_nobody_elses_answer(tidegate, far, tmp_path):
    """A request that claims to come from the central cache is refused by it; the next one is answered."""
    image = far.add_image("app", "1", b"layer")
    central = tidegate(quick(far.url), workers=1, folder=tmp_path / "central")
    site = tidegate(quick(central.url), workers=1, folder=tmp_path / "site")
    name = (central.data / "run" / "instance").read_text()
    layer = next(iter(image.blobs))
    for path in ("/v2/app/manifests/1", blob_path("app", layer)):
        assert get(site, path, Via=f"1.1 {name}").status == 508
        assert get(site, path).status == 200


def test_refusals_without_credentials_do_not_count_for_those_with(tidegate, far):
    """Two upstreams at one URL, one with an account: what one is refused the other may have."""
    far.add_image("app", "1", b"layer")
    layer = far.add_blob("app", b"layer")
    far.fault(layer, Status(401), times=1)
    account = {"username": "me", "password": "secret"}
    keys = {"urls": [far.url], "allow_private": True}
    server = tidegate({"upstreams": {ONE: keys, OTHER: {**keys, **account}}}, workers=1)
    assert get(server, f"/v2/{ONE}/app/blobs/{layer}").status == 403
    assert get(server, f"/v2/{OTHER}/app/blobs/{layer}").is_blob(b"layer")


def test_a_copy_of_the_data_is_another_tidegate(tidegate, far, tmp_path):
    """A site that was seeded from the central cache and asks it is no loop."""
    image = far.add_image("app", "1", b"layer")
    first = tidegate(quick(far.url), workers=1, folder=tmp_path / "central")
    assert first.stop() == 0
    shutil.copytree(first.data, tmp_path / "copy")
    central = tidegate(quick(far.url), workers=1, data=first.data, folder=tmp_path / "again")
    site = tidegate(quick(central.url), workers=1, data=tmp_path / "copy", folder=tmp_path / "site")
    assert get(site, "/v2/app/manifests/1").body == image.manifest


def test_pins_that_cannot_be_read_stop_no_pull(server, far):
    digest = far.add_blob("pause", b"layer")
    (server.data / "pins" / "broken.json").write_text("{")
    assert get(server, f"/v2/{ONE}/pause/blobs/{digest}").is_blob(b"layer")
    assert get(server, "/metrics").status == 200
