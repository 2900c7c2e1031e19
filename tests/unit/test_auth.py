"""Who may push and pull: what counts as this machine, users files, passwords counted by their checks, and the rules."""

import asyncio
import base64
import ipaddress
import os
import threading

import bcrypt
import pytest
from aiohttp import HttpVersion10, HttpVersion11
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.config import Auth, ConfigError, load
from proxy.errors import Denied, Unauthorized, Unavailable
from proxy.http import passwords, respond
from proxy.http.auth import Access, Caller
from proxy.http.exchange import Exchange
from proxy.http.htpasswd import UsersFile, parse
from proxy.http.passwords import Passwords
from proxy.http.whence import is_local_name, parse_address, whence

HERE = {"Host": "localhost:5000"}
# From Apache's `htpasswd -nbB -C 5 alice s3cret`.
APACHE = "$2y$05$Zs4RvaQhogolF4tmP7rraOiYNsmRAqiEntGlVNv3PUi48dZdUeEES"
LOCAL, USERS = "loopback", "users"


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


def networks(*texts):
    return [ipaddress.ip_network(text) for text in texts]


# This machine


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:5000", "localhost.", "localhost.:80", "127.0.0.1:5000", "[::1]", "[::1]:5000"]
)
def test_this_machine(peer, host):
    assert whence(asked(peer, {"Host": host}), []).foreign == ""


@pytest.mark.parametrize("peer", ["10.0.0.9", "128.0.0.1", "::2", "::ffff:10.0.0.9", "fe80::1%eth0", "0.0.0.0"])
def test_another_machine(peer):
    assert whence(asked(peer), []).foreign.startswith("it came from ")


@pytest.mark.parametrize("peer", [None, "/run/sock", "not an address"])
def test_no_network_address(peer):
    assert whence(asked(peer), []) == whence(asked(None), [])
    assert whence(asked(peer), []).foreign == "it did not come over a network address"


OTHER_HOSTS = [
    "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost", "127.0.0.2", "::1", "",
    "localhost:5000:5000", "localhost:x", "user@localhost", "localhost/", "localhost..", "[::1", "[::1]x", "0.0.0.0",
]  # fmt: skip


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_another_host_is_not_this_machine(host):
    assert "Host" in whence(asked(headers={"Host": host}), []).foreign


@given(st.text(max_size=30))
def test_any_host_is_local_or_not(text):
    if is_local_name(text):
        assert text.strip().lower().startswith(("localhost", "127.0.0.1", "[::1]"))


def test_one_host_and_only_one():
    assert whence(asked(headers={}), []).foreign
    assert whence(asked(headers=[("Host", "localhost"), ("Host", "localhost")]), []).foreign


@pytest.mark.parametrize(
    "name", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "x-forwarded-proto", "Via", "X-Real-IP", "Client-IP"]
)
def test_a_sign_of_a_proxy_is_enough(name):
    found = whence(asked(headers={**HERE, name: "127.0.0.1"}), [])
    assert name.lower() in found.foreign
    assert found.address == "127.0.0.1"


def test_a_proxy_that_adds_nothing_but_speaks_http_1_0():
    assert "HTTP/1.0" in whence(asked(version=HttpVersion10), []).foreign


@pytest.mark.parametrize("name", ["Origin", "Sec-Fetch-Site"])
@pytest.mark.parametrize("value", ["http://localhost:5000", "null", ""])
def test_a_web_page_is_not_a_tool(name, value):
    assert "web page" in whence(asked(headers={**HERE, name: value}), []).foreign
    forwarded = {**HERE, name: value, "X-Forwarded-For": "127.0.0.1"}
    assert "web page" in whence(asked(headers=forwarded), networks("127.0.0.1")).foreign


