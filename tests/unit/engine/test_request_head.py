"""Plain heads: what is read is read as mitmproxy reads it, and everything odd is left to mitmproxy."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.net.http.validate import validate_headers

from regproxy.engine.request_head import (
    END_OF_HEAD,
    RequestHead,
    _host_in,
    read_plain_connect,
    read_plain_head,
)
from regproxy.oci.names import normalise_host
from regproxy.stack.reads import Read

GET = b"GET /v2/a/manifests/b HTTP/1.1"
PLAIN = GET + b"\r\nHost: quay.io"


def read_by_mitmproxy(head: bytes) -> http.Request:
    """Read a head as `Http1Server` does. Raises ValueError."""
    request = http1.read_request_head(head.split(b"\r\n"))
    validate_headers(request)
    return request


def assert_read_alike(read: RequestHead, request: http.Request) -> None:
    """Compare everything that decides about an answer."""
    assert (read.method, read.target, "HTTP/1.1") == (request.method, request.path, request.http_version)
    assert (request.host, request.authority, request.scheme) == ("", "", "")
    assert http1.expected_http_body_size(request) == 0
    fields = [(name.decode().lower(), value.decode()) for name, value in request.headers.fields]
    assert list(read.fields) == fields
    for name in {name for name, _ in fields} | {"absent"}:
        assert read.field(name) == request.headers.get(name)
        if not any("," in value for value in read.values(name)):
            assert list(read.values(name)) == request.headers.get_all(name)
    assert Read.of_head(read)._replace(accept=()) == Read.of_request(request)._replace(accept=())
    if http1.connection_close(request.http_version, request.headers):
        assert read.is_last


def test_a_plain_head_is_read() -> None:
    """A GET as dockerd sends it."""
    head = (
        b"GET /v2/a/blobs/sha256:ab?ns=docker.io&x=%41 HTTP/1.1\r\nHost: quay.io\r\nUser-Agent:  docker/27 (x; y)\t\r\n"
        b"Accept: a/b\r\naccept: c/d, e/f\r\nAccept-Encoding:\r\nConnection: Close"
    )

    read = read_plain_head(head)

    assert read is not None
    assert (read.method, read.target) == ("GET", "/v2/a/blobs/sha256:ab?ns=docker.io&x=%41")
    assert read.field("user-agent") == "docker/27 (x; y)"
    assert read.values("accept") == ("a/b", "c/d, e/f")
    assert (read.field("accept-encoding"), read.field("range")) == ("", None)
    assert read.is_last
    assert_read_alike(read, read_by_mitmproxy(head))


@pytest.mark.parametrize("option", ["keep-alive", "Keep-Alive", ""])
def test_a_connection_stays_unless_the_client_says_close(option: str) -> None:
    """Keep-alive is the default of HTTP/1.1, said or not."""
    read = read_plain_head(PLAIN + (f"\r\nConnection: {option}".encode() if option else b""))

    assert read is not None
    assert not read.is_last


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\r\n" + PLAIN, id="an empty line first"),
        pytest.param(b" " + PLAIN, id="a blank first"),
        pytest.param(PLAIN.replace(b"GET", b"get"), id="a method in lower case"),
        pytest.param(PLAIN.replace(b"GET", b"POST"), id="a write"),
        pytest.param(PLAIN.replace(b"GET", b"OPTIONS"), id="another read"),
        pytest.param(PLAIN.replace(b"GET /", b"GET  /"), id="two blanks"),
        pytest.param(PLAIN.replace(b"GET /", b"GET\t/"), id="a tab between"),
        pytest.param(PLAIN.replace(b" HTTP", b"  HTTP"), id="two blanks before the version"),
        pytest.param(PLAIN.replace(b"1.1\r", b"1.1 \r"), id="a blank behind the version"),
        pytest.param(PLAIN.replace(b"1.1\r", b"1.0\r"), id="HTTP/1.0"),
        pytest.param(PLAIN.replace(b"1.1\r", b"1.2\r"), id="HTTP/1.2"),
        pytest.param(PLAIN.replace(b"HTTP/1.1", b"HTTP/2.0"), id="HTTP/2.0"),
        pytest.param(PLAIN.replace(b"HTTP/1.1", b"http/1.1"), id="a version in lower case"),
        pytest.param(PLAIN.replace(b" HTTP/1.1", b""), id="no version"),
        pytest.param(PLAIN.replace(b"/v2/", b"https://quay.io/v2/"), id="absolute-form"),
        pytest.param(PLAIN.replace(b"/v2/a/manifests/b", b"quay.io:443"), id="authority-form"),
        pytest.param(PLAIN.replace(b"/v2/a/manifests/b", b"*"), id="asterisk-form"),
        pytest.param(PLAIN.replace(b"/b ", b"/b#c "), id="a fragment"),
        pytest.param(PLAIN.replace(b"/b ", b"\\b "), id="a backslash"),
        pytest.param(PLAIN.replace(b"/b ", b"/\xc3\xa4 "), id="a target that is not ASCII"),
        pytest.param(PLAIN.replace(b"/b ", b"/\x00 "), id="NUL in the target"),
        pytest.param(GET, id="no Host"),
        pytest.param(PLAIN + b"\r\nHost: quay.io", id="two Hosts"),
        pytest.param(PLAIN + b"\r\nhOST: evil.example", id="two Hosts in another case"),
        pytest.param(PLAIN.replace(b"quay.io", b"quay.io/x"), id="a Host with a path"),
        pytest.param(PLAIN.replace(b"quay.io", b""), id="an empty Host"),
        pytest.param(PLAIN + b"\r\nX: y" * 100, id="more than a hundred fields"),
        pytest.param(PLAIN + b"\r\nContent-Length: 0", id="Content-Length"),
        pytest.param(PLAIN + b"\r\ncontent-length: 5", id="Content-Length in lower case"),
        pytest.param(PLAIN + b"\r\nTransfer-Encoding: chunked", id="Transfer-Encoding"),
        pytest.param(PLAIN + b"\r\nTransfer-Encoding : chunked", id="a blank before the colon"),
        pytest.param(PLAIN + b"\r\nX\t: y", id="a tab before the colon"),
        pytest.param(PLAIN + b"\r\n X: y", id="a folded line"),
        pytest.param(PLAIN + b"\r\n\tX: y", id="a line folded by a tab"),
        pytest.param(PLAIN + b"\r\n: y", id="an empty name"),
        pytest.param(PLAIN + b"\r\nX", id="no colon"),
        pytest.param(PLAIN + b"\r\n", id="an empty line at the end"),
        pytest.param(PLAIN + b"\r\n\r\nX: y", id="an empty line between"),
        pytest.param(PLAIN + b"\nX: y", id="a bare LF"),
        pytest.param(PLAIN + b"\n\nGET / HTTP/1.1", id="an end of bare LFs"),
        pytest.param(PLAIN + b"\n\r\nX: y", id="an end of LF CR LF"),
        pytest.param(PLAIN + b"\rX: y", id="a bare CR"),
        pytest.param(PLAIN + b"\r\nX: y\r", id="a CR at the end"),
        pytest.param(PLAIN + b"\r\nX: a\x00b", id="NUL in a value"),
        pytest.param(PLAIN + b"\r\nX: a\x0bb", id="a control character in a value"),
        pytest.param(PLAIN + b"\r\nX: \x0ba", id="what bytes.strip takes for a blank"),
        pytest.param(PLAIN + b"\r\nX: \x7f", id="DEL"),
        pytest.param(PLAIN + b"\r\nX: \xe4", id="a value that is not ASCII"),
        pytest.param(PLAIN + b"\r\nX\xe4: y", id="a name that is not ASCII"),
        pytest.param(PLAIN + b"\r\nX(): y", id="a name that is no token"),
        pytest.param(PLAIN + b"\r\nConnection: upgrade", id="another connection option"),
        pytest.param(PLAIN + b"\r\nConnection: keep-alive, Range", id="a connection option that names a field"),
        pytest.param(PLAIN + b"\r\nConnection:", id="an empty connection option"),
        pytest.param(PLAIN + b"\r\nConnection: close\r\nConnection: X", id="two connection fields"),
        *(
            pytest.param(PLAIN + b"\r\n" + field + b": x", id=field.decode())
            for field in (b"Expect", b"Upgrade", b"Trailer", b"TE", b"Proxy-Authorization")
        ),
    ],
)
def test_what_is_odd_is_left_to_mitmproxy(head: bytes) -> None:
    """Right or wrong: there is one reader for it."""
    assert read_plain_head(head) is None


NAMES = (
    st.sampled_from(["Host", "host", "HOST", "Accept", "Range", "If-Range", "Connection", "Cache-Control", "a!"])
    | st.sampled_from(["Authorization", "Content-Length", "Transfer-Encoding", "Expect", "Proxy-Connection", "Pragma"])
).map(str.encode) | st.binary(max_size=6)
VALUES = st.sampled_from(
    ["quay.io", "close", "keep-alive", "Close", "chunked", "0", "bytes=0-1", "a, b", '"x"', "", "a\tb", "no-cache"]
).map(str.encode) | st.binary(max_size=12)
BLANKS = st.sampled_from([b" ", b"", b"  ", b"\t", b" \t "])
LINES = st.lists(
    st.tuples(NAMES, st.sampled_from([b":"] * 9 + [b" :", b"", b"::"]), BLANKS, VALUES, BLANKS).map(b"".join)
    | st.sampled_from([b"", b" folded", b"X: a\nY: b", b"X: \rY"]),
    max_size=6,
)
TARGETS = st.text(string.ascii_letters + string.digits + '/?#%:@&=[]\\^`{|}<>" ;.~ä\t', max_size=12)
STARTS = st.builds(
    lambda method, target, version: f"{method} {target} {version}".encode(),
    st.sampled_from(["GET", "HEAD", "GET", "HEAD", "get", "PUT", "CONNECT"]),
    TARGETS.map(lambda text: f"/{text}") | TARGETS,
    st.sampled_from(["HTTP/1.1"] * 5 + ["HTTP/1.0", "HTTP/1.1 ", "HTTP/11"]),
)
HEADS = st.builds(lambda start, lines: b"\r\n".join([start, b"Host: quay.io", *lines]), STARTS, LINES)


@given(HEADS | st.binary())
@example(PLAIN + b"\r\nRange: bytes=0-1\r\nRange: bytes=2-3")
@example(PLAIN + b"\r\nRange:\r\nRange: bytes=2-3")
@example(PLAIN + b"\r\nConnection: keep-alive\r\nConnection: close")
@example(PLAIN + b"\r\nCache-Control: a\r\nCache-Control: no-cache")
def test_what_is_read_is_read_as_by_mitmproxy(head: bytes) -> None:
    """Two readers that understand one request differently are how requests are smuggled."""
    read = read_plain_head(head)
    if read is not None:
        assert_read_alike(read, read_by_mitmproxy(head))
        assert END_OF_HEAD not in head
        assert b"\n" not in head.replace(b"\r\n", b"")  # mitmproxy ends lines, and heads, with a bare LF as well


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Accept", "Range", "If-Range", "Cache-Control", "Cookie", "Authorization", "X-Y"]),
            st.text(string.ascii_letters + ' ,;=-"\t', max_size=12),
        ),
        max_size=6,
    ),
    st.sampled_from(["/v2/", "/v2/a/blobs/sha256:ab?x=y", "/v2/%2e%2e//"]),
)
def test_a_plain_head_is_read_whatever_its_fields_say(fields: list[tuple[str, str]], target: str) -> None:
    """The comparison above is not empty: printable fields are read."""
    head = f"GET {target} HTTP/1.1\r\nHost: a\r\n" + "\r\n".join(f"{name}: {value}" for name, value in fields)

    read = read_plain_head(head.removesuffix("\r\n").encode())

    assert read is not None
    assert_read_alike(read, read_by_mitmproxy(head.removesuffix("\r\n").encode()))


@pytest.mark.parametrize("value", [b" \x00", b"a \x00", b" a\x00", b"\t \x00", b"a ba \x00"])
def test_a_hostile_head_takes_no_time(value: bytes) -> None:
    """A pattern that tries blanks in every way takes an hour for so many of them, in which nobody is served."""
    blanks = value.replace(b" ", b" " * 1_000_000)

    assert read_plain_head(PLAIN + b"\r\nX:" + blanks) is None
    assert read_plain_connect(b"CONNECT quay.io:443 HTTP/1.1\r\nX:" + blanks) is None


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("CONNECT quay.io:443 HTTP/1.1", ("quay.io", 443)),
        ("CONNECT Quay.IO.:0443 HTTP/1.0", ("quay.io", 443)),
        ("CONNECT 192.0.2.1:5000 HTTP/1.1", ("192.0.2.1", 5000)),
        ("CONNECT my_registry:65535 HTTP/1.1", ("my_registry", 65535)),
        ("CONNECT quay.io HTTP/1.1", None),
        ("CONNECT quay.io:0 HTTP/1.1", None),
        ("CONNECT quay.io:65536 HTTP/1.1", None),
        ("CONNECT quay.io:99999 HTTP/1.1", None),
        ("CONNECT .:443 HTTP/1.1", None),
        ("CONNECT a..b:443 HTTP/1.1", None),
        ("CONNECT quay.io..:443 HTTP/1.1", None),
        ("CONNECT -a:443 HTTP/1.1", None),
        (f"CONNECT {'a' * 64}.io:443 HTTP/1.1", None),
        ("CONNECT xn--bcher-kva.example:443 HTTP/1.1", ("xn--bcher-kva.example", 443)),
        ("CONNECT a.XN--bcher-kva.example:443 HTTP/1.1", ("a.xn--bcher-kva.example", 443)),
        ("CONNECT [::1]:443 HTTP/1.1", None),
        ("CONNECT user@quay.io:443 HTTP/1.1", None),
        ("CONNECT https://quay.io:443 HTTP/1.1", None),
        ("CONNECT quay.io:443/ HTTP/1.1", None),
        ("CONNECT quay.io:443 HTTP/2.0", None),
        ("CONNECT  quay.io:443 HTTP/1.1", None),
        ("connect quay.io:443 HTTP/1.1", None),
        ("GET quay.io:443 HTTP/1.1", None),
        ("CONNECT quay.io:443 HTTP/1.1\r\nProxy-Authorization: Basic eDp5", None),
        ("CONNECT quay.io:443 HTTP/1.1\r\nContent-Length: 3", None),
        ("CONNECT quay.io:443 HTTP/1.1\r\nTransfer-Encoding: chunked", None),
        ("CONNECT quay.io:443 HTTP/1.1\r\n folded", None),
        ("CONNECT quay.io:443 HTTP/1.1\r\nX : y", None),
        ("CONNECT quay.io:443 HTTP/1.1\nX: y", None),
        ("CONNECT quay.io:443 HTTP/1.1\r\nX: y\r\nHost: Quay.IO.", ("quay.io", 443)),
        ("CONNECT quay.io:443 HTTP/1.1\r\nHost: quay.io\r\nHost: quay.io", None),
        ("CONNECT quay.io:443 HTTP/1.1\r\nHost: ghcr.io:443", None),
        ("CONNECT quay.io:443 HTTP/1.1\r\nHost: a/b", None),
    ],
)
def test_a_plain_connect(start: str, expected: tuple[str, int] | None) -> None:
    """Host and port in normal form, or None for what mitmproxy is to read."""
    assert read_plain_connect(start.encode()) == expected


@given(
    st.text("abAB019._-:[]@xn", max_size=20) | st.from_regex(r"[a-zA-Z0-9_.-]{1,70}:[0-9]{1,5}", fullmatch=True),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/1.9"]),
    LINES,
)
def test_a_connect_is_read_as_by_mitmproxy(authority: str, version: str, lines: list[bytes]) -> None:
    """Or not at all: `connect_layer` reads with the same function, and makes the host lower case without a dot."""
    head = b"\r\n".join([f"CONNECT {authority} {version}".encode(), *lines])
    read = read_plain_connect(head)
    if read is not None:
        request = http1.read_request_head(head.split(b"\r\n"))
        assert read == (request.host.lower().removesuffix("."), request.port)
        assert read[0] == normalise_host(read[0])
        assert request.method == "CONNECT"


def test_long_hosts_are_not_kept_in_memory() -> None:
    """A hostile client could fill it with 64 KiB each."""
    kept = _host_in.cache_info().currsize
    for number in range(3):
        head = f"GET /v2/ HTTP/1.1\r\nHost: {number}{'.a' * 1000}".encode()
        assert read_plain_head(head) is None
    assert _host_in.cache_info().currsize == kept
