"""Connections that begin at the front door: warm answers, mitmproxy behind them, and the way from one to the other."""

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from lab.debug_mode import debug_proxy, shown_flows
from lab.fixtures import StartOrigin, StartProxy
from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Reply
from lab.proxy import Proxy
from lab.raw_http import connected, read_head, read_to_end, tunnelled

pytestmark = pytest.mark.e2e

REGISTRY = "noauth.lab.test"
NAME = "front/door"
BLOB = b"".join(random_chunks("front door", 300_000))
TAGS = f"/v2/{NAME}/tags/list"


class Answers(Iterator[tuple[int, bytes]]):
    """Status and body of one answer after the other, from a connection that may send several in one piece."""

    def __init__(self, connection: socket.socket) -> None:
        self._file = connection.makefile("rb")

    def __next__(self) -> tuple[int, bytes]:
        status = self._file.readline().split()
        if not status:
            raise StopIteration
        fields = http.client.parse_headers(self._file)
        return int(status[1]), self._file.read(int(fields["Content-Length"]))


def get(target: str, *fields: str, host: str = REGISTRY) -> bytes:
    """Return a request."""
    return "\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]).encode()


class Warm:
    """A proxy that has one blob and not the other."""

    def __init__(self, lab: Lab, proxy: Proxy) -> None:
        self.lab = lab
        self.proxy = proxy
        self.path = f"/v2/{NAME}/blobs/{lab.storage.add_blob(NAME, [BLOB])}"
        self.log = lab.noauth.log
        assert proxy.client().get(f"https://{REGISTRY}{self.path}").body == BLOB
        assert proxy.client().get(f"https://{REGISTRY}/v2/").status == 200
        self.mark = self.log.mark()

    def cold_blob(self, seed: str) -> tuple[str, bytes]:
        """Return path and content of a blob that only the registry has."""
        content = b"".join(random_chunks(seed, 200_000))
        return f"/v2/{NAME}/blobs/{self.lab.storage.add_blob(NAME, [content])}", content

    @contextmanager
    def connection(self) -> Iterator[ssl.SSLSocket]:
        """Yield TLS to the registry through the proxy."""
        with tunnelled(self.proxy.address, f"{REGISTRY}:443", self.proxy.ca_file) as connection:
            yield connection


@pytest.fixture
def warm(lab: Lab, proxy: Proxy) -> Warm:
    return Warm(lab, proxy)


def assert_no_crash(proxy: Proxy) -> None:
    for sign in ("Traceback", "crashed", "never retrieved", "Task was destroyed", "failed"):
        assert sign not in proxy.log


