"""What is intercepted, tunnelled, forwarded or refused at the proxy's port."""

import base64
import json
import re
import socket
import ssl
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lab.addresses import free_port
from lab.fixtures import StartOrigin, StartProxy
from lab.http_client import Client, ProxyRoute
from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.raw_http import ask, connected, parse_response, read_to_end, tunnelled

pytestmark = pytest.mark.e2e

DIGEST = "sha256:" + "a" * 64
REGISTRY = "origin.lab.test"


@pytest.fixture(scope="module")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy for this file: nothing here leaves anything in it."""
    with lab.proxy(tmp_path_factory.mktemp("proxy")) as running:
        yield running


def connect_answer(proxy: Proxy, authority: str) -> tuple[int, str]:
    """Return status and text of the answer to a CONNECT that is refused."""
    request = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()
    answer = parse_response(ask(proxy.address, request))
    return answer.status, answer.body.decode()


def peer_certificate(proxy: Proxy, authority: str, lab: Lab) -> bytes:
    """Return the certificate that a client sees behind a CONNECT, which must be one of the lab's."""
    with tunnelled(proxy.address, authority, lab.pki.ca_file) as connection:
        return connection.getpeercert(binary_form=True) or b""


def ask_inside(proxy: Proxy, authority: str, request: str) -> bytes:
    """Send a request's text inside an intercepted CONNECT and return all that comes back."""
    with tunnelled(proxy.address, authority, proxy.ca_file) as connection:
        connection.sendall(request.encode("latin-1"))
        return read_to_end(connection)


def flood(connection: socket.socket, start: bytes) -> None:
    """Send a head of 100 MB without an end."""
    connection.sendall(start)
    for number in range(12_500):
        connection.sendall(b"X-%d: %s\r\n" % (number, b"x" * 8000))


def _closing(request: str, host: str) -> str:
    """Return a request's head that asks for the end of the connection."""
    return f"{request} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"


def error_of(body: bytes) -> dict[str, str]:
    """Return the one error of an OCI error body."""
    (error,) = json.loads(body)["errors"]
    assert isinstance(error, dict)
    return error