CHAINS = [
    # peer, trusted, X-Forwarded-For, the client, whether it is this machine
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1", "127.0.0.1", True),
    ("::1", ["::1"], "::1", "::1", True),
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.2", "127.0.0.2", True),
    ("127.0.0.1", ["127.0.0.1"], "[::1]:4000", "::1", True),
    ("127.0.0.1", ["127.0.0.1"], "10.0.0.9", "10.0.0.9", False),
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1, 10.0.0.9", "10.0.0.9", False),
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1,10.0.0.9:1234", "10.0.0.9", False),
    ("127.0.0.1", ["127.0.0.1"], "10.0.0.9, 127.0.0.1", "10.0.0.9", False),
    ("127.0.0.1", ["127.0.0.1", "10.0.0.0/8"], "127.0.0.1, 10.0.0.9", "127.0.0.1", False),
    ("10.0.0.2", ["10.0.0.2"], "127.0.0.1", "127.0.0.1", False),
    ("10.0.0.2", ["10.0.0.0/8"], "2001:db8::1, 10.0.0.3", "2001:db8::1", False),
    ("127.0.0.1", ["127.0.0.1"], "unknown", "", False),
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1, ", "", False),
    ("127.0.0.1", ["127.0.0.1"], "127.0.0.1, localhost", "", False),
    ("127.0.0.1", ["127.0.0.1"], "", "", False),
    ("127.0.0.1", ["10.0.0.2"], "127.0.0.1", "127.0.0.1", False),
]


@pytest.mark.parametrize(("peer", "trusted", "chain", "client", "here"), CHAINS)
def test_behind_proxies(peer, trusted, chain, client, here):
    found = whence(asked(peer, {**HERE, "X-Forwarded-For": chain}), networks(*trusted))
    assert (found.address, not found.foreign) == (client, here)


FORWARDED = [
    ("for=127.0.0.1", "127.0.0.1", True),
    ('For="[::1]:4711";proto=http', "::1", True),
    ('for=127.0.0.1, for="10.0.0.9:80"', "10.0.0.9", False),
    ('for="127.0.0.1, for=10.0.0.9', "10.0.0.9", False),
    ("for=_hidden", "", False),
    ("for=unknown", "", False),
    ("for=127.0.0.1;for=10.0.0.9", "", False),
    ("for=127.0.0.1;;", "", False),
    ("by=127.0.0.1", "", False),
    ("127.0.0.1", "", False),
]


@pytest.mark.parametrize(("header", "client", "here"), FORWARDED)
def test_the_standard_header(header, client, here):
    found = whence(asked(headers={**HERE, "Forwarded": header}), networks("127.0.0.1"))
    assert (found.address, not found.foreign) == (client, here)


def test_what_a_trusted_proxy_must_say():
    trusted = networks("127.0.0.1")
    assert "does not say" in whence(asked(), trusted).foreign
    chain = {**HERE, "X-Forwarded-For": "127.0.0.1"}
    both = {**chain, "Forwarded": "for=127.0.0.1"}
    assert whence(asked(headers=both), trusted).foreign == ""
    # nginx sets the one and passes on the other, as the client wrote it
    spoofed = {**HERE, "X-Forwarded-For": "10.0.0.9", "Forwarded": "for=127.0.0.1"}
    assert "contradict" in whence(asked(headers=spoofed), trusted).foreign
    assert "Host" in whence(asked(headers={**chain, "X-Forwarded-Host": "evil.example"}), trusted).foreign
    assert "Host" in whence(asked(headers={**chain, "Host": "registry.corp"}), trusted).foreign
    assert whence(asked(headers=chain | {"Via": "1.1 x"}, version=HttpVersion10), trusted).foreign == ""
    lines = [*HERE.items(), ("X-Forwarded-For", "127.0.0.1"), ("X-Forwarded-For", "10.0.0.9")]
    assert whence(asked(headers=lines), trusted).address == "10.0.0.9"


@given(
    st.lists(st.sampled_from(["127.0.0.1", "::1", "10.0.0.9", "192.0.2.1", "x", ""]), max_size=5),
    st.sampled_from(["10.0.0.9", "192.0.2.1", "2001:db8::1"]),
)
def test_whatever_a_client_writes_an_honest_proxy_adds_who_it_is(spoofed, client):
    for headers in (
        {"X-Forwarded-For": ", ".join([*spoofed, client])},
        {"Forwarded": ", ".join(f'for="{part}"' for part in [*spoofed, client if "." in client else f"[{client}]"])},
    ):
        found = whence(asked(headers=HERE | headers), networks("127.0.0.0/8", "::1"))
        assert found.address == client
        assert found.foreign


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_none(text):
    found = parse_address(text)
    assert found is None or ipaddress.ip_address(str(found)) == found


# The users file


@pytest.fixture
def users(tmp_path):
    """A users file: alice with "s3cret", bob with "hunter2", both at the lowest cost."""
    path = tmp_path / "users"
    path.write_text(f"alice:{APACHE}\nbob:{hashed('hunter2')}\n")
    return path


