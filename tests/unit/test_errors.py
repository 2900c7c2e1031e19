"""An error's sentence is safe in a status line whatever is in it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import errors
from proxy.errors import RegistryError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RegistryError)]
ANY = st.text(st.characters(exclude_categories=()), max_size=300)


def make(kind, message):
    return kind(message, 7) if kind in (errors.RangeUnsatisfiable, errors.UploadOutOfOrder) else kind(message)


@given(ANY | st.text("\r\n\t\0\x7f\x85\u2028 a", max_size=300))
def test_any_sentence_is_one_printable_ascii_line(message):
    reason = RegistryError(message).reason()
    assert len(reason) <= 200
    assert all(" " <= c <= "~" for c in reason)
    assert json.loads(RegistryError(message).body(message))["errors"][0]["code"] == "UNKNOWN"


def test_a_long_sentence_says_that_it_was_cut():
    assert RegistryError("x" * 300).reason().endswith("xxx...")
    assert RegistryError("x" * 190).reason() == "tidegate: " + "x" * 190


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_code_a_status_and_a_body(kind):
    error = make(kind, "a sentence")
    assert 400 <= error.status <= 599
    assert error.reason() == f"tidegate: {error.message}"
    assert error.message.startswith("a sentence")
    assert json.loads(error.body()) == {"errors": [{"code": kind.code, "message": error.message, "detail": ""}]}


def test_not_now_is_never_not_there():
    assert errors.Unavailable("x").status == 503
    assert errors.Unavailable("x").retry_after == 5
    assert {kind.status for kind in KINDS if kind.result == "not_found"} == {404}