class TestTunnels:
    def test_an_unlisted_host_is_tunnelled_untouched(self, lab: Lab, proxy: Proxy, start_origin: StartOrigin) -> None:
        """The certificate behind a CONNECT to a host that is no registry is the upstream's own."""
        edge = start_origin("edge.lab.test")
        edge.serve("/page", Reply(b"untouched"))
        client = Client(ProxyRoute(proxy.address, lab.pki.ca_file))
        assert client.get("https://edge.lab.test/page", {"Host": "any.thing"}).body == b"untouched"
        assert edge.log.requests()[0].host == "any.thing"
        own = x509.load_pem_x509_certificate(lab.pki.certificate_file.read_bytes()).public_bytes(Encoding.DER)
        assert peer_certificate(proxy, "edge.lab.test:443", lab) == own

    def test_a_registry_is_intercepted_with_a_leaf_of_our_ca(self, lab: Lab, proxy: Proxy, origin: Origin) -> None:
        """A client that trusts only the upstream's CA refuses the connection to a listed registry."""
        origin.serve("/v2/", Reply(b"{}"))
        assert proxy.client().get(f"https://{REGISTRY}/v2/").status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            peer_certificate(proxy, f"{REGISTRY}:443", lab)

    def test_bytes_that_are_not_tls_pass_a_tunnel(self, start_proxy: StartProxy) -> None:
        """A tunnel carries any protocol in both directions, also when its end speaks first."""
        proxy = start_proxy({"UPSTREAM_MAPPINGS": f"mail.lab.test=127.0.0.1:{(port := free_port())}"})
        with socket.create_server(("127.0.0.1", port)) as server, connected(proxy.address) as client:
            client.sendall(b"CONNECT mail.lab.test:25 HTTP/1.1\r\n\r\n")
            end, _ = server.accept()
            with end:
                end.sendall(b"220 ready\r\n")
                greeting = b""
                while not greeting.endswith(b"ready\r\n"):
                    greeting += client.recv(1000)
                client.sendall(b"HELO\r\n")
                assert end.recv(1000) == b"HELO\r\n"

    @pytest.mark.parametrize(
        "authority",
        [
            pytest.param("127.0.0.1:{open}", id="loopback"),
            pytest.param("127.1:{open}", id="loopback in short"),
            pytest.param("2130706433:{open}", id="loopback as one number"),
            pytest.param("[::1]:{open}", id="loopback of IPv6"),
            pytest.param("[::ffff:127.0.0.1]:{open}", id="loopback inside IPv6"),
            pytest.param("localhost:{open}", id="localhost"),
            pytest.param("LOCALHOST.:{open}", id="localhost with capitals and dot"),
            pytest.param("0.0.0.0:{open}", id="unspecified"),
            pytest.param("169.254.169.254:80", id="metadata"),
            pytest.param("[fd00:ec2::254]:80", id="metadata of IPv6"),
            pytest.param("[fe80::1]:80", id="link-local"),
            pytest.param("127.0.0.1:{own}", id="the proxy itself"),
        ],
    )
    def test_an_address_of_this_machine_is_refused_with_a_reason(self, proxy: Proxy, authority: str) -> None:
        """CONNECT to loopback, link-local and metadata addresses is 403, and nothing is connected to."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            target = authority.format(open=server.getsockname()[1], own=proxy.address.port)
            status, text = connect_answer(proxy, target)
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
        assert status == 403
        assert re.search("loopback|link-local|metadata|unspecified|itself", text)
        assert "TRUSTED_HOSTS" in text

    def test_the_proxy_itself_is_refused_under_any_name(self, start_proxy: StartProxy) -> None:
        """A CONNECT that would come back to the proxy is 403, however the operator named the address."""
        proxy = start_proxy({"TRUSTED_HOSTS": "localhost 127.0.0.1 me.lab.test"}, start=False)
        proxy.settings["UPSTREAM_MAPPINGS"] = f"me.lab.test=127.0.0.1:{proxy.address.port}"
        proxy.start()
        for authority in (f"localhost:{proxy.address.port}", f"127.0.0.1:{proxy.address.port}", "me.lab.test:443"):
            status, text = connect_answer(proxy, authority)
            assert (status, "itself" in text) == (403, True), authority

    def test_a_trusted_address_is_tunnelled(self, lab: Lab, start_proxy: StartProxy, start_origin: StartOrigin) -> None:
        """A loopback address in TRUSTED_HOSTS is reached, and the one beside it is not."""
        edge = start_origin("edge.lab.test")
        edge.serve("/page", Reply(b"reached"))
        proxy = start_proxy({"TRUSTED_HOSTS": edge.address.host})
        client = Client(ProxyRoute(proxy.address, lab.pki.ca_file))
        assert client.get(f"https://{edge.address}/page").body == b"reached"
        assert connect_answer(proxy, f"{lab.addresses['edge2.lab.test']}")[0] == 403

    def test_a_closed_port_is_502(self, start_proxy: StartProxy) -> None:
        """A tunnel that cannot be made says so, and names the target."""
        proxy = start_proxy({"UPSTREAM_MAPPINGS": f"down.lab.test=127.0.0.1:{free_port()}"})
        status, text = connect_answer(proxy, "down.lab.test:443")
        assert (status, "down.lab.test:443" in text) == (502, True)


class TestForwarding:
    def test_a_plain_http_request_is_forwarded(self, lab: Lab, start_proxy: StartProxy) -> None:
        """An absolute-form request to a host that is no registry gets that host's answer."""
        digest = lab.storage.add_blob("plain/forwarded", random_chunks("forwarded", 300_000))
        backend = f"{lab.noauth.address.host}:5000"
        proxy = start_proxy({"UPSTREAM_MAPPINGS": f"web.lab.test={backend}"})
        mark = lab.noauth.log.mark()
        bodies = [proxy.request("GET", f"http://web.lab.test/v2/plain/forwarded/blobs/{digest}") for _ in range(2)]
        assert [len(answer.body) for answer in bodies] == [300_000, 300_000]
        assert proxy.request("HEAD", "http://web.lab.test/v2/").status == 200
        assert "X-Docker-Registry-Proxy-Cache-Type" not in bodies[1].headers
        assert mark.count() == 0

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "127.1"])
    def test_a_plain_http_request_to_this_machine_is_refused(self, proxy: Proxy, host: str) -> None:
        """Forwarding leads to no loopback or metadata address, and nothing is connected to."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            answer = proxy.request("GET", f"http://{host}:{server.getsockname()[1]}/secret")
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
        assert answer.status == 403
        assert re.search(b"loopback|metadata|link-local", answer.body)

    def test_the_proxy_does_not_forward_to_itself(self, proxy: Proxy) -> None:
        """A request that names the proxy's own address in absolute form ends here and makes no loop."""
        answer = proxy.request("GET", f"http://{proxy.address}/healthz")
        assert answer.status == 403
        assert proxy.readiness() == 200

    def test_a_connection_to_the_port_is_not_a_way_around_the_rules(self, lab: Lab, proxy: Proxy) -> None:
        """CONNECT as a later request, in small letters, in two pieces or inside TLS is decided like any other."""
        target = lab.addresses["edge.lab.test"]
        connect = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
        ways = (b"GET /healthz HTTP/1.1\r\nHost: p\r\n\r\n" + connect, connect.lower(), b"\r\n" + connect)
        with socket.create_server(target) as server:
            for way in ways:
                assert b"Connection established" not in ask(proxy.address, way)
            with connected(proxy.address) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in connect:
                    connection.sendall(bytes([byte]))
                received = read_to_end(connection)
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
        assert parse_response(received).status == 403

    def test_a_connect_in_pieces_to_a_registry_is_intercepted(self, proxy: Proxy, origin: Origin) -> None:
        """A head that arrives byte by byte is one head."""
        origin.serve("/v2/", Reply(b"{}"))
        context = ssl.create_default_context(cafile=str(proxy.ca_file))
        with connected(proxy.address) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"CONNECT origin.lab.test:443 HTTP/1.1\r\n\r\n":
                plain.sendall(bytes([byte]))
            assert plain.recv(1000).startswith(b"HTTP/1.1 200 ")
            with context.wrap_socket(plain, server_hostname=REGISTRY) as connection:
                connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: origin.lab.test\r\nConnection: close\r\n\r\n")
                assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")