def hashed(password, prefix=b"2b"):
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).replace(b"$2b$", b"$" + prefix + b"$", 1).decode()


@pytest.mark.parametrize("prefix", [b"2y", b"2b", b"2a"])
def test_the_forms_of_bcrypt(prefix):
    text = f"\ufeff# people\n\n  \nchloé:{hashed('x', prefix)}\r\nbob:{hashed('y')}  \n"
    table = parse("u", text.encode())
    assert list(table.hashes) == ["chloé", "bob"]
    assert bcrypt.checkpw(b"x", table.hashes["chloé"])
    assert "$2" not in repr(table)


GOOD = hashed("x")
WRONG_FILES = [
    (b"\xff", "u: is not UTF-8 text"),
    (b"", "u: holds no user; add one with: htpasswd -B u NAME"),
    (b"# nobody\n", "u: holds no user"),
    (b"alice\n", "u:1: is not NAME:HASH; make the line with htpasswd -B"),
    (f":{GOOD}\n".encode(), "u:1: is not NAME:HASH"),
    (f"al\tice:{GOOD}\n".encode(), "u:1: is not NAME:HASH"),
    (b"\nalice:secret\n", "u:2: the password of alice is something else, not bcrypt; make it with htpasswd -B"),
    (b"alice:$apr1$ab$cdefg\n", "u:1: the password of alice is MD5, not bcrypt"),
    (b"alice:{SHA}secret\n", "u:1: the password of alice is SHA-1, not bcrypt"),
    (b"alice:$6$ab$secret\n", "u:1: the password of alice is SHA-512, not bcrypt"),
    (f"alice:{GOOD[:-1]}\n".encode(), "u:1: the password of alice is something else"),
    (f"alice:{GOOD}:x\n".encode(), "u:1: the password of alice is something else"),
    (f"alice:{GOOD[:28]}A{GOOD[29:]}\n".encode(), "u:1: the password of alice is something else"),
    (f"alice:{GOOD.replace('$04$', '$31$')}\n".encode(), "u:1: the password of alice has cost 31"),
    (f"alice:{GOOD}\nalice:{GOOD}\n".encode(), "u:2: alice stands twice; keep one line"),
]


@pytest.mark.parametrize(("content", "line"), WRONG_FILES)
def test_a_wrong_file_is_one_line_that_quotes_no_password(content, line):
    with pytest.raises(ConfigError) as caught:
        parse("u", content)
    message = str(caught.value)
    assert message.startswith(line)
    assert "\n" not in message
    assert "secret" not in message


@given(st.binary(max_size=200))
def test_any_content_is_a_table_or_one_kind_of_error(content):
    try:
        assert parse("u", content).hashes
    except ConfigError as error:
        assert "\n" not in str(error)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read auth.users_file .*/nope: No such file"):
        Access(auth(users_file=str(tmp_path / "nope")))


def test_a_change_is_seen_and_a_broken_one_only_logged(users, caplog):
    file = UsersFile(str(users))
    first = file.look()
    assert file.look() is first
    users.write_text("alice:plain-secret\n")
    assert file.look() is first
    assert file.look() is first
    users.unlink()
    assert file.look() is first
    assert file.look() is first
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "alice is something else" in caplog.text
    assert "No such file" in caplog.text
    assert "plain-secret" not in caplog.text
    users.write_text(f"carol:{GOOD}\n")
    assert list(file.look().hashes) == ["carol"]


# Passwords


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


@pytest.fixture
def check():
    return Counted()


@pytest.fixture
def clock():
    """Seconds, moved by hand."""
    return [1000.0]


@pytest.fixture
def book(users, check, clock):
    found = Passwords(str(users), check, lambda: clock[0])
    yield found
    check.open.set()
    found.close()


async def test_right_is_remembered_wrong_is_not(book, check, clock):
    assert await book.belong("alice", "s3cret", "a")
    assert await book.belong("alice", "s3cret", "b")
    assert len(check.calls) == 1
    for _ in range(3):
        assert not await book.belong("alice", "wrong", "a")
    assert len(check.calls) == 4
    assert not await book.belong("Alice", "s3cret", "a")
    assert not await book.belong("bob", "s3cret", "a")
    clock[0] += passwords.MEMORY
    assert await book.belong("alice", "s3cret", "a")
    assert len(check.calls) == 7


