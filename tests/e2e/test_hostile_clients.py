"""Requests that no client of the field sends: what their client sees, by both doors and both of the engine's ways.

Each case is sent as the first request of a connection, which the warm connection reads, and behind a request that made
mitmproxy take the connection over. All four must see the same. A second request follows in the same bytes: it is
answered only where nobody can doubt where the first one ends. A bystander's connection, opened before, is served after
each case. The table is in docs/hostile-clients.md, too.
"""

from collections.abc import Iterator

import pytest

from lab.fixtures import StartOrigin
from lab.hostile_clients import NAME, Case, Talk, Target, read_answer, statuses_in
from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Reply
from lab.raw_http import read_to_end, tunnelled

pytestmark = pytest.mark.e2e

REST = "Host: {host}\r\n\r\n"
READ = "GET {path} HTTP/1.1\r\nHost: {host}\r\n"
SHA384 = "sha384:" + "a" * 96


def at(name: str, path: str, status: int = 400) -> Case:
    """Return a case that is a path alone: the request is read well, and the connection goes on."""
    return Case(name, f"GET {path} HTTP/1.1\r\n{REST}", status, ends=False)


def field(name: str, text: str, status: int = 400, *, ends: bool = True) -> Case:
    """Return a case that is one field of a good request."""
    return Case(name, f"{READ}{text}\r\n\r\n", status, ends)


PATHS = (
    at("an encoded slash", "{in}hostile%2Fclients/blobs/{digest}"),
    at("a slash encoded twice", "{in}hostile%252Fclients/blobs/{digest}"),
    at("an encoded backslash", "{in}hostile%5Cclients/blobs/{digest}"),
    at("dot segments", "{in}a/../hostile/clients/blobs/{digest}"),
    at("encoded dot segments", "{in}a/%2e%2E/hostile/clients/blobs/{digest}"),
    at("a dot segment at the end", "{in}hostile/clients/blobs/{digest}/."),
    at("an empty segment", "{in}hostile//clients/blobs/{digest}"),
    at("an encoded NUL", "{in}hostile/clients%00/blobs/{digest}"),
    at("an encoded line end", "{in}hostile/clients%0d%0aX:y/blobs/{digest}"),
    at("overlong UTF-8", "{in}hostile%c0%afclients/blobs/{digest}"),
    at("half an encoding", "{in}hostile/clients%2/blobs/{digest}"),
    at("a name of 10 kB", "{in}" + "a" * 10_000 + "/blobs/{digest}"),
    at("a name of 5,000 components", "{in}" + "a/" * 5_000 + "a/blobs/{digest}"),
    at("a tag of 10 kB", "{in}hostile/clients/manifests/" + "t" * 10_000),
    at("an unknown algorithm", "{in}hostile/clients/blobs/md5:" + "a" * 32),
    at("a known algorithm that we do not have", f"{{in}}hostile/clients/blobs/{SHA384}"),
    at("a short digest", "{in}hostile/clients/blobs/sha256:abc"),
    at("a digest in capitals", "{in}hostile/clients/blobs/sha256:" + "A" * 64),
    at("an algorithm in capitals", "{in}hostile/clients/blobs/SHA256:" + "a" * 64),
    at("a digest that is a path", "{in}hostile/clients/blobs/sha256:../../../etc/passwd"),
    at("a part behind the digest", "{in}hostile/clients/blobs/{digest}/x"),
    Case("a raw NUL", "GET {path}\0 HTTP/1.1\r\n" + REST, 400),
    Case("a raw backslash", "GET {in}hostile\\clients/blobs/{digest} HTTP/1.1\r\n" + REST, 400),
    Case("a fragment", "GET {path}#x HTTP/1.1\r\n" + REST, 400),
    Case("bytes that are not ASCII", "GET {in}h\xf6stile/blobs/{digest} HTTP/1.1\r\n" + REST, 400),
)

