"""The status page: what stands in it, what it is served with, and what a real browser makes of it."""

import base64
import re
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from proxy.http import page
from tests.fakes import Status
from tests.real.processes import program
from tests.support import MIB, get, noise, quick, until
from tests.test_admin import socket_asks

TOKEN = "0123456789abcdef0123"


@pytest.fixture
def server(tidegate, far, tmp_path):
    """A cache with something to show: a hit, a miss, an image that cannot be had, an old name."""
    token = tmp_path / "token"
    token.write_text(TOKEN)
    image = far.add_image("pause", "3.9", noise(MIB, "page"))
    far.fault("/v2/broken/", Status(500))
    keys = quick(far.url, aliases=["k8s.gcr.io"])
    server = tidegate({**keys, "admin": {"token_file": str(token)}}, workers=2)
    for _ in range(3):
        assert get(server, "/v2/pause/manifests/3.9").status == 200
        for digest in image.blobs:
            assert get(server, f"/v2/pause/blobs/{digest}").status == 200
    assert get(server, "/v2/broken/manifests/1").status == 503
    # Each worker tells everybody the same for a second.
    until(lambda: all(b"answered 500 for broken" in get(server, "/").body for _ in range(8)))
    return server


def basic(password):
    return {"Authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}


def test_it_says_what_status_says(server):
    answer = get(server, "/")
    text = answer.body.decode()
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["Cache-Control"] == "no-store"
    status = socket_asks(server, "/api/status")
    today = status["today"]
    for piece in (
        f"{100 * today['byte_hit_rate']:.1f} %",
        f"{100 * today['request_hit_rate']:.1f} %",
        "pause:3.9",
        "answered 500 for broken",
        "registry.k8s.io",
        '<progress max="',
        today["date"],
    ):
        assert piece in text, piece
    assert "127.0.0.1 answered 500" in text, "the upstream's host is no client"


def test_who_asked_is_seen_with_the_token_alone(server):
    def clients(answer):
        rows = re.search(r"<h2>Problems</h2>.*?</section>", answer.body.decode(), re.DOTALL)[0]
        return re.findall(r"<td>(127\.0\.0\.1)</td>", rows)

    assert clients(get(server, "/")) == []
    assert clients(get(server, "/", **basic(TOKEN))) == ["127.0.0.1"]
    for answer in (get(server, "/?login"), get(server, "/", **basic("wrong"))):
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert TOKEN not in get(server, "/", **basic(TOKEN)).body.decode()


def test_search(server):
    def found(query, **headers):
        return b"pause:3.9" in re.sub(b"<h2>Problems.*?</section>", b"", get(server, query, **headers).body, flags=re.S)

    assert found("/?q=PAUSE")
    assert not found("/?q=etcd")
    assert found("/?q=pause", **basic(TOKEN))
    assert b'value="&lt;script&gt;"' in get(server, "/?q=%3Cscript%3E").body


def test_it_is_read_only_and_small(server):
    for method in ("POST", "PUT", "DELETE"):
        assert get(server, "/", method).status in (404, 405)
    text = get(server, "/").body.decode()
    assert not re.search(r"(?:src|href|action)=\"(?!/)", text), "nothing from elsewhere"
    assert re.findall(r"<script[^>]*>(.*?)</script>", text) == [""]
    assert "style=" not in text
    for name in ("page.css", "page.js"):
        answer = get(server, f"/{name}")
        assert answer.status == 200
        assert "nosniff" in answer.headers["X-Content-Type-Options"]


def test_on_a_port_of_its_own_the_registrys_port_has_none(tidegate, far, tmp_path):
    from tests.real.processes import fetch, free_port

    elsewhere = f"127.0.0.1:{free_port()}"
    server = tidegate(quick(far.url) | {"admin": {"listen": elsewhere}}, workers=1)
    assert b"<h1>tidegate</h1>" in fetch(f"http://{elsewhere}/")[1]
    assert get(server, "/").status == get(server, "/page.css").status == get(server, "/metrics").status == 404


HOSTILE = '<script>alert("x")</script>\' onload=1 &amp;'


def test_nothing_a_client_or_a_server_wrote_becomes_markup():
    totals = {"requests": {"hit": 1}, "client_bytes": 1, "upstream_bytes": 0, "saved_bytes": 1}
    totals |= {"request_hit_rate": 1.0, "byte_hit_rate": None}
    size = {
        "free": 1,
        "total": 2,
        "cache_bytes": 1,
        "cache_objects": 1,
        "pinned_bytes": 0,
        "max_size": 2,
        "min_free": 0,
    }
    status = {
        "view": "full", "version": HOSTILE, "now": 9.0, "started": 1.0, "workers": 1, "health": HOSTILE, "disk": size,
        "today": totals, "since_start": totals, "days": [{"date": HOSTILE, **totals}],
        "upstreams": [
            {"name": HOSTILE, "urls": [HOSTILE], "up": False, "circuit": HOSTILE, "paused": 0, "offline": False}
        ],
        "fills": [{"digest": HOSTILE, "image": HOSTILE, "bytes": 1, "size": 2, "rate": 1, "readers": 1}],
        "hosts": [
            {"host": HOSTILE, "hop": HOSTILE, "count": 1, "bytes": 1, "status": 0, "error": HOSTILE, "last": 1.0}
        ],
        "problems": [
            {"last": 1.0, "client": HOSTILE, "image": HOSTILE, "status": 503, "sentence": HOSTILE, "count": 1}
        ],
    }  # fmt: skip
    image = {"repository": HOSTILE, "reference": HOSTILE, "complete": False, "missing": 1, "size": 1, "used": 1.0}
    text = page.html(status, [image | {"pinned": ["x"]}], HOSTILE, True)
    assert "<script>alert" not in text
    assert text.count("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&#x27; onload=1 &amp;amp;") >= 14


# A real browser


def chromium(folder, *words):
    command = [program("chromium"), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
    command += ["--disable-dev-shm-usage", "--enable-logging=stderr", "--hide-scrollbars", *words]
    done = subprocess.run(command, capture_output=True, timeout=120, env={"HOME": str(folder), "PATH": "/usr/bin:/bin"})
    said = done.stderr.decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
    console = [line for line in said.splitlines() if "CONSOLE" in line]
    assert console == [], "the policy let everything through that the page needs, and nothing failed"
    return done.stdout.decode()


@pytest.mark.real("chromium")
def test_in_a_browser_it_goes_on_by_itself(server, tmp_path):
    """The page fetches itself again: a search of something else is made meanwhile, and is seen."""
    text = chromium(tmp_path, "--virtual-time-budget=8000", "--dump-dom", f"{server.url}/?q=pause")
    assert "<h1>tidegate</h1>" in text
    assert "pause:3.9" in text
    asked = [line for line in server.stdout.splitlines() if " GET admin " in line]
    assert len(asked) >= 5, "page, style, script, and the page again"


@pytest.mark.real("chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_picture_of_it(server, tmp_path, scheme):
    picture = tmp_path / "page.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    chromium(tmp_path / "home", *dark, "--window-size=1200,1400", f"--screenshot={picture}", server.url)
    width, height, colours = pixels(picture)
    assert (width, height) == (1200, 1400)
    most = max(colours, key=colours.get)
    assert (sum(most) < 3 * 80) == (scheme == "dark"), most
    assert len(colours) > 50, "text and bars, not a blank page"


def pixels(path: Path):
    """(width, height, how often each colour) of a PNG of 8-bit RGB or RGBA."""
    data, at, packed = path.read_bytes(), 8, b""
    width, height, _, kind = struct.unpack(">IIBB", data[16:26])
    depth = {2: 3, 6: 4}[kind]
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        packed += data[at + 8 : at + 8 + length] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += 12 + length
    raw, stride, before, colours = zlib.decompress(packed), width * depth, bytes(width * depth), {}
    for row in range(height):
        start = row * (stride + 1)
        line = unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + stride]), before, depth)
        before = line
        for x in range(0, stride, depth * 4):
            colour = tuple(line[x : x + 3])
            colours[colour] = colours.get(colour, 0) + 1
    return width, height, colours


def unfiltered(kind, line, above, depth):
    """PNG, section 9.2."""
    for x in range(len(line)):
        left, up = (line[x - depth] if x >= depth else 0), above[x]
        corner = above[x - depth] if x >= depth else 0
        if kind == 1:
            line[x] = line[x] + left & 255
        elif kind == 2:
            line[x] = line[x] + up & 255
        elif kind == 3:
            line[x] = line[x] + (left + up) // 2 & 255
        elif kind == 4:
            guess = left + up - corner
            near = min((abs(guess - each), number) for number, each in enumerate((left, up, corner)))[1]
            line[x] = line[x] + (left, up, corner)[near] & 255
    return bytes(line)
