"""kill -9 in every phase of a push: the client goes on where the upload stands or starts over, and nothing wrong is
served meanwhile or afterwards.

strace delivers the signal just before a chosen call, so that a real worker dies at a place that is known; whatever
place it turns out to be, the same must hold.
"""

import http.client
import json
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance import content as make
from tests.conformance.client import Registry
from tests.real.processes import program
from tests.support import get, spread, until

pytestmark = pytest.mark.real("strace")
LOCAL = {"local": {"upload_ttl": "24h"}}
PLACES = [
    ("write", "", 1),
    *[(call, "", number) for call in ("pwritev2", "fsync", "rename", "unlink") for number in (1, 2)],
    *[("mkdir", f"repositories/dev/app{kind}", 1) for kind in ("", "/_blobs", "/_manifests", "/_tags")],
    ("rename", "", 3),
    *[("fsync", path, 1) for path in ("{blob}", "{manifest}")],
    *[("fsync", f"repositories/dev/{path}", 1)
      for path in ("app/_blobs", "other/_blobs", "app/_manifests", "app/_tags")],
    ("unlink", "repositories/dev/app/_tags/old", 1),
]  # fmt: skip
"""The call, what it is about (anything when empty), which one of them. strace counts for each thread."""


@contextmanager
def dying(pid, call, path=None, number=1):
    """The process is killed when one of its threads is about to make so many calls of this kind, about `path`."""
    command = [program("strace") or "strace", "-f", "-e", f"trace={call}", "-e",
               f"inject={call}:signal=SIGKILL:when={number}", "-o", "/dev/null", "-p", str(pid),
               *(["-P", str(path)] if path else [])]  # fmt: skip
    tracer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        until(lambda: "TracerPid:\t0" not in Path(f"/proc/{pid}/status").read_text())
        yield
    finally:
        ended(tracer)


def ended(tracer, patience=10):
    """strace leaves by itself when what it traces is dead. Interrupted just then it may hang: it waits for the first
    thread, which stays until strace has taken leave of the others."""
    for last_word in (signal.SIGINT, signal.SIGKILL):
        try:
            return tracer.wait(patience)
        except subprocess.TimeoutExpired:
            tracer.send_signal(last_word)
    return tracer.wait(patience)


class Pusher:
    """A client that does not give up: asks again after a broken connection, goes on where an upload stands."""

    def __init__(self, server):
        self._server = server
        self._registry = Registry("tidegate", server.url)
        self.broken = 0
        self.resumed = 0

    def ask(self, method, path, body=None, **headers):
        """None when the connection broke."""
        try:
            return self._registry.ask(method, path, body, **headers)
        except (ConnectionError, http.client.HTTPException):
            self.broken += 1
            until(lambda: get(self._server, "/v2/").status == 200)
            return None

    def surely(self, method, path, body=None, **headers):
        while (answer := self.ask(method, path, body, **headers)) is None:
            pass
        return answer

    def blob(self, repo, content):
        path, body = f"/v2/{repo}/blobs", content.body
        where = self.surely("POST", f"{path}/uploads/").expect(202).header("Location")
        while self.surely("HEAD", f"{path}/{content.digest}").expect(200, 404).status == 404:
            stands = self.surely("GET", where).expect(204, 404)
            if stands.status == 404:
                where = self.surely("POST", f"{path}/uploads/").expect(202).header("Location")
                continue
            _, _, last = stands.header("Range").partition("-")
            offset = int(last) + 1 if int(last) else 0
            self.resumed += offset > 0
            stop = min(len(body), offset + len(body) // 2 + 1)
            if offset < len(body):
                asked = {"Content_Range": f"{offset}-{stop - 1}", "Content_Type": make.OCTETS}
                if (answer := self.ask("PATCH", where, body[offset:stop], **asked)) is not None:
                    answer.expect(202)
            elif (answer := self.ask("PUT", f"{where}?digest={content.digest}")) is not None:
                answer.expect(201)

    def manifest(self, repo, content, name):
        path = f"/v2/{repo}/manifests/{name}"
        self.surely("PUT", path, content.body, Content_Type=content.media_type).expect(201)

    def push(self, repo, content, name):
        for part in content.parts:
            self.blob(repo, part)
        self.manifest(repo, content, name)


def filled_in(path, image):
    """A place below local/ for this image: the folders of its first blob and of its manifest."""
    words = {}
    for kind, content in (("blob", image.parts[0]), ("manifest", image)):
        name = content.digest.removeprefix("sha256:")
        words[kind] = f"blobs/sha256/{name[:2]}"
    return path.format_map(words)


@pytest.mark.parametrize(("call", "path", "number"), PLACES, ids=[" ".join(map(str, place)) for place in PLACES])
def test_a_worker_killed_there(tidegate, call, path, number):
    server = tidegate(LOCAL, workers=1)
    (worker,) = server.worker_pids()
    image, old = make.image(), make.image()
    pusher = Pusher(server)
    with dying(worker, call, path and server.data / "local" / filled_in(path, image), number):
        pusher.push("dev/app", image, "1")
        pusher.push("dev/app", old, "old")
        for part in image.parts:
            mounted = f"/v2/dev/other/blobs/uploads/?mount={part.digest}&from=dev/app"
            pusher.surely("POST", mounted).expect(201)
        pusher.manifest("dev/other", image, "1")
        pusher.surely("DELETE", "/v2/dev/app/manifests/old").expect(202, 404)
    assert worker not in server.worker_pids(), "it was killed"
    assert pusher.broken
    registry = Registry("tidegate", server.url)
    for repo in ("dev/app", "dev/other"):
        for name in ("1", image.digest):
            assert registry.ask("GET", f"/v2/{repo}/manifests/{name}").expect(200).body == image.body
        for part in image.parts:
            assert registry.ask("GET", f"/v2/{repo}/blobs/{part.digest}").expect(200).body == part.body
        assert registry.ask("GET", f"/v2/{repo}/tags/list").json()["tags"] == ["1"]
    assert registry.ask("GET", "/v2/dev/app/manifests/old").status == 404
    assert "Traceback" not in server.stderr


def put_tag(client, content, name):
    path = f"/v2/dev/app/manifests/{name}"
    client._connection.request("PUT", path, body=content.body, headers={"Content-Type": content.media_type})
    response = client.response()
    response.read()
    return response.status


def test_a_tag_of_a_killed_worker_means_the_same_to_every_worker(tidegate):
    """It dies between the tag and the word that says so: nobody asks again, and nobody serves what it remembers."""
    server = tidegate(LOCAL, workers=2)
    repository = Registry("tidegate", server.url).repository("dev/app")
    images = [make.image(), make.image()]
    for number, image in enumerate(images):
        repository.push_all(image, str(number))
    with spread(server, 2) as (writer, reader):
        for image in images:
            assert put_tag(writer, image, "latest") == 201
        assert reader.get("/v2/dev/app/manifests/latest").body == images[1].body, "remembered from now on"
        tags = server.data / "local" / "repositories" / "dev" / "app" / "_tags"
        with dying(writer.pid, "fsync", tags), pytest.raises((ConnectionError, http.client.HTTPException)):
            put_tag(writer, images[0], "latest")
        assert (tags / "latest").read_text() == images[0].digest, "it died after the rename"
        until(lambda: len(server.worker_pids()) == 2 and writer.pid not in server.worker_pids())
        until(lambda: reader.get("/v2/dev/app/manifests/latest").body == images[0].body)
        names = json.loads(reader.get("/v2/dev/app/tags/list").body)["tags"]
        assert names == ["0", "1", "latest"]
