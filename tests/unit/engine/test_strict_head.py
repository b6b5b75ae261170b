"""The gate before both parsers: what passes is understood alike by everybody, what is plain passes."""

import string

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mitmproxy.net.http import http1
from mitmproxy.net.http.validate import validate_headers

from regproxy.engine.request_head import END_OF_HEAD, read_plain_connect, read_plain_head
from regproxy.engine.strict_head import Fault, find_fault, named_by_connection

GOOD = b"GET /v2/a/manifests/b HTTP/1.1\r\nHost: quay.io"

FIELD_LINES = (
    *(b"Content-Length: 0", b"Content-Length: 5", b"content-length:0", b"Transfer-Encoding: chunked"),
    *(
        b"Transfer-Encoding: identity",
        b"X: y",
        b" z",
        b"X : y",
        b"X: a\nY: b",
        b"X: \0",
        b"X: \xe4",
        b"X:",
        b"X: \x0b1",
    ),
    *(b"Host: quay.io", b"Host: b", b"Connection: close, X", b"TE: trailers", b"Expect: 100-continue"),
    b"Authorization: \xe4",
)
LINES = st.lists(st.sampled_from(FIELD_LINES) | st.binary(max_size=12), max_size=4)
STARTS = st.builds(
    lambda method, target, version: f"{method} {target} {version}".encode(),
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "get", "CONNECT", "TRACE", "G T"]),
    st.text(string.ascii_letters + string.digits + '/?#%:@&=[]\\^`{|}<>" ;.~ä\t', max_size=12).map(
        lambda text: f"/{text}"
    )
    | st.sampled_from(["quay.io:443", "http://quay.io/v2/", "http://b/", "https://a@quay.io/", "*", "http:///", "x"]),
    st.sampled_from(["HTTP/1.1"] * 4 + ["HTTP/1.0", "HTTP/2.0", "HTTP/1.1 ", "http/1.1"]),
)
HEADS = st.builds(lambda start, lines: b"\r\n".join([start, b"Host: quay.io", *lines, b"", b""]), STARTS, LINES)


@given(HEADS | st.binary().map(lambda head: head + END_OF_HEAD))
@example(GOOD + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
@example(b"POST /token HTTP/1.1\r\nHost: quay.io\r\nTransfer-Encoding: chunked\r\n\r\n")
@example(b"POST /token HTTP/1.1\r\nHost: quay.io\r\nContent-Length: 5\r\n\r\n")
def test_what_passes_is_read_alike_by_mitmproxy_and_by_h11(head: bytes) -> None:
    """Method, target, fields, and where the body ends: three readers, one request."""
    if find_fault(head) is not None:
        return
    request = http1.read_request_head(head.removesuffix(END_OF_HEAD).split(b"\r\n"))
    validate_headers(request)
    if request.data.method == b"CONNECT" and "host" not in request.headers:
        return  # a deviation: old clients send none with a CONNECT
    other = h11.Connection(h11.SERVER)
    other.receive_data(head)
    event = other.next_event()
    assert isinstance(event, h11.Request)
    start = head.split(b" ")
    assert (event.method, event.target) == (request.data.method, start[1]) == (start[0], start[1])
    ours = [(name.lower(), value.lower()) for name, value in request.headers.fields]
    theirs = [(name, value.lower()) for name, value in event.headers]  # h11 writes `chunked` in small letters
    assert sorted(ours) == sorted(theirs)
    size = http1.expected_http_body_size(request)
    if request.data.method == b"CONNECT":
        return
    if size == 0:
        assert isinstance(other.next_event(), h11.EndOfMessage)
    elif size is None:
        other.receive_data(b"5\r\nhello\r\n0\r\n\r\n")
        assert [type(other.next_event()) for _ in range(2)] == [h11.Data, h11.EndOfMessage]
    else:
        assert size > 0
        assert other.next_event() is h11.NEED_DATA


@given(HEADS | st.binary().map(lambda head: head + END_OF_HEAD))
@example(GOOD + END_OF_HEAD)
@example(b"CONNECT quay.io:443 HTTP/1.1\r\n\r\n")
def test_what_is_plain_passes(head: bytes) -> None:
    """The warm connection answers nothing that mitmproxy's way would refuse."""
    text = head.removesuffix(END_OF_HEAD)
    if read_plain_head(text) is not None or read_plain_connect(text) is not None:
        assert find_fault(head) is None


@given(st.binary())
def test_nothing_raises(head: bytes) -> None:
    """Whatever comes, with or without an end."""
    assert find_fault(head) is None or isinstance(find_fault(head), Fault)


@pytest.mark.parametrize("value", [b" \x00", b"a \x01", b"\t \x0b", b"a ba \x7f"])
def test_a_hostile_head_takes_no_time(value: bytes) -> None:
    """A pattern that tries blanks in every way would stop the loop for an hour."""
    assert find_fault(GOOD + b"\r\nX:" + value.replace(b" ", b" " * 1_000_000) + END_OF_HEAD) is not None


@pytest.mark.parametrize(
    "options", [b"close", b"Keep-Alive", b"Upgrade, HTTP2-Settings", b"TE, close", b"close, X-Absent", b""]
)
def test_what_connection_may_name(options: bytes) -> None:
    """What is about the connection, and what is not there."""
    fields = b"\r\nUpgrade: h2c\r\nTE: trailers\r\nHTTP2-Settings: AA\r\nConnection: "
    assert find_fault(GOOD + fields + options + END_OF_HEAD) is None


def test_the_options_of_connection_are_in_lower_case() -> None:
    """They are compared with names of fields."""
    assert named_by_connection("Close, \tTE") == {"close", "te"}
