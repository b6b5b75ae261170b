"""Ranges and paths, beside what well-known libraries make of them.

Where the two differ on purpose the test says so: ours refuses, or takes the whole body, and never takes another part.
"""

import posixpath
import re
import string
from urllib.parse import unquote

import yarl
from hypothesis import assume, example, given
from hypothesis import strategies as st
from werkzeug.http import parse_content_range_header, parse_range_header

from regproxy.oci.endpoint import Blob, EndpointError, Manifest, Other, build_path, parse_endpoint
from regproxy.oci.ranges import ByteRange, Unsatisfiable, WholeBody, parse_content_range, parse_range

POSITIONS = st.integers(0, 6000).map(str) | st.sampled_from(["", "00", "007"])
RANGES = st.builds(
    lambda unit, first, dash, last: f"{unit}{first}{dash}{last}",
    st.sampled_from(["bytes=", "bytes=", "Bytes=", "bytes =", "items=", ""]),
    POSITIONS,
    st.sampled_from(["-", "-", "-", " - ", ","]),
    POSITIONS,
)


@given(RANGES | st.text("bytes=-0123456789, ", max_size=20), st.integers(1, 5000))
@example("bytes=0-0", 1)
@example("bytes=-1", 1)
@example("bytes=4999-", 5000)
def test_a_range_is_werkzeugs_or_the_whole(field: str, size_bytes: int) -> None:
    """Werkzeug's parser and our own name the same bytes, or ours takes all or none."""
    ours = parse_range(field, size_bytes)
    if not isinstance(ours, ByteRange):
        return
    assume(not re.search(r",", field))  # an empty element is none for us (RFC 9110 section 5.6.1.2), an error for it
    theirs = parse_range_header(field.lower())
    assert theirs is not None
    found = theirs.range_for_length(size_bytes)
    # A suffix longer than the body is all of it (RFC 9110 section 14.1.2); Werkzeug takes it for none.
    longer_suffix = found is None and theirs.ranges[0][0] < -size_bytes
    assert longer_suffix or found == (ours.start, ours.end_inclusive + 1)


@given(st.integers(0, 6000), st.integers(0, 6000), st.integers(1, 5000))
def test_what_werkzeug_satisfies_we_do(first: int, last: int, size_bytes: int) -> None:
    """All three forms, with all positions."""
    for field in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        theirs = parse_range_header(field)
        found = None if theirs is None else theirs.range_for_length(size_bytes)
        match parse_range(field, size_bytes):
            case ByteRange(start, end):
                # A suffix longer than the body is all of it (RFC 9110 section 14.1.2); Werkzeug takes it for none.
                assert found == (start, end + 1) or (found is None and field == f"bytes=-{last}" and last > size_bytes)
            case Unsatisfiable():
                # `-0` is no byte for us and all for it; a backward range is none for both
                assert found is None or field == "bytes=-0"
            case WholeBody():
                raise AssertionError(field)


@given(
    st.text("bytes 0123456789-/*", max_size=24) | st.from_regex(r"bytes \d{1,4}-\d{1,4}/(\d{1,5}|\*)", fullmatch=True)
)
def test_a_content_range_is_werkzeugs(field: str) -> None:
    """What we accept of an upstream, it reads alike."""
    try:
        ours = parse_content_range(field)
    except ValueError:
        return
    theirs = parse_content_range_header(field.strip())
    assert theirs is not None
    assert (theirs.start, theirs.stop, theirs.length) == (ours.start, ours.end_inclusive + 1, ours.size)


SEGMENTS = st.sampled_from(
    ["v2", "V2", "%76%32", "a", "b", "", ".", "..", "%2e%2e", "%2F", "%252F", "manifests", "blobs"]
)
PATHS = st.lists(
    SEGMENTS | st.sampled_from(["tags", "list", "latest", "sha256:" + "a" * 64, "v2%2Fa", ";x"]), min_size=1, max_size=7
).map(lambda parts: "/" + "/".join(parts))
CONTENT = re.compile(r"/v2/.+/(manifests|blobs)/[^/]+")


@given(PATHS | st.text(string.printable, max_size=30).map(lambda text: f"/{text}"))
@example("/v2/a/manifests/latest")
@example("/%76%32/a/manifests/latest")
@example("//v2/a/manifests/latest")
@example("/v2%2Fa%2Fmanifests%2Flatest")
@example("/x/../v2/a/manifests/latest")
def test_a_path_is_yarls_or_refused(path: str) -> None:
    """Content for us is the same content for yarl and posixpath; what they take for content is never passed by."""
    try:
        endpoint = parse_endpoint("GET", path)
    except EndpointError:
        return
    plain = path.partition("?")[0]
    if isinstance(endpoint, Blob | Manifest):
        canonical = build_path(endpoint)
        assert yarl.URL.build(path=plain, encoded=True).path == canonical == posixpath.normpath(canonical)
    elif isinstance(endpoint, Other):
        normal = "/" + posixpath.normpath(unquote(unquote(plain)).replace("\\", "/")).lstrip("/")
        assert not CONTENT.fullmatch(normal) or "uploads" in normal