async def test_an_unknown_name_costs_one_check_as_a_known_one_does(book, check):
    for known, unknown in [("alice", "carol"), ("bob", "dave"), ("alice", "")]:
        before = len(check.calls)
        assert not await book.belong(known, "wrong", "a")
        assert not await book.belong(unknown, "wrong", "a")
        assert len(check.calls) == before + 2
    # a right password of somebody else is of no use to a name that does not exist
    for name in map(str, range(20)):
        assert not await book.belong(name, "s3cret", "a")
        assert not await book.belong(name, "hunter2", "a")


async def test_parallel_requests_cost_one_check(book, check):
    assert all(await asyncio.gather(*(book.belong("alice", "s3cret", "a") for _ in range(20))))
    assert len(check.calls) == 1


async def test_a_flood_waits_in_a_line_of_its_own(book, check):
    check.open.clear()
    flood = [asyncio.create_task(book.belong("alice", f"wrong{n}", "flood")) for n in range(passwords.LINE)]
    await asyncio.sleep(0.05)
    assert len(check.calls) == 1
    with pytest.raises(Unavailable):
        await book.belong("alice", "wrong", "flood")
    honest = asyncio.create_task(book.belong("bob", "hunter2", "other"))
    await asyncio.sleep(0.05)
    assert len(check.calls) == 2
    check.open.set()
    assert await honest
    assert not any(await asyncio.gather(*flood))
    assert check.most <= passwords.AT_ONCE
    assert book._lines._lines == {}
    assert book._lines._count == 0


async def test_all_lines_together_are_bounded(book, check, monkeypatch):
    monkeypatch.setattr(passwords, "ALL_LINES", 10)
    check.open.clear()
    flood = [asyncio.create_task(book.belong("alice", "wrong", str(n))) for n in range(10)]
    await asyncio.sleep(0.05)
    with pytest.raises(Unavailable):
        await book.belong("alice", "s3cret", "new")
    for task in flood[5:]:
        task.cancel()
    check.open.set()
    await asyncio.gather(*flood, return_exceptions=True)
    assert check.most <= passwords.AT_ONCE
    assert book._lines._lines == {}
    assert await book.belong("alice", "s3cret", "new")


async def test_a_changed_file_ends_what_was_proved(book, check, clock, users):
    assert await book.belong("alice", "s3cret", "a")
    users.write_text(f"alice:{hashed('other')}\n")
    assert await book.belong("alice", "s3cret", "a")  # the file is not looked at more than once a second
    clock[0] += passwords.LOOK
    assert not await book.belong("alice", "s3cret", "a")
    assert await book.belong("alice", "other", "a")
    assert not await book.belong("bob", "hunter2", "a")


async def test_what_is_proved_while_the_file_changes_is_not_remembered(book, check, clock, users):
    check.open.clear()
    slow = asyncio.create_task(book.belong("alice", "s3cret", "a"))
    while not check.calls:
        await asyncio.sleep(0.01)
    users.write_text(f"bob:{hashed('hunter2')}\n")
    clock[0] += passwords.LOOK
    other = asyncio.create_task(book.belong("bob", "hunter2", "b"))
    while len(check.calls) < 2:
        await asyncio.sleep(0.01)
    check.open.set()
    assert await other
    await slow
    assert not await book.belong("alice", "s3cret", "a")


async def test_a_file_kept_by_time_and_size_but_not_by_inode(book, clock, users, tmp_path):
    assert await book.belong("alice", "s3cret", "a")
    other = tmp_path / "new"
    other.write_text(users.read_text().replace(APACHE, hashed("other").replace("$04$", "$04$")))
    times = users.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(users)
    clock[0] += passwords.LOOK
    assert not await book.belong("alice", "s3cret", "a")


async def test_memory_is_bounded(book, monkeypatch):
    monkeypatch.setattr(passwords, "REMEMBERED", 1)
    assert await book.belong("alice", "s3cret", "a")
    assert await book.belong("bob", "hunter2", "a")
    assert len(book._proved._until) == 1


async def test_seventy_two_bytes_count(tmp_path, check):
    path = tmp_path / "long"
    path.write_text(f"alice:{hashed('ä' * 36)}\n")
    book = await asyncio.to_thread(Passwords, str(path), check)
    assert await book.belong("alice", "ä" * 36, "a")
    assert await book.belong("alice", "ä" * 36 + "more", "a")
    assert not await book.belong("alice", "ä" * 35, "a")
    book.close()


# The rules