class TestHandingOver:
    def test_one_connection_serves_what_is_at_hand_and_what_is_not(self, warm: Warm) -> None:
        """Warm answers, a miss that goes to the registry, warm ones again, a download, and that one warm."""
        cold, content = warm.cold_blob("one connection")
        with warm.connection() as connection:
            answers = Answers(connection)
            for target, expected in (
                (warm.path, (200, BLOB)),
                (warm.path, (200, BLOB)),
                (cold, (200, content)),
                (warm.path, (200, BLOB)),
                ("/v2/", (200, b"{}")),
                (cold, (200, content)),
                (warm.path, (200, BLOB)),
            ):
                connection.sendall(get(target))
                assert next(answers) == expected
            connection.sendall(get(TAGS))
            assert next(answers)[0] in (200, 404)  # a repository of blobs alone has no tags
            connection.sendall(get(warm.path, "Range: bytes=5-9"))
            assert next(answers) == (206, BLOB[5:10])
        asked = {request.path for request in warm.mark.requests()}
        assert asked == {cold, TAGS}
        assert_no_crash(warm.proxy)

    @pytest.mark.parametrize("pattern", ["wmw", "wwmmww", "mw", "mmm", "wm", "wtwtw"])
    def test_what_is_pipelined_is_answered_in_order(self, warm: Warm, pattern: str) -> None:
        """Warm (w), missing (m) and passed on (t), in one TLS record."""
        requests, expected = [], []
        for number, letter in enumerate(pattern):
            target, content = {
                "w": (warm.path, BLOB),
                "m": warm.cold_blob(f"pipelined {pattern} {number}"),
                "t": (f"{TAGS}?n={number + 1}", None),
            }[letter]
            requests.append(get(target))
            expected.append(content)
        with warm.connection() as connection:
            connection.sendall(b"".join(requests))
            answers = Answers(connection)
            for content in expected:
                status, body = next(answers)
                assert (status, body) == (200, content) if content is not None else status in (200, 404)
            connection.sendall(get(warm.path, "Connection: close"))
            assert next(answers) == (200, BLOB)
            assert list(answers) == []
        assert_no_crash(warm.proxy)

    def test_a_goodbye_behind_the_requests_hangs_nothing(self, warm: Warm) -> None:
        """close_notify in the same segment as a warm request and a miss: the first is answered, then it ends."""
        cold, _ = warm.cold_blob("goodbye")
        context = ssl.create_default_context(cafile=str(warm.proxy.ca_file))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=REGISTRY)
        with connected(warm.proxy.address) as connection:
            connection.sendall(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\n\r\n".encode())
            assert b" 200 " in read_head(connection)
            while tls.version() is None or outgoing.pending:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    connection.sendall(outgoing.read())
                    incoming.write(connection.recv(65536))
                else:
                    break
            tls.write(get(warm.path) + get(cold))
            with pytest.raises(ssl.SSLWantReadError):
                tls.unwrap()
            connection.sendall(outgoing.read())

            assert len(read_to_end(connection)) > len(BLOB)
        assert warm.proxy.readiness() == 200
        assert_no_crash(warm.proxy)

    def test_a_write_behind_warm_reads_is_refused_as_ever(self, warm: Warm) -> None:
        """The rules of the long way are the same after a hand-over: 405, and the body is not taken for a request."""
        upload = f"PUT {warm.path} HTTP/1.1\r\nHost: {REGISTRY}\r\nContent-Length: 1000\r\n\r\n".encode()
        with warm.connection() as connection:
            connection.sendall(get(warm.path) + upload + get(warm.path))
            received = read_to_end(connection)
        assert received.count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 405 " in received

    @pytest.mark.parametrize(
        "smuggled",
        [
            b"Content-Length: 60\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n3c\r\n",
            b"Content-Length : 60\r\n\r\n",
            b"X: y\n\n",
        ],
    )
    def test_a_request_in_the_body_of_another_is_not_answered(self, warm: Warm, smuggled: bytes) -> None:
        """One reader decides where a request ends, and a GET with a body is refused."""
        first = f"GET {warm.path} HTTP/1.1\r\nHost: {REGISTRY}\r\n".encode() + smuggled
        with warm.connection() as connection:
            connection.settimeout(5)
            connection.sendall(get("/v2/") + first + get("/v2/", "X-Second: 1", "Connection: close"))
            received = read_to_end(connection)
        after_ping = received.partition(b"{}")[2]
        assert after_ping.count(b"HTTP/1.1 ") == after_ping.count(b"HTTP/1.1 400 ") == 1


class TestOtherWays:
    def test_a_tunnel_begins_at_the_front_door_too(self, lab: Lab, proxy: Proxy, start_origin: StartOrigin) -> None:
        """CONNECT to a host that is no registry, with the ClientHello in the same segment: the host's own leaf."""
        edge = start_origin("edge.lab.test")
        edge.serve("/x", Reply(b"untouched"))
        context = ssl.create_default_context(cafile=str(lab.pki.ca_file))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname=edge.name)
        with connected(proxy.address) as connection:
            with pytest.raises(ssl.SSLWantReadError):
                tls.do_handshake()
            connection.sendall(f"CONNECT {edge.name}:443 HTTP/1.1\r\n\r\n".encode() + outgoing.read())
            assert b" 200 " in read_head(connection)
            incoming.write(connection.recv(65536))
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    incoming.write(connection.recv(65536))
            tls.write(get("/x", host=edge.name))
            connection.sendall(outgoing.read())
            received = b""
            while b"untouched" not in received:
                incoming.write(connection.recv(65536))
                with suppress(ssl.SSLWantReadError):
                    while True:
                        received += tls.read()
        assert edge.log.count(path_contains="/x") == 1

    def test_plain_http_behind_a_connect(self, warm: Warm) -> None:
        """A client that takes the registry for one without TLS: the stored blob is the same."""
        with connected(warm.proxy.address) as connection:
            connection.sendall(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\n\r\n".encode())
            assert b" 200 " in read_head(connection)
            connection.sendall(get(warm.path) + get(warm.path))
            answers = Answers(connection)
            assert [next(answers), next(answers)] == [(200, BLOB), (200, BLOB)]
        assert warm.mark.count() == 0

    def test_a_connect_with_its_plain_request_in_one_segment(self, warm: Warm) -> None:
        """No byte is lost between the answer to the CONNECT and mitmproxy."""
        with connected(warm.proxy.address) as connection:
            connection.sendall(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\n\r\n".encode() + get(warm.path))
            assert b" 200 " in read_head(connection)
            assert next(Answers(connection)) == (200, BLOB)

    def test_own_pages_and_forwarded_requests_are_mitmproxys(self, warm: Warm) -> None:
        """Origin-form and absolute-form, without a CONNECT, several on one connection."""
        with connected(warm.proxy.address) as connection:
            answers = Answers(connection)
            for _ in range(2):
                connection.sendall(get("/readyz", host=str(warm.proxy.address)))
                assert next(answers)[0] == 200
            connection.sendall(get(f"http://{REGISTRY}:443{warm.path}", host=f"{REGISTRY}:443"))
            assert next(answers) == (200, BLOB)
        assert warm.mark.count() == 0

    def test_what_begins_like_tls_and_is_none_is_told_in_one_line(self, warm: Warm) -> None:
        """And a client that does not trust the CA."""
        with connected(warm.proxy.address) as connection:
            connection.sendall(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\n\r\n\x16\x03\x01\x00\x05hello".encode())
            read_to_end(connection)
        with connected(warm.proxy.address) as connection:
            connection.sendall(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\n\r\n".encode())
            read_head(connection)
            with pytest.raises(ssl.SSLCertVerificationError):
                ssl.create_default_context().wrap_socket(connection, server_hostname=REGISTRY)
        while "unknown ca" not in warm.proxy.log:  # warnings go out with the next line of the access log
            assert warm.proxy.client().get(f"https://{REGISTRY}{warm.path}").body == BLOB
        lines = [line for line in warm.proxy.log.splitlines() if f"TLS for {REGISTRY} failed" in line]
        assert len(lines) == 2
        assert "unknown ca" in lines[1]
        assert "Traceback" not in warm.proxy.log


def test_many_clients_at_once(warm: Warm) -> None:
    """200 connections, all open before the first is answered; each asks for a blob, and once more."""
    context = ssl.create_default_context(cafile=str(warm.proxy.ca_file))
    with ExitStack() as cleanup:
        plain = [cleanup.enter_context(connected(warm.proxy.address)) for _ in range(200)]
        for each in plain:
            each.sendall(f"CONNECT {REGISTRY}:443 HTTP/1.1\r\n\r\n".encode())
        clients = []
        for each in plain:
            assert b" 200 " in read_head(each)
            clients.append(cleanup.enter_context(context.wrap_socket(each, server_hostname=REGISTRY)))
        for _ in range(2):
            for client in clients:
                client.sendall(get(warm.path))
            for client in clients:
                assert next(Answers(client)) == (200, BLOB)
    assert warm.mark.count() == 0
    assert_no_crash(warm.proxy)


def test_open_connections_do_not_hold_term_up(lab: Lab, proxy: Proxy) -> None:
    """Half a CONNECT, half a handshake, idle, half a request, a body that is not taken, and one handed over."""
    warm = Warm(lab, proxy)
    large = f"/v2/{NAME}/blobs/{lab.storage.add_blob(NAME, random_chunks('term', 40_000_000))}"
    assert proxy.client().get(f"https://{REGISTRY}{large}").status == 200
    connect = f"CONNECT {REGISTRY}:443 HTTP/1.1\r\n\r\n".encode()
    with ExitStack() as cleanup:
        for start in (b"", connect[:9], connect, connect + b"\x16\x03\x01\x02\x00\x01"):
            cleanup.enter_context(connected(proxy.address)).sendall(start)
        for requests in (b"", get(warm.path), get(warm.path)[:20], get(large), get(TAGS), get(TAGS) + get(large)):
            connection = cleanup.enter_context(warm.connection())
            connection.sendall(requests)
            if requests.endswith(b"\r\n"):
                assert connection.recv(1)
        assert proxy.stop() == 0
    assert_no_crash(proxy)


def test_with_a_user_interface_there_is_no_front_door(lab: Lab, start_proxy: StartProxy) -> None:
    """Every request is to be seen: what would be warm is a flow of mitmproxy's, too."""
    with debug_proxy(lab, start_proxy) as proxy:
        warm = Warm(lab, proxy)
        assert proxy.client().get(f"https://{REGISTRY}{warm.path}").body == BLOB
        flows = shown_flows(proxy)
    assert [flow["request"]["path"] for flow in flows].count(warm.path) == 2
    assert warm.mark.count() == 0
