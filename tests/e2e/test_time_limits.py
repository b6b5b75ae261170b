"""The time limits: each ends what it is for, and leaves alone what the proxy is at work on.

A limit of a second stands against others of a minute and a test's patience of twenty seconds: what ends, ends by it.
"""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from lab.addresses import Address
from lab.fixtures import MakeImage, StartProxy
from lab.lab import Lab
from lab.origin import Gate, Origin, Reply
from lab.raw_http import connected, parse_response, read_head, read_to_end, tunnelled

pytestmark = pytest.mark.e2e

REGISTRY = "origin.lab.test"
TUNNELLED = "edge.lab.test"
SHORT = "1s"
UPLOAD = bytes(100_000_000)


def connect_request(name: str, port: int = 443) -> bytes:
    return f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode()


@contextlib.contextmanager
def full_backlog(address: Address) -> Iterator[None]:
    """Listen at an address that answers no SYN any more: its queue is full."""
    with socket.create_server(address, backlog=0) as server, contextlib.ExitStack() as waiting:
        del server
        for _ in range(4):
            filler = waiting.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        time.sleep(0.2)
        yield


@contextlib.contextmanager
def silent_server(lab: Lab, address: Address, *, tls: bool) -> Iterator[None]:
    """Accept connections, with TLS if wanted, and neither read nor write."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(lab.pki.certificate_file, lab.pki.key_file)
    held: list[socket.socket] = []

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                held.append(context.wrap_socket(connection, server_side=True) if tls else connection)

    with socket.create_server(address) as server:
        thread = threading.Thread(target=accept, args=(server,), daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


@contextlib.contextmanager
def echo_server(address: Address) -> Iterator[None]:
    """Send back what comes."""

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while piece := connection.recv(1000):
                connection.sendall(piece)

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(address) as server:
        thread = threading.Thread(target=accept, args=(server,), daemon=True)
        thread.start()
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


class TestHeads:
    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"CONNECT quay.io:443 HT", id="half a CONNECT"),
            pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nAcc", id="half a request"),
            pytest.param(connect_request(REGISTRY), id="no TLS"),
            pytest.param(connect_request(REGISTRY) + b"\x16\x03\x01\x02\x00\x01", id="half a TLS hello"),
        ],
    )
    def test_a_head_that_does_not_come_ends_the_connection(self, start_proxy: StartProxy, sent: bytes) -> None:
        """Of a CONNECT, of a TLS handshake, of a request."""
        with connected(start_proxy({"CLIENT_HEADER_TIMEOUT": SHORT}).address) as connection:
            connection.sendall(sent)

            read_to_end(connection)

    def test_a_head_that_drips_ends_the_connection(self, start_proxy: StartProxy, origin: Origin) -> None:
        """A byte now and then is no progress."""
        proxy = start_proxy({"CLIENT_HEADER_TIMEOUT": SHORT})
        with tunnelled(proxy.address, f"{REGISTRY}:443", proxy.ca_file) as connection:
            connection.settimeout(0.2)
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nX: ")
            for _ in range(100):
                try:
                    connection.sendall(b"x")
                    if connection.recv(1) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            else:
                pytest.fail("the connection was left open for 20 s")
        assert origin.log.count() == 0

    def test_an_idle_connection_is_another_matter(self, start_proxy: StartProxy, origin: Origin) -> None:
        """Between requests the time is that of keep-alive, and a connection is good until then."""
        proxy = start_proxy({"CLIENT_HEADER_TIMEOUT": SHORT})
        origin.serve("/v2/", Reply(b"{}"))
        request = f"GET /v2/ HTTP/1.1\r\nHost: {REGISTRY}\r\n\r\n".encode()
        with tunnelled(proxy.address, f"{REGISTRY}:443", proxy.ca_file) as idle:
            idle.sendall(request)
            assert read_head(idle).startswith(b"HTTP/1.1 200 ")
            assert idle.recv(2) == b"{}"
            with connected(proxy.address) as headless:
                read_to_end(headless)
            idle.sendall(request)
            assert read_head(idle).startswith(b"HTTP/1.1 200 ")

    def test_keep_alive_ends(self, start_proxy: StartProxy, origin: Origin) -> None:
        """After its own time."""
        proxy = start_proxy({"KEEPALIVE_TIMEOUT": SHORT})
        origin.serve("/v2/", Reply(b"{}"))
        with tunnelled(proxy.address, f"{REGISTRY}:443", proxy.ca_file) as idle:
            idle.sendall(f"GET /v2/ HTTP/1.1\r\nHost: {REGISTRY}\r\n\r\n".encode())

            assert read_to_end(idle).endswith(b"{}")


class TestUploads:
    HEAD = f"POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: {REGISTRY}\r\nContent-Length: 100000000\r\n\r\n".encode()

    @pytest.mark.usefixtures("origin")
    def test_a_client_that_stops_sending_is_cut(self, start_proxy: StartProxy) -> None:
        """CLIENT_BODY_TIMEOUT is the longest pause in a body."""
        proxy = start_proxy({"ALLOW_PUSH": "true", "CLIENT_BODY_TIMEOUT": SHORT})
        with tunnelled(proxy.address, f"{REGISTRY}:443", proxy.ca_file) as connection:
            connection.sendall(self.HEAD + b"abc")

            read_to_end(connection)

    def test_an_upstream_that_stops_reading_is_left(self, lab: Lab, start_proxy: StartProxy) -> None:
        """PROXY_SEND_TIMEOUT is the longest pause between two writes to it; the client is not kept waiting."""
        proxy = start_proxy({"ALLOW_PUSH": "true", "PROXY_SEND_TIMEOUT": SHORT})
        with (
            silent_server(lab, lab.addresses[REGISTRY], tls=True),
            tunnelled(proxy.address, f"{REGISTRY}:443", proxy.ca_file) as connection,
        ):
            connection.sendall(self.HEAD)
            with pytest.raises((BrokenPipeError, ConnectionResetError, ssl.SSLError)):
                connection.sendall(UPLOAD)


class TestUpstreams:
    @pytest.mark.parametrize("path", ["/v2/_catalog", "/v2/a/manifests/latest"])
    def test_one_that_says_nothing_is_given_up(self, lab: Lab, start_proxy: StartProxy, path: str) -> None:
        """PROXY_READ_TIMEOUT holds for what passes through mitmproxy and for what our own client asks."""
        proxy = start_proxy({"PROXY_READ_TIMEOUT": SHORT})
        with silent_server(lab, lab.addresses[REGISTRY], tls=True):
            answer = proxy.client().get(f"https://{REGISTRY}{path}")
        assert answer.status in {502, 504}

    @pytest.mark.parametrize("path", ["/v2/_catalog", "/v2/a/manifests/latest"])
    def test_one_that_cannot_be_connected_to_is_given_up(self, lab: Lab, start_proxy: StartProxy, path: str) -> None:
        """PROXY_CONNECT_TIMEOUT."""
        proxy = start_proxy({"PROXY_CONNECT_TIMEOUT": SHORT})
        with full_backlog(lab.addresses[REGISTRY]):
            answer = proxy.client().get(f"https://{REGISTRY}{path}")
        assert answer.status in {502, 504}

    def test_a_download_is_never_cut_by_the_limits_of_clients(
        self, start_proxy: StartProxy, origin: Origin, build_image: MakeImage
    ) -> None:
        """Who waits for a slow upstream is neither idle nor stalled: the proxy is at work for it."""
        proxy = start_proxy(
            dict.fromkeys(("KEEPALIVE_TIMEOUT", "CLIENT_HEADER_TIMEOUT", "SEND_TIMEOUT", "CLIENT_BODY_TIMEOUT"), SHORT)
        )
        image, gate = build_image(layers=1), Gate()
        origin.serve_image("a", "latest", image, Reply(hold_after_bytes=10, gate=gate))
        digest = max(image.blobs, key=lambda each: len(image.read(each)))
        with proxy.client().stream("GET", f"https://{REGISTRY}/v2/a/blobs/{digest}") as response:
            for _ in range(2):
                with connected(proxy.address) as headless:
                    read_to_end(headless)
            gate.open()
            assert response.read() == image.read(digest)


class TestTunnels:
    def test_a_silent_tunnel_ends_and_one_that_talks_stays(self, lab: Lab, start_proxy: StartProxy) -> None:
        """PROXY_CONNECT_READ_TIMEOUT is the longest silence."""
        proxy = start_proxy({"PROXY_CONNECT_READ_TIMEOUT": SHORT})
        with (
            echo_server(lab.addresses[TUNNELLED]),
            connected(proxy.address) as silent,
            connected(proxy.address) as talking,
        ):
            for tunnel in (silent, talking):
                tunnel.sendall(connect_request(TUNNELLED))
                assert read_head(tunnel).startswith(b"HTTP/1.1 200 ")
            ended = threading.Thread(target=read_to_end, args=(silent,))
            ended.start()
            for _ in range(100):
                talking.sendall(b"hello")
                assert talking.recv(5) == b"hello"
                ended.join(0.2)
                if not ended.is_alive():
                    break
            assert not ended.is_alive()
            talking.sendall(b"hello")
            assert talking.recv(5) == b"hello"

    def test_a_host_that_cannot_be_connected_to_is_502(self, lab: Lab, start_proxy: StartProxy) -> None:
        """PROXY_CONNECT_CONNECT_TIMEOUT; the answer says how long was waited."""
        proxy = start_proxy({"PROXY_CONNECT_CONNECT_TIMEOUT": SHORT})
        with full_backlog(lab.addresses[TUNNELLED]), connected(proxy.address) as connection:
            connection.sendall(connect_request(TUNNELLED))
            answer = parse_response(read_to_end(connection))
        assert answer.status == 502
        assert b"no progress for 1 s" in answer.body
        assert f"CONNECT '{TUNNELLED}:443' is refused with 502" in proxy.log