class TestGarbage:
    @pytest.mark.parametrize(
        "garbage",
        [
            pytest.param(b"\x00" * 5000, id="zeros"),
            pytest.param(b"\xff" * 9 + b"\r\n\r\n", id="no text"),
            pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="ssh"),
            pytest.param(b"GET\r\n\r\n", id="half a request line"),
            pytest.param(b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", id="unknown version"),
            pytest.param(b"GET / HTTP/1.1\r\nno colon\r\n\r\n", id="broken field"),
            pytest.param(b"CONNECT HTTP/1.1\r\n\r\n", id="connect to nothing"),
            pytest.param(b"CONNECT :443 HTTP/1.1\r\n\r\n", id="connect without host"),
            pytest.param(b"CONNECT host:99999 HTTP/1.1\r\n\r\n", id="connect to port 99999"),
            pytest.param(b"CONNECT host HTTP/1.1\r\n\r\n", id="connect without port"),
            pytest.param(b"CONNECT [::1 HTTP/1.1\r\n\r\n", id="connect to half an address"),
            pytest.param(b"CONNECT " + b"a" * 300 + b".test:443 HTTP/1.1\r\n\r\n", id="connect to a long label"),
            pytest.param(b"CONNECT h\xc3\xa4.test:443 HTTP/1.1\r\n\r\n", id="connect to raw UTF-8"),
            pytest.param(b"CONNECT a..b:443 HTTP/1.1\r\n\r\n", id="connect to an empty label"),
            pytest.param(b"COPY /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", id="a method like connect"),
        ],
    )
    def test_is_answered_with_an_error_or_nothing(self, proxy: Proxy, garbage: bytes) -> None:
        """Garbage ends its own connection, is no traceback in the log, and the proxy goes on."""
        with connected(proxy.address) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            received = read_to_end(connection)
        assert not received or 400 <= parse_response(received).status < 600
        assert proxy.readiness() == 200
        assert "Traceback" not in proxy.log

    def test_tls_on_the_port_is_not_a_second_door(self, proxy: Proxy) -> None:
        """A client that speaks TLS to the proxy's plain port is not let in with some other certificate."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with connected(proxy.address) as plain, pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(plain, server_hostname="localhost")
        assert proxy.readiness() == 200

    @pytest.mark.parametrize("door", ["connect", "plain"])
    def test_a_giant_head_is_refused(self, proxy: Proxy, door: str) -> None:
        """A head of megabytes is answered 431 or 400 before it is complete, and costs no memory."""
        start = f"CONNECT {REGISTRY}:443" if door == "connect" else f"GET http://{REGISTRY}/v2/"
        with connected(proxy.address) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
            flood(connection, f"{start} HTTP/1.1\r\n".encode())
        assert proxy.readiness() == 200


class TestRequests:
    def test_another_host_than_the_connection_s_is_421(self, proxy: Proxy, origin: Origin) -> None:
        """The upstream is chosen by the CONNECT authority alone."""
        answer = proxy.client().get(f"https://{REGISTRY}/v2/", {"Host": "noauth.lab.test"})
        assert (answer.status, error_of(answer.body)["code"]) == (421, "UNSUPPORTED")
        absolute = ask_inside(proxy, f"{REGISTRY}:443", _closing("GET https://noauth.lab.test/v2/", "noauth.lab.test"))
        assert absolute.startswith((b"HTTP/1.1 421 ", b"HTTP/1.1 400 "))
        assert origin.log.count() == 0

    @pytest.mark.parametrize(
        ("path", "code"),
        [
            pytest.param(f"/v2/a%2Fb/blobs/{DIGEST}", "NAME_INVALID", id="encoded slash"),
            pytest.param(f"/v2/a%5cb/blobs/{DIGEST}", "NAME_INVALID", id="encoded backslash"),
            pytest.param(f"/v2/a/../b/blobs/{DIGEST}", "NAME_INVALID", id="dot segments"),
            pytest.param(f"/v2/a/%2e%2e/b/blobs/{DIGEST}", "NAME_INVALID", id="encoded dot segments"),
            pytest.param(f"/v2/a%00/blobs/{DIGEST}", "NAME_INVALID", id="NUL"),
            pytest.param(f"/v2/A/blobs/{DIGEST}", "NAME_INVALID", id="capitals"),
            pytest.param("/v2/a/blobs/sha256:abc", "DIGEST_INVALID", id="short digest"),
            pytest.param("/v2/a/blobs/md5:" + "a" * 32, "DIGEST_INVALID", id="unknown algorithm"),
            pytest.param("/v2/a/manifests/" + "t" * 129, "MANIFEST_INVALID", id="long tag"),
        ],
    )
    def test_a_path_outside_the_grammar_is_400(self, proxy: Proxy, origin: Origin, path: str, code: str) -> None:
        """What no registry may be asked is answered here as the specification says, and goes nowhere."""
        answer = proxy.client().get(f"https://{REGISTRY}{path}")
        assert (answer.status, error_of(answer.body)["code"]) == (400, code)
        assert answer.header("Content-Type").startswith("application/json")
        assert origin.log.count() == 0

    @pytest.mark.parametrize(
        "fields", ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
    )
    def test_a_get_with_a_body_is_400(self, proxy: Proxy, origin: Origin, fields: str) -> None:
        """A body where none is defined is refused, and the connection ends so that it is not read as a request."""
        head = f"GET /v2/a/blobs/{DIGEST} HTTP/1.1\r\nHost: {REGISTRY}\r\n"
        received = ask_inside(proxy, f"{REGISTRY}:443", head + fields)
        assert parse_response(received).status == 400
        assert received.count(b"HTTP/1.1 ") == 1
        assert origin.log.count() == 0

    def test_two_lengths_are_refused(self, proxy: Proxy, origin: Origin) -> None:
        """A request that two readers could end at different places reaches no upstream."""
        received = ask_inside(
            proxy,
            f"{REGISTRY}:443",
            f"POST /token HTTP/1.1\r\nHost: {REGISTRY}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
            "0\r\n\r\n",
        )
        assert parse_response(received).status == 400
        assert origin.log.count() == 0

    def test_a_registry_that_is_down_is_a_clear_error(self, proxy: Proxy) -> None:
        """A cold pull from a registry that does not answer names it in an OCI error."""
        answer = proxy.client().get(f"https://{REGISTRY}/v2/a/manifests/latest")
        assert answer.status == 502
        assert REGISTRY in error_of(answer.body)["message"]


def test_the_credentials_of_a_client_for_the_proxy_go_no_further(proxy: Proxy, origin: Origin) -> None:
    """Proxy-Authorization is for the proxy, which wants none, and is not shown to the registry."""
    field = {"Proxy-Authorization": "Basic " + base64.b64encode(b"me:hidden").decode()}
    origin.serve("/v2/", Reply(b"{}"))
    assert proxy.client().get(f"https://{REGISTRY}/v2/", field).status == 200
    assert "hidden" not in proxy.log
