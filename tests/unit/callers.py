"""What tests of [auth] stand on: requests from anywhere, hashes that cost little, a check that counts."""

import base64
import threading

import bcrypt
from aiohttp import HttpVersion11
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from proxy.config import Auth

HERE = {"Host": "localhost:5000"}
# From Apache's `htpasswd -nbB -C 5 alice s3cret`.
APACHE = "$2y$05$Zs4RvaQhogolF4tmP7rraOiYNsmRAqiEntGlVNv3PUi48dZdUeEES"


class Transport:
    def __init__(self, peername):
        self._peername = peername

    def get_extra_info(self, name, default=None):
        return self._peername if name == "peername" else default


def asked(peer="127.0.0.1", headers=HERE, version=HttpVersion11):
    """A request from `peer`; None is a unix socket."""
    peername = "" if peer is None else (peer, 40000, 0, 0) if ":" in peer else (peer, 40000)
    return make_mocked_request(
        "POST", "/v2/a/blobs/uploads/", CIMultiDict(headers), version=version, transport=Transport(peername)
    )


def basic(user, password):
    return {**HERE, "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def hashed(password, prefix=b"2b"):
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).replace(b"$2b$", b"$" + prefix + b"$", 1).decode()


class Counted:
    """bcrypt's check, counted, held back while `open` is not set."""

    def __init__(self):
        self.calls = []
        self.now = self.most = 0
        self.open = threading.Event()
        self.open.set()
        self._lock = threading.Lock()

    def __call__(self, password, stored):
        with self._lock:
            self.calls.append(stored)
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.open.wait(20)
        with self._lock:
            self.now -= 1
        return bcrypt.checkpw(password, stored)


def write_users(folder):
    """A users file: alice with "s3cret", bob with "hunter2", both at a low cost."""
    path = folder / "users"
    path.write_text(f"alice:{APACHE}\nbob:{hashed('hunter2')}\n")
    return path


def auth(push="loopback", pull="anyone", users_file="", push_names=(), trusted_proxies=(), pull_names=()):
    return Auth(push, pull, users_file, tuple(push_names), tuple(trusted_proxies), tuple(pull_names))