def auth(push=LOCAL, pull="anyone", users_file="", push_names=(), trusted_proxies=()):
    return Auth(push, pull, users_file, tuple(push_names), tuple(trusted_proxies))


@pytest.fixture
def access(users, check):
    """Makes an Access with the users file."""
    made = []

    def make(**more):
        made.append(Access(auth(users_file=str(users), **more), check))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def rules(access):
    return access(push=USERS)


BAD_CREDENTIALS = [
    "", "Basic", "Basic ", "Basic !!!", "Basic YWxpY2U", "Basic YWxpY2U=", "Basic /////w==", "Basic \u0661",
    "Bearer YWxpY2U6czNjcmV0", "Digest x", "YWxpY2U6czNjcmV0", "Basic YWxpY2U6czNjcmV0 x",
    "Basic " + base64.b64encode(b"alice:s3\0cret").decode(), "Basic " + base64.b64encode(b":s3cret").decode(),
    "Basic " + base64.b64encode(b"al\nice:s3cret").decode(), "Basic \udcff",
]  # fmt: skip


@pytest.mark.parametrize("header", BAD_CREDENTIALS)
async def test_credentials_that_cannot_be_read_are_401(rules, check, header):
    with pytest.raises(Unauthorized):
        await rules.caller(asked(headers={**HERE, "Authorization": header}))
    assert check.calls == []


@given(header=st.text(max_size=60))
def test_any_header_is_401_or_a_caller(header):
    sent = [f"Basic {header}"]
    from proxy.http.auth import _credentials

    try:
        user, password = _credentials(sent)
    except Unauthorized as error:
        assert not header or len(header) < 5 or header not in error.message
    else:
        assert isinstance(user + password, str)


async def test_two_credentials_are_none(rules):
    two = [*basic("alice", "s3cret").items(), ("Authorization", "Basic eDp5")]
    with pytest.raises(Unauthorized):
        await rules.caller(asked(headers=two))


async def test_who_asks(rules):
    assert await rules.caller(asked()) == Caller("", "127.0.0.1", "")
    assert (await rules.caller(asked())).is_loopback
    caller = await rules.caller(asked("10.0.0.9", basic("alice", "s3cret")))
    assert (caller.name, caller.address, caller.is_loopback) == ("alice", "10.0.0.9", False)
    assert (await rules.caller(asked(headers=basic("", "")))).name == ""
    scheme = {**HERE, "authorization": basic("bob", "hunter2")["Authorization"].replace("Basic ", "bAsIc   ")}
    assert (await rules.caller(asked(headers=scheme))).name == "bob"


@pytest.mark.parametrize("user", ["alice", "nobody", "ALICE"])
async def test_a_wrong_password_and_a_wrong_name_are_one_answer(rules, caplog, user):
    with pytest.raises(Unauthorized) as caught:
        await rules.caller(asked(headers=basic(user, "Wr0ng")))
    assert caught.value.message == "name and password do not match"
    assert "Wr0ng" not in caplog.text
    answer = respond.error(Exchange(asked()), caught.value)
    assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="tidegate"')


async def test_nothing_is_said_of_credentials_where_there_are_no_users():
    rules = Access(auth())
    for header in ("Bearer x", basic("a", "b")["Authorization"]):
        caller = await rules.caller(asked(headers={**HERE, "Authorization": header}))
        assert caller == Caller("", "127.0.0.1", "")
        rules.may_push(caller, "a")
    rules.close()


ANYBODY, HERE_NOBODY, ALICE = Caller("", "10.0.0.9", "it came from 10.0.0.9"), Caller("", "::1", ""), "alice"


def test_pushing_from_this_machine_only():
    rules = Access(auth())
    rules.may_push(HERE_NOBODY, "a")
    rules.may_pull(ANYBODY, "a")
    rules.may_ping(ANYBODY)
    with pytest.raises(Denied) as caught:
        rules.may_push(ANYBODY, "a")
    assert "it came from 10.0.0.9" in caught.value.reason()
    assert 'auth.push = "users"' in caught.value.reason()


def test_every_reason_why_this_is_not_this_machine_fits_into_the_reason_phrase():
    rules = Access(auth())
    for request in (
        asked(headers={**HERE, "X-Forwarded-Whatever-There-Is": "x"}),
        asked("2001:db8:1111:2222:3333:4444:5555:6666"),
        asked(headers={"Host": "x" * 300}),
    ):
        found = whence(request, [])
        with pytest.raises(Denied) as caught:
            rules.may_push(Caller("", found.address, found.foreign), "a")
        assert caught.value.reason().endswith('set auth.push = "users"')


