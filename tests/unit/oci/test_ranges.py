"""Byte ranges, measured against slices of real bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.ranges import (
    ByteRange,
    ContentRange,
    Unsatisfiable,
    WholeBody,
    content_range,
    if_range_matches,
    parse_content_range,
    parse_range,
    unsatisfied_content_range,
)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # The six cases of the OCI conformance suite, on 2048 bytes.
        ("bytes=500-1499", ByteRange(500, 1499)),
        ("bytes=500-", ByteRange(500, 2047)),
        ("bytes=-500", ByteRange(1548, 2047)),
        ("bytes=2000-5000", ByteRange(2000, 2047)),
        ("bytes=500-0", Unsatisfiable()),
        ("bytes=5000-10000", Unsatisfiable()),
        # Edges.
        ("bytes=0-0", ByteRange(0, 0)),
        ("bytes=2047-2047", ByteRange(2047, 2047)),
        ("bytes=2047-", ByteRange(2047, 2047)),
        ("bytes=2048-", Unsatisfiable()),
        ("bytes=-1", ByteRange(2047, 2047)),
        ("bytes=-2048", ByteRange(0, 2047)),
        ("bytes=-5000", ByteRange(0, 2047)),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=0-" + "9" * 30, ByteRange(0, 2047)),
        # Allowed spellings.
        ("Bytes=0-9", ByteRange(0, 9)),
        (" bytes=0-9\t", ByteRange(0, 9)),
        ("bytes= 0-9 ,", ByteRange(0, 9)),
        # Ignored: absent, several, other units, malformed.
        (None, WholeBody()),
        ("", WholeBody()),
        ("bytes=0-1,5-6", WholeBody()),
        ("items=0-1", WholeBody()),
        ("bytes", WholeBody()),
        ("bytes=", WholeBody()),
        ("bytes=-", WholeBody()),
        ("bytes=a-b", WholeBody()),
        ("bytes=0-1-2", WholeBody()),
        ("bytes=--1", WholeBody()),
        ("bytes=+0-1", WholeBody()),
        ("bytes=\u0660-\u0661", WholeBody()),
        ("bytes=0x0-1", WholeBody()),
        ("bytes=0-1\n", WholeBody()),
        ("bytes=0-" + "9" * 5000, WholeBody()),
    ],
    ids=ascii,
)
def test_a_range_field_selects_bytes(header: str | None, expected: object) -> None:
    """Each form of the field gives the part, the refusal or the whole that RFC 9110 asks for."""
    assert parse_range(header, 2048) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [("bytes=0-", Unsatisfiable()), ("bytes=0-0", Unsatisfiable()), ("bytes=-5", WholeBody()), (None, WholeBody())],
)
def test_an_empty_body_has_no_parts(header: str | None, expected: object) -> None:
    """No range of an empty body is ever answered by 206."""
    assert parse_range(header, 0) == expected


@given(st.binary(max_size=40), st.integers(0, 50) | st.none(), st.integers(0, 50) | st.none())
def test_a_satisfiable_range_is_a_slice(body: bytes, first: int | None, last: int | None) -> None:
    """The selected bytes are those that Python's own slicing selects, and a refusal means there are none."""
    selected = parse_range(f"bytes={'' if first is None else first}-{'' if last is None else last}", len(body))
    suffix = body[-last:] if last else b""
    naive = suffix if first is None else body[first : None if last is None else last + 1]

    match selected:
        case ByteRange(start, end_inclusive):
            assert body[start : end_inclusive + 1] == naive
            assert selected.length_bytes == len(naive)
        case Unsatisfiable():
            assert naive == b""
        case WholeBody():
            assert (first, last) == (None, None) or body == b""


@given(st.text() | st.text(alphabet="bytes=0123456789-, *").map("bytes=".__add__), st.integers(0, 99))
def test_no_range_field_raises(header: str, size_bytes: int) -> None:
    """Whatever the field, there is an answer, and a range lies within the body."""
    selected = parse_range(header, size_bytes)

    if isinstance(selected, ByteRange):
        assert 0 <= selected.start <= selected.end_inclusive < size_bytes


def test_a_refused_range_tells_the_size() -> None:
    """The Content-Range of a 416 has the size, so that a client can ask again."""
    assert unsatisfied_content_range(2048) == "bytes */2048"


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 10**12))
def test_a_written_content_range_reads_back(start: int, more: int, rest: int) -> None:
    """What we send in a 206 is what we would understand from an upstream."""
    size_bytes = start + more + rest
    written = content_range(ByteRange(start, start + more), size_bytes)

    assert parse_content_range(written) == ContentRange(start, start + more, size_bytes)


def test_an_upstream_may_not_know_the_size() -> None:
    """A star in place of the size is understood as unknown."""
    assert parse_content_range("bytes 5-9/*") == ContentRange(5, 9, None)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "bytes */5",
        "bytes 5-4/10",
        "bytes 0-10/10",
        "bytes 0-9",
        "bytes=0-9/10",
        "0-9/10",
        "items 0-9/10",
        "bytes -5/10",
    ],
)
def test_a_wrong_content_range_is_refused(header: str) -> None:
    """A malformed or contradictory Content-Range raises, so that no bytes are put in the wrong place."""
    with pytest.raises(ValueError, match="Content-Range"):
        parse_content_range(header)


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        (None, True),
        ('"sha256:abc"', True),
        (' "sha256:abc" ', True),
        ('"sha256:other"', False),
        ('W/"sha256:abc"', False),
        ("sha256:abc", False),
        ("Sat, 21 Nov 2026 00:00:00 GMT", False),
        ("", False),
    ],
)
def test_if_range_compares_strongly(header: str | None, *, matches: bool) -> None:
    """Only the very same strong tag lets a range be honoured; weak tags and dates ask for the whole."""
    assert if_range_matches(header, '"sha256:abc"') is matches