START_LINES = (
    Case("two blanks", "GET  {path} HTTP/1.1\r\n" + REST, 400),
    Case("a tab for a blank", "GET\t{path}\tHTTP/1.1\r\n" + REST, 400),
    Case("a form feed for a blank", "GET\f{path}\fHTTP/1.1\r\n" + REST, 400),
    Case("a blank at the end", "GET {path} HTTP/1.1 \r\n" + REST, 400),
    Case("no version", "GET {path}\r\n" + REST, 400),
    Case("HTTP/1.2", "GET {path} HTTP/1.2\r\n" + REST, 505),
    Case("HTTP/2.0 in words", "GET {path} HTTP/2.0\r\n" + REST, 505),
    Case("a method in small letters", "get {path} HTTP/1.1\r\n" + REST, 400),
    Case("a method that is none", "G(T {path} HTTP/1.1\r\n" + REST, 400),
    Case("TRACE", "TRACE {path} HTTP/1.1\r\n" + REST, 405, ends=False),
    Case("a method of WebDAV", "PROPFIND {path} HTTP/1.1\r\n" + REST, 405, ends=False),
    Case("a method nobody knows", "FROBNICATE {path} HTTP/1.1\r\n" + REST, 405, ends=False),
    Case("a target without a slash", "GET v2/ HTTP/1.1\r\n" + REST, 400),
    Case("an asterisk", "GET * HTTP/1.1\r\n" + REST, 400),
    Case("the URL of another scheme", "GET ftp://{host}{path} HTTP/1.1\r\n" + REST, 400),
    Case("the URL of another host", "GET http://other.lab.test{path} HTTP/1.1\r\n" + REST, 400),
    Case("a URL with a login", "GET http://a@{host}{path} HTTP/1.1\r\n" + REST, 400),
    Case("an empty request line", " \r\n" + REST, 400),
)

HOSTS = (
    Case("no Host", "GET {path} HTTP/1.1\r\n\r\n", 400),
    Case("two Hosts", f"{READ}Host: {{host}}\r\n\r\n", 400),
    Case("two Hosts that differ", f"{READ}Host: evil.example\r\n\r\n", 400),
    Case("an empty Host", "GET {path} HTTP/1.1\r\nHost:\r\n\r\n", 400),
    Case("a Host with a login", "GET {path} HTTP/1.1\r\nHost: a@{host}\r\n\r\n", 400),
    Case("a Host with a path", "GET {path} HTTP/1.1\r\nHost: {host}/x\r\n\r\n", 400),
    Case("a Host with a blank", "GET {path} HTTP/1.1\r\nHost: {host} x\r\n\r\n", 400),
    Case("two Hosts in one", "GET {path} HTTP/1.1\r\nHost: {host}, {host}\r\n\r\n", 400),
)