def test_nobody():
    with pytest.raises(Denied, match=r"set auth\.push"):
        Access(auth(push="nobody")).may_push(HERE_NOBODY, "a")


def test_users_push_and_anyone_pulls(rules):
    rules.may_push(Caller(ALICE, "10.0.0.9", "x"), "any/name")
    rules.may_pull(ANYBODY, "a")
    for ask in (lambda: rules.may_push(HERE_NOBODY, "a"), lambda: rules.may_ping(HERE_NOBODY)):
        with pytest.raises(Unauthorized, match="log in"):
            ask()
    rules.may_ping(Caller(ALICE, "", "x"))


def test_users_pull(access):
    rules = access(pull=USERS)
    rules.may_pull(Caller(ALICE, "", "x"), "a")
    for ask in (lambda: rules.may_pull(HERE_NOBODY, "a"), lambda: rules.may_ping(HERE_NOBODY)):
        with pytest.raises(Unauthorized, match="log in"):
            ask()


@pytest.mark.parametrize(
    ("user", "repository", "allowed"),
    [
        ("alice", "anything/at/all", True),
        ("ci", "team/app", True),
        ("ci", "team/app/sub", True),
        ("ci", "team", False),
        ("ci", "steam/app", False),
        ("ci", "public/x", True),
        ("bob", "public/x", True),
        ("bob", "team/app", False),
        ("Alice", "x", False),
        ("*", "x", False),
        ("a=b", "odd", True),
        ("a", "odd", False),
    ],
)
def test_names_by_user(access, user, repository, allowed):
    rules = access(push=USERS, push_names=["alice=*", "ci=team/*", "*=public/*", "a=b=odd"])
    if allowed:
        rules.may_push(Caller(user, "", ""), repository)
    else:
        with pytest.raises(Denied, match=r"auth\.push_names"):
            rules.may_push(Caller(user, "", ""), repository)


def test_the_library_is_missing(monkeypatch, users):
    monkeypatch.setitem(__import__("sys").modules, "bcrypt", None)
    with pytest.raises(ConfigError, match=r"pip install 'tidegate\[htpasswd\]'"):
        Access(auth(push=USERS, users_file=str(users)))


# The settings


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "tidegate.toml"
        path.write_text("[auth]\n" + text)
        return str(path)

    return write


def test_settings(write):
    text = (
        'push = "users"\nusers_file = "/etc/users"\npush_names = ["ci=team/*"]\ntrusted_proxies = ["::1", "10.0.0.0/8"]'
    )
    assert load(write(text), {}, {}).auth == auth(
        USERS, "anyone", "/etc/users", ["ci=team/*"], ["::1/128", "10.0.0.0/8"]
    )
    assert load(None, {}, {}).auth == auth()
    assert load(None, {"TIDEGATE_AUTH_TRUSTED_PROXIES": "10.0.0.1, ::1"}, {}).auth.trusted_proxies == (
        "10.0.0.1/32",
        "::1/128",
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('push = "anyone"\n', ':2: auth.push must be "loopback" or "nobody" or "users", not "anyone"'),
        ('push = "users"\n', ':2: auth.push = "users" needs auth.users_file; make one with: htpasswd -B'),
        ('\npull = "users"\n', ':3: auth.pull = "users" needs auth.users_file'),
        ('users_file = "/x"\n', ":2: auth.users_file has no effect; set"),
        ('push_names = ["a=b"]\n', ":2: auth.push_names has no effect; set"),
        ('pull = "users"\nusers_file = "/x"\npush_names = ["a=b"]\n', ":4: auth.push_names has no effect; set"),
        ('push_names = ["a"]\n', ":2: auth.push_names must be a list of USER=PATTERN such as"),
        ('push_names = ["a=B"]\n', ":2: auth.push_names must be"),
        ('push_names = ["=b"]\n', ":2: auth.push_names must be"),
        ('trusted_proxies = ["localhost"]\n', ":2: auth.trusted_proxies must be a list of addresses and networks"),
        ('trusted_proxies = ["10.0.0.1/8"]\n', ":2: auth.trusted_proxies must be"),
    ],
)
def test_mistakes(write, text, line):
    file = write(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {}, {})
    assert str(caught.value).startswith(file + line)
