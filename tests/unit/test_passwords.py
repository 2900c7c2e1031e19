"""The users file in its forms and mistakes, and what a password costs: bcrypt's checks are counted, never timed."""

import asyncio
import os

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ConfigError
from proxy.errors import Unavailable
from proxy.http import passwords
from proxy.http.htpasswd import UsersFile, parse
from proxy.http.passwords import Passwords
from tests.unit.callers import APACHE, Counted, hashed, write_users


@pytest.fixture
def users(tmp_path):
    return write_users(tmp_path)


# The users file


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


@pytest.mark.parametrize(("content", "line"), WRONG_FILES, ids=range(len(WRONG_FILES)))
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
        UsersFile(str(tmp_path / "nope"))


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


# What a password costs


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
