"""Range against a model that lists the bytes one by one, and Content-Range as upstreams send it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import RangeUnsatisfiable
from proxy.oci.ranges import ContentRange, Wanted, parse_content_range, parse_range

NUMBER = st.integers(0, 12)


def model(first, last, size):
    """RFC 9110 section 14.1.2, byte by byte."""
    if first is None:
        return list(range(size))[-last:] if last else []
    return [at for at in range(size) if at >= first and (last is None or at <= last)]


@given(st.none() | NUMBER, st.none() | NUMBER, NUMBER)
def test_a_range_is_what_the_model_says(first, last, size):
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    wanted = parse_range(header)
    if (first is None and last is None) or (None not in (first, last) and last < first):
        assert wanted is None
        return
    assert wanted == Wanted(first, last)
    expected = model(first, last, size)
    if not expected:
        with pytest.raises(RangeUnsatisfiable) as refused:
            wanted.within(size)
        assert refused.value.size == size
        assert refused.value.status == 416
        return
    span = wanted.within(size)
    assert list(range(span.start, span.stop)) == expected
    assert span.length == len(expected)


@given(st.text(max_size=30) | st.from_regex(r"bytes=[0-9,\- ]{0,25}", fullmatch=True))
def test_any_header_is_one_range_or_none(header):
    wanted = parse_range(header)
    if wanted is not None:
        assert wanted.first is None or wanted.first >= 0
        assert "," not in header


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes=", "bytes=-", "bytes=1-0", "bytes=0-1,3-4", "bytes=a-b", "bytes=0x1-2", "items=0-1"]
    + ["bytes=--1", "bytes=1--2", "bytes= 0-1", "bytes=\u0661-", f"bytes={'9' * 20}-", f"bytes=0-{'9' * 5000}", "0-1"],
)
def test_what_is_no_single_range_means_the_whole(header):
    assert parse_range(header) is None


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("bytes 0-0/1", ContentRange(0, 1, 1)),
        ("bytes 5-9/10", ContentRange(5, 10, 10)),
        (" bytes 5-9/* ", ContentRange(5, 10, None)),
        ("bytes */10", ContentRange(None, None, 10)),
        ("bytes */0", ContentRange(None, None, 0)),
    ],
)
def test_content_range(header, said):
    assert parse_content_range(header) == said


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes 0-1", "bytes 0-/9", "bytes -1/9", "bytes=0-1/9", "items 0-1/2", "bytes 0-1/2 x"]
    + ["bytes 0-1/\u0662", f"bytes 0-1/{'9' * 5000}"]
    # RFC 9110 section 14.4: last before first, or a length the range does not fit into, makes the field invalid.
    + ["bytes 5-4/10", "bytes 5-10/10", "bytes 0-0/0"],
)
def test_what_is_no_content_range(header):
    assert parse_content_range(header) is None


@given(st.text(max_size=40))
def test_any_content_range_is_consistent_or_none(header):
    said = parse_content_range(header)
    assert said is None or said.start is None or said.start < said.stop
