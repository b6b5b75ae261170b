"""Byte ranges: which part of a blob a request asks for, and which part an answer holds.

RFC 9110 section 14 (Range, Content-Range) and 13.1.5 (If-Range). One range is honoured; several, other units and
malformed fields are answered by the whole body, which section 14.2 allows ("MAY ignore the Range header field").

Sizes are known here: a blob that is still arriving has its size from upstream. `multipart/byteranges` is not made.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WholeBody:
    """No range applies: answer 200 with everything."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """One satisfiable range: answer 206."""

    start: int
    """Position of the first byte, from 0."""

    end_inclusive: int
    """Position of the last byte, inside the body."""

    @property
    def length_bytes(self) -> int:
        """Number of bytes in the range, at least 1."""
        return self.end_inclusive - self.start + 1


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """No byte of the body is in the range: answer 416."""


@dataclass(frozen=True, slots=True)
class ContentRange:
    """What a 206 answer says it holds."""

    start: int

    end_inclusive: int

    size: int | None
    """Size of the whole body in bytes; None when the sender does not know it."""


# 30 digits are far above any size, and int() of thousands would cost time.
_POSITION = r"[0-9]{1,30}"
# range-unit is case-insensitive (14.1), list elements may be empty (5.6.1.2).
_SINGLE_RANGE = re.compile(rf"bytes=[ \t,]*(?P<first>{_POSITION})?-(?P<last>{_POSITION})?[ \t,]*", re.IGNORECASE)
_CONTENT_RANGE = re.compile(rf"bytes ({_POSITION})-({_POSITION})/(?:({_POSITION})|\*)", re.IGNORECASE)


def parse_range(header: str | None, size_bytes: int) -> WholeBody | ByteRange | Unsatisfiable:
    """Return what to answer to a `Range` field on a body of `size_bytes`; None is an absent field."""
    match = _SINGLE_RANGE.fullmatch(header.strip(" \t")) if header is not None else None
    if match is None:
        return WholeBody()
    match match["first"], match["last"]:
        case None, None:
            return WholeBody()
        case None, suffix:
            return _suffix(int(suffix), size_bytes)
        case first, None:
            return _clipped(int(first), size_bytes - 1, size_bytes)
        case first, last:
            return _clipped(int(first), int(last), size_bytes)


def content_range(byte_range: ByteRange, size_bytes: int) -> str:
    """Return the `Content-Range` of a 206 answer."""
    return f"bytes {byte_range.start}-{byte_range.end_inclusive}/{size_bytes}"


def unsatisfied_content_range(size_bytes: int) -> str:
    """Return the `Content-Range` of a 416 answer."""
    return f"bytes */{size_bytes}"


def parse_content_range(header: str) -> ContentRange:
    """Read the `Content-Range` of an upstream's 206; ValueError when it is malformed or contradicts itself."""
    match = _CONTENT_RANGE.fullmatch(header.strip(" \t"))
    if match is None:
        raise ValueError(f"Content-Range {header[:100]!r} is not of the form bytes first-last/size")
    start, end_inclusive = int(match[1]), int(match[2])
    size = int(match[3]) if match[3] else None
    # 14.4: invalid "if it contains a range-resp that has a last-pos value less than its first-pos value, or a
    # complete-length value less than or equal to its last-pos value".
    if end_inclusive < start or (size is not None and size <= end_inclusive):
        raise ValueError(f"Content-Range {header[:100]!r} contradicts itself")
    return ContentRange(start, end_inclusive, size)


def if_range_matches(header: str | None, etag: str) -> bool:
    """Whether the `Range` beside this `If-Range` may be honoured; `etag` is our own, quoted and strong.

    13.1.5 wants the strong comparison, so a weak tag never matches; neither does a date, since content by digest has
    no modification date. None is an absent field, which asks for no comparison.
    """
    return header is None or header.strip(" \t") == etag


def _suffix(length_bytes: int, size_bytes: int) -> WholeBody | ByteRange | Unsatisfiable:
    if length_bytes == 0:
        return Unsatisfiable()
    if size_bytes == 0:
        # 14.1.2 calls this satisfiable, but no Content-Range can name a part of nothing.
        return WholeBody()
    return ByteRange(max(0, size_bytes - length_bytes), size_bytes - 1)


def _clipped(first: int, last: int, size_bytes: int) -> ByteRange | Unsatisfiable:
    # 14.1.1 makes last < first invalid, which a server "MAY ignore or reject"; the OCI conformance suite wants 416.
    if first >= size_bytes or last < first:
        return Unsatisfiable()
    return ByteRange(first, min(last, size_bytes - 1))
