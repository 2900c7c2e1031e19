"""Who may push and pull: who a request's credentials make its sender, and what each setting lets them do."""

import base64
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ConfigError, load
from proxy.errors import Denied, Unauthorized
from proxy.http import respond
from proxy.http.auth import Access, Caller, _credentials
from proxy.http.exchange import Exchange
from proxy.http.whence import whence
from tests.unit.callers import HERE, Counted, asked, auth, basic, write_users

USERS = "users"


@pytest.fixture
def users(tmp_path):
    return write_users(tmp_path)


@pytest.fixture
def check():
    return Counted()


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
    "Basic " + base64.b64encode(b"al\nice:s3cret").decode(),
]  # fmt: skip


@pytest.mark.parametrize("header", BAD_CREDENTIALS)
async def test_credentials_that_cannot_be_read_are_401(rules, check, header):
    with pytest.raises(Unauthorized):
        await rules.caller(asked(headers={**HERE, "Authorization": header}))
    assert check.calls == []


@given(header=st.text(max_size=60))
def test_any_header_is_401_or_a_caller(header):
    try:
        user, password = _credentials([f"Basic {header}"])
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
    monkeypatch.setitem(sys.modules, "bcrypt", None)
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
