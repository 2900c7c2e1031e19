"""A hash that another process goes on with is the hash of the whole."""

import hashlib
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store import hashing
from proxy.store.hashing import Resumable, fresh, resumed

ALGORITHMS = ["sha256", "sha512"]


def test_this_python_can_hand_on():
    assert isinstance(fresh("sha256"), Resumable), "else the tests below show nothing"


@given(st.sampled_from(ALGORITHMS), st.lists(st.binary(max_size=300), max_size=8))
def test_put_down_and_taken_up_between_any_two_bytes(algorithm, chunks):
    hasher = fresh(algorithm)
    for number, chunk in enumerate(chunks):
        hasher.update(chunk)
        assert hasher.hexdigest() == hashlib.new(algorithm, b"".join(chunks[: number + 1])).hexdigest()
        hasher = resumed(algorithm, hasher.state())
    assert hasher.hexdigest() == hashlib.new(algorithm, b"".join(chunks)).hexdigest()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_process_goes_on(algorithm):
    first, second = os.urandom(100_001), os.urandom(50)
    hasher = fresh(algorithm)
    hasher.update(first)
    program = (
        "import sys; from proxy.store.hashing import resumed;"
        "hasher = resumed(sys.argv[1], bytes.fromhex(sys.argv[2]));"
        "hasher.update(bytes.fromhex(sys.argv[3])); print(hasher.hexdigest())"
    )
    command = [sys.executable, "-c", program, algorithm, hasher.state().hex(), second.hex()]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert found == hashlib.new(algorithm, first + second).hexdigest()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("size", [0, 1, 111, 113, 512, 10_000])
def test_a_state_of_another_size_is_none(algorithm, size):
    assert resumed(algorithm, bytes(size)) is None


@pytest.mark.parametrize("library", ["no such function", "no such file", "another layout", "no ctypes"])
def test_without_these_functions_hashlib_does(monkeypatch, library):
    monkeypatch.setattr(hashing, "_library", hashing._library.__wrapped__)
    match library:
        case "no such function":
            monkeypatch.setattr("ctypes.CDLL", lambda path: object())
        case "no such file":
            monkeypatch.setattr(hashing._hashlib, "__file__", "/nowhere/at/all.so")
        case "no ctypes":
            monkeypatch.setattr(hashing, "ctypes", None)
        case "another layout":
            monkeypatch.setattr(hashing, "_STATE", {"sha256": 40, "sha512": 64})
    hasher = fresh("sha256")
    hasher.update(b"abc")
    assert not isinstance(hasher, Resumable)
    assert hasher.hexdigest() == hashlib.sha256(b"abc").hexdigest()
    assert resumed("sha256", bytes(112)) is None