LENGTHS = (
    field("a GET with a body", "Content-Length: 5"),
    field("a GET with a body in chunks", "Transfer-Encoding: chunked"),
    Case("a HEAD with a body", "HEAD {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\n", 400),
    field("length and chunks (CL.TE)", "Content-Length: 6\r\nTransfer-Encoding: chunked"),
    field("chunks and length (TE.CL)", "Transfer-Encoding: chunked\r\nContent-Length: 6"),
    field("the same length twice", "Content-Length: 0\r\nContent-Length: 0"),
    field("two lengths", "Content-Length: 0\r\nContent-Length: 44"),
    field("two lengths in one", "Content-Length: 0, 0"),
    field("a length with a sign", "Content-Length: +0"),
    field("a length below zero", "Content-Length: -1"),
    field("a length in hexadecimal", "Content-Length: 0x0"),
    field("a length with zeros before it", "Content-Length: 00"),
    field("a length of 5,000 digits", "Content-Length: " + "1" * 5_000),
    field("an empty length", "Content-Length:"),
    field("a length with another script's digit", "Content-Length: \xb2"),
    field("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    field("chunked twice in one", "Transfer-Encoding: chunked, chunked"),
    field("identity", "Transfer-Encoding: identity"),
    field("a coding that is nearly chunked", "Transfer-Encoding: xchunked"),
    field("a coding behind chunked", "Transfer-Encoding: chunked, identity"),
    field("gzip and chunked", "Transfer-Encoding: gzip, chunked"),
    field("a coding in quotes", 'Transfer-Encoding: "chunked"'),
    field("a vertical tab before the coding", "Transfer-Encoding: \x0bchunked"),
    field("an empty coding", "Transfer-Encoding:"),
    Case("chunks in HTTP/1.0", "GET {path} HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
)

FIELDS = (
    field("a blank before the colon", "Content-Length : 60"),
    field("a tab before the colon", "Transfer-Encoding\t: chunked"),
    field("a folded line", "X: y\r\n Content-Length: 60"),
    field("a line folded by a tab", "X: y\r\n\tTransfer-Encoding: chunked"),
    Case("a folded line before all fields", "GET {path} HTTP/1.1\r\n X: y\r\n" + REST, 400),
    field("a bare LF between fields", "X: y\nContent-Length: 60"),
    Case("a head that ends with bare LFs", "GET {path} HTTP/1.1\r\nHost: {host}\r\nX: y\n\n", 400),
    Case("bare LFs alone", "GET {path} HTTP/1.1\nHost: {host}\n\n", 400),
    field("a bare CR between fields", "X: y\rContent-Length: 60"),
    field("a NUL in a value", "X: a\0b"),
    field("a control character in User-Agent", "User-Agent: a\x01b"),
    field("DEL in User-Agent", "User-Agent: a\x7fb"),
    field("no colon", "X"),
    field("an empty name", ": y"),
    field("a name that is no token", "X(y): z"),
    field("a name that is not ASCII", "X\xe4: z"),
    field("a name with a NUL", "Content-Length\0: 60"),
    field("a login that is not ASCII", "Authorization: Basic \xff\xfe"),
    field("Connection names Authorization", "Connection: close, Authorization\r\nAuthorization: Basic YTpi"),
    field("Connection names Host", "Connection: Host"),
    field("an Expect nobody knows", "Expect: a-miracle", 417),
    field("101 fields", "\r\n".join(["X: y"] * 100), 431),
    field("a head of 300 kB", "\r\n".join([f"X: {'y' * 30_000}"] * 10), 431),
)

KEPT = (
    field("a User-Agent that is no UTF-8", "User-Agent: caf\xe9/1.0", 200, ends=False),
    field("an Accept that is no UTF-8", "Accept: caf\xe9/*, */*", 200, ends=False),
    field(
        "an upgrade to h2c",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA",
        200,
        ends=False,
    ),
    field("an upgrade to a web socket", "Connection: upgrade\r\nUpgrade: websocket", 200, ends=False),
    field("a length of nothing", "Content-Length: 0", 200, ends=False),
    Case("an empty line first", "\r\n" + READ + "\r\n", 200, ends=False),
    Case("several ranges", READ + "Range: bytes=0-0,2-2\r\n\r\n", 200, ends=False),
    Case("a range of 10,000 digits", READ + f"Range: bytes=0-{'9' * 10_000}\r\n\r\n", 200, ends=False),
    Case("a range behind the end", READ + "Range: bytes=999999999-\r\n\r\n", 416, ends=False),
)

TABLE = (*PATHS, *START_LINES, *HOSTS, *LENGTHS, *FIELDS, *KEPT)


@pytest.fixture(scope="module")
def target(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Yield one proxy for all cases: nothing that they do may change it."""
    with lab.proxy(tmp_path_factory.mktemp("hostile"), {"NOT_FOUND_TIME": "60s"}) as proxy:
        yield Target(lab, proxy)
        assert "Traceback" not in proxy.log
        assert "crashed" not in proxy.log


@pytest.fixture(scope="module")
def bystander(target: Target) -> Iterator[Talk]:
    """Yield a connection that is there before all cases."""
    with target.connection("proxy") as talk:
        yield talk


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_each_way_gives_the_same_answer(target: Target, bystander: Talk, case: Case) -> None:
    """By either door, read by either parser; nothing of it reaches the registry, and others are served."""
    mark = target.log.mark()
    seen = {}
    for door in ("proxy", "mirror"):
        for handed_over in (False, True):
            with target.connection(door, handed_over=handed_over) as talk:
                seen[door, handed_over] = talk.statuses(case.sent)
    wanted = [case.status] if case.ends else [case.status, 404]
    assert seen == dict.fromkeys(seen, wanted)
    asked = {request.target for request in mark.requests()} - {"/v2/hostile/clients/manifests/absent"}
    assert asked <= {"/v2/canary/manifests/canary"}
    assert bystander.blob() == target.body


def test_an_upgrade_is_not_passed_on(target: Target, bystander: Talk, start_origin: StartOrigin) -> None:
    """What is between the client and the proxy stays there: no registry is asked to speak another protocol."""
    origin = start_origin("origin.lab.test")
    origin.serve("/v2/", Reply(b"{}"))
    head = (
        "GET /v2/_catalog HTTP/1.1\r\nHost: origin.lab.test\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nTE: trailers\r\n"
        "Keep-Alive: 5\r\nX-Kept: yes\r\nConnection: Upgrade, HTTP2-Settings, TE, Close\r\n\r\n"
    )
    with tunnelled(target.proxy.address, "origin.lab.test:443", target.proxy.ca_file) as connection:
        connection.sendall(head.encode())
        assert statuses_in(read_to_end(connection)) == [404]
    (fields,) = origin.heads
    assert fields["x-kept"] == "yes"
    assert {"upgrade", "http2-settings", "te", "keep-alive"}.isdisjoint(fields)
    assert fields["connection"] == "close"
    assert bystander.blob() == target.body


@pytest.mark.parametrize(
    ("agent", "sent"), [("caf\xe9/1.0", "caf?/1.0"), ("caf\xc3\xa9/1.0", "caf\xe9/1.0"), ("a\tb", "a b")]
)
def test_a_strange_user_agent_does_not_pass_by_the_cache(target: Target, lab: Lab, agent: str, sent: str) -> None:
    """It is answered from a download of the proxy's own, and then from the cache."""
    content = b"".join(random_chunks(f"agent {agent}", 100_000))
    path = f"/v2/{NAME}/blobs/{lab.storage.add_blob(NAME, [content])}"
    mark = target.log.mark()
    for _ in range(2):
        with target.connection("proxy") as talk:
            head = f"GET {path} HTTP/1.1\r\nHost: {talk.host}\r\nUser-Agent: {agent}\r\n\r\n"
            talk.send(head.encode("latin-1"))
            assert read_answer(talk.socket) == content
    (request,) = [each for each in mark.requests() if each.path == path]
    assert request.user_agent == sent
    assert '"upstream_cache_status":"BYPASS"' not in target.proxy.log


class TestBodies:
    """POST to a path that is none of the registry's API: how clients ask for tokens, and the one body that passes."""

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param("0x5\r\nhello\r\n0\r\n\r\n", id="a size with a prefix"),
            pytest.param("-5\r\nhello\r\n0\r\n\r\n", id="a size below zero"),
            pytest.param("5\nhello\n0\n\n", id="bare LFs"),
            pytest.param("5\r\nhelloX\r\n0\r\n\r\n", id="a chunk that is longer than it says"),
            pytest.param("f" * 21 + "\r\nhello\r\n0\r\n\r\n", id="a size of 84 bits"),
            pytest.param("\r\n5\r\nhello\r\n0\r\n\r\n", id="an empty size"),
            pytest.param("5\r\nhello\r\n0\r\nX: y\r\n\r\n", id="trailers"),
            pytest.param("0\r\nContent-Length: 60\r\n\r\n", id="a length among the trailers"),
        ],
    )
    def test_a_body_that_ends_in_doubt_cuts_the_connection(self, target: Target, bystander: Talk, body: str) -> None:
        """What follows is not read as a request, by the proxy or by the registry behind it."""
        mark = target.log.mark()
        with target.connection("proxy") as talk:
            statuses = talk.statuses(
                f"POST /v2/token HTTP/1.1\r\nHost: {{host}}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
            )
        assert len(statuses) <= 1
        assert not [request for request in mark.requests() if "canary" in request.path]
        assert bystander.blob() == target.body

    def test_a_good_body_passes(self, target: Target) -> None:
        """The cases above fail for what is wrong with them, not for being POST."""
        with target.connection("proxy") as talk:
            good = (
                "POST /v2/token HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            )
            assert talk.statuses(good) == [404, 404]
