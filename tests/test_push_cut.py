"""Uploads that break off: gone on from where they stand, swept after their time, apart from each other."""

import os
import socket
import threading
import time

import pytest

from tests.conformance import content as make
from tests.conformance.client import Registry
from tests.real.disk import disk
from tests.support import MIB, digest_of, noise, until

LOCAL = {"local": {"upload_ttl": "24h"}}
UPLOADS = "/v2/dev/app/blobs/uploads/"


def uploads(server):
    return server.data / "local" / "uploads"


def half_sent(server, where, head, body):
    """A PATCH whose connection ends in the middle of it, once the server has what was sent."""
    host, port = server.host.split(":")
    path = uploads(server) / where.rpartition("/")[2]
    before = path.stat().st_size
    with socket.create_connection((host, int(port))) as half:
        half.sendall(f"PATCH {where} HTTP/1.1\r\nHost: {server.host}\r\n{head}\r\n\r\n".encode() + body)
        until(lambda: path.stat().st_size > before)


def stands(registry, where):
    return int(registry.ask("GET", where).expect(204).header("Range").partition("-")[2]) + 1


def test_a_connection_that_breaks_leaves_what_came(tidegate):
    """With a length and in chunks, in a PATCH and in the final PUT."""
    server = tidegate(LOCAL, workers=2)
    registry = Registry("tidegate", server.url)
    whole = noise(4 * MIB)
    where = registry.ask("POST", UPLOADS).expect(202).header("Location")
    half_sent(server, where, f"Content-Length: {3 * MIB}", whole[:MIB])
    until(lambda: stands(registry, where) == MIB)
    chunk = whole[MIB : 2 * MIB]
    half_sent(server, where, "Transfer-Encoding: chunked", b"%x\r\n%b\r\n" % (len(chunk), chunk))
    until(lambda: stands(registry, where) == 2 * MIB)
    rest = whole[2 * MIB :]
    path, digest = uploads(server) / where.rpartition("/")[2], digest_of(whole)
    host, port = server.host.split(":")
    with socket.create_connection((host, int(port))) as half:
        head = f"PUT {where}?digest={digest} HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: {len(rest)}\r\n\r\n"
        half.sendall(head.encode() + rest[:MIB])
        until(lambda: path.stat().st_size > 2 * MIB)
    until(lambda: stands(registry, where) == 3 * MIB)
    registry.ask("PUT", f"{where}?digest={digest}", rest[MIB:]).expect(201)
    assert registry.ask("GET", f"/v2/dev/app/blobs/{digest}").expect(200).body == whole


def test_what_nobody_goes_on_with_is_swept_at_a_start(tidegate, tmp_path):
    server = tidegate(LOCAL, workers=1)
    registry = Registry("tidegate", server.url)
    left, young = [registry.ask("POST", UPLOADS).expect(202).header("Location") for _ in range(2)]
    half_sent(server, left, f"Content-Length: {MIB}", noise(1000))
    assert server.stop() == 0
    os.utime(uploads(server) / left.rpartition("/")[2], (time.time() - 90000,) * 2)
    again = tidegate(LOCAL, workers=1, data=server.data, folder=tmp_path / "again")
    registry = Registry("tidegate", again.url)
    until(lambda: registry.ask("GET", left).status == 404)
    registry.ask("GET", young).expect(204)
    name = young.rpartition("/")[2]
    assert {path.name for path in uploads(again).iterdir()} == {name, f"{name}.session"}


def test_two_pushes_of_the_same_do_not_disturb_each_other(tidegate):
    server = tidegate(LOCAL, workers=4)
    image = make.manifest(make.Content(b'{"one": 1}', make.OCI_CONFIG), [make.blob(3 * MIB), make.blob(MIB)])
    failed = []

    def push(number):
        repository = Registry("tidegate", server.url).repository("dev/app")
        try:
            for part in image.parts:
                where = repository.session()
                half = max(1, len(part.body) * number // 8)
                repository.patch(where, part.body[:half], 0).expect(202)
                repository.patch(where, part.body[half:], half).expect(202)
                repository.finish(where, part.digest).expect(201)
                assert repository.blob(part.digest).expect(200).body == part.body
            repository.push(image, "same")
        except AssertionError as error:
            failed.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    registry = Registry("tidegate", server.url)
    assert registry.ask("GET", "/v2/dev/app/manifests/same").expect(200).body == image.body
    assert list(uploads(server).iterdir()) == []


@pytest.mark.real("mount")
def test_a_disk_that_fills_up_anywhere_leaves_no_trace(tidegate, tmp_path):
    with disk(tmp_path / "disk", 40) as small:
        server = tidegate(LOCAL, data=small.path / "data", folder=tmp_path / "run", workers=2)
        registry = Registry("tidegate", server.url)
        repository = registry.repository("dev/app")
        image, blob = make.image(), make.blob(8 * MIB)
        first = repository.push_all(make.image(), "1")
        for part in image.parts:
            repository.push_blob(part)
        where = repository.session()
        repository.patch(where, blob.body[:MIB], 0).expect(202)
        small.fill(leave=2 * MIB)
        repository.patch(where, blob.body[MIB:], MIB).refused(507, "UNAVAILABLE")
        until(lambda: list(uploads(server).iterdir()) == [])
        repository.ask("GET", where).expect(404)
        small.fill()
        began = repository.begin()
        pushed = repository.put_manifest(image, "1")
        assert (began.status, pushed.status) == (507, 507), "not even a session"
        assert repository.manifest("1").expect(200).body == first.body
        repository.manifest(image.digest).expect(404)
        local = server.data / "local"
        assert not [*uploads(server).iterdir(), *(local / "repositories" / ".making").iterdir()]
        small.free()
        repository.push_all(image, "1")
        repository.push_blob(blob)
        assert repository.manifest("1").expect(200).body == image.body
