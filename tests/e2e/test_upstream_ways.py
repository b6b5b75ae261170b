"""Other ways to an upstream: through a proxy, by other name servers, without verification."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lab.addresses import Address
from lab.fixtures import StartProxy
from lab.lab import Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.raw_http import tunnelled
from lab.tunnel import BlindProxy

pytestmark = pytest.mark.e2e

REGISTRY = "origin.lab.test"
TUNNELLED = "edge.lab.test"
OCI = "application/vnd.oci.image.manifest.v1+json"
PATHS = ("/v2/a/manifests/latest", "/v2/_catalog")
"""One that our own client asks for, one that mitmproxy passes on."""


@pytest.fixture
def registry(origin: Origin) -> Origin:
    """Answer both ways."""
    origin.serve(PATHS[0], Reply(b"{}", headers={"Content-Type": OCI}))
    origin.serve(PATHS[1], Reply(b'{"repositories":[]}'))
    return origin


def statuses(proxy: Proxy, authority: str = REGISTRY) -> list[int]:
    return [proxy.client().get(f"https://{authority}{path}").status for path in PATHS]


@contextlib.contextmanager
def name_server(host: str, names: Mapping[str, str]) -> Iterator[list[str]]:
    """Answer A questions at port 53 of a loopback address; yield the names that were asked for."""
    asked: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind((host, 53))
        except PermissionError:
            pytest.skip("only root may be a name server at port 53")
        server.settimeout(0.1)
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    question, client = server.recvfrom(1000)
                    server.sendto(_answer(question, names, asked), client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield asked
        finally:
            stopping.set()
            thread.join()


def _answer(question: bytes, names: Mapping[str, str], asked: list[str]) -> bytes:
    """Return an answer of RFC 1035 to one question."""
    labels, position = [], 12
    while (length := question[position]) != 0:
        labels.append(question[position + 1 : position + 1 + length].decode())
        position += 1 + length
    end = position + 5
    name, (kind,) = ".".join(labels).lower(), struct.unpack("!H", question[position + 1 : position + 3])
    asked.append(name)
    address = names.get(name) if kind == 1 else None
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(address) if address else b""
    code = 0 if name in names else 3
    return question[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, bool(address), 0, 0) + question[12:end] + record


class TestProxy:
    @pytest.mark.usefixtures("registry")
    def test_everything_goes_through_it(self, lab: Lab, start_proxy: StartProxy, blind_proxy: BlindProxy) -> None:
        """Our own requests, those of mitmproxy, and tunnels; no name is looked up here."""
        way = f"http://me:s3cret@{blind_proxy.address}"
        proxy = start_proxy({"HTTPS_PROXY": way, "UPSTREAM_MAPPINGS": ""})

        assert statuses(proxy) == [200, 200]
        with (
            lab.origin(TUNNELLED) as edge,
            tunnelled(proxy.address, f"{TUNNELLED}:443", lab.pki.ca_file) as connection,
        ):
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {TUNNELLED}\r\nConnection: close\r\n\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 404"
            assert edge.log.count() == 1
        assert blind_proxy.connects == [f"{REGISTRY}:443", f"{REGISTRY}:443", f"{TUNNELLED}:443"]
        assert "s3cret" not in proxy.log

    @pytest.mark.usefixtures("registry")
    def test_exceptions_and_mapped_names_do_not(self, start_proxy: StartProxy, blind_proxy: BlindProxy) -> None:
        """NO_PROXY, and what the operator leads elsewhere by hand."""
        way = f"http://{blind_proxy.address}"

        assert statuses(start_proxy({"https_proxy": way})) == [200, 200]
        excepted = start_proxy({"HTTPS_PROXY": way, "NO_PROXY": ".lab.test", "UPSTREAM_MAPPINGS": ""})
        assert statuses(excepted) == [502, 502]
        assert blind_proxy.connects == []

    def test_a_tunnel_that_it_refuses_is_502(self, start_proxy: StartProxy, blind_proxy: BlindProxy) -> None:
        """With its status, and no login in the words."""
        proxy = start_proxy({"HTTPS_PROXY": f"http://me:s3cret@{blind_proxy.address}", "UPSTREAM_MAPPINGS": ""})

        with (
            pytest.raises(OSError, match="502"),
            tunnelled(proxy.address, "unknown.example:443", proxy.ca_file),
        ):
            pass
        assert f"http://{blind_proxy.address} refused the tunnel (403)" in proxy.log
        assert "s3cret" not in proxy.log

    def test_this_machine_is_not_reached_through_it(self, start_proxy: StartProxy, blind_proxy: BlindProxy) -> None:
        """An address that may not be asked for is not asked of another proxy either."""
        proxy = start_proxy({"HTTPS_PROXY": f"http://{blind_proxy.address}"})

        with pytest.raises(OSError, match="403"), tunnelled(proxy.address, "169.254.169.254:443", proxy.ca_file):
            pass
        assert blind_proxy.connects == []

    @pytest.mark.usefixtures("registry")
    def test_a_proxy_that_is_ourselves_is_not_used(self, start_proxy: StartProxy) -> None:
        """The environment of clients, given to the proxy as well, makes no loop; it is said."""
        proxy = start_proxy(start=False)
        proxy.settings["HTTPS_PROXY"] = f"http://localhost:{proxy.address.port}"
        proxy.start()

        assert statuses(proxy) == [200, 200]
        assert "is this proxy itself and is not used" in proxy.log


class TestVerification:
    @pytest.mark.usefixtures("registry")
    def test_one_host_may_be_excepted(self, start_proxy: StartProxy) -> None:
        """By its name, wherever it is mapped to; another with the same authority is not trusted."""
        proxy = start_proxy({"UPSTREAM_CA_FILE": "", "VERIFY_SSL_EXCEPT": f"{REGISTRY}:443"})

        assert statuses(proxy) == [200, 200]
        assert statuses(proxy, f"{REGISTRY}:5443") == [502, 502]


class TestNameServers:
    @pytest.mark.usefixtures("registry")
    def test_the_predecessors_file_names_them(self, lab: Lab, start_proxy: StartProxy, tmp_path: Path) -> None:
        """Both ways ask the server that it names."""
        address: Address = lab.addresses[REGISTRY]
        resolvers = tmp_path / "resolvers.conf"
        host = lab.addresses["edge2.lab.test"].host
        resolvers.write_text(f"resolver {host} ipv6=off valid=30s;\n")
        with name_server(host, {REGISTRY: address.host}) as asked:
            proxy = start_proxy({"RESOLVERS_FILE": str(resolvers), "UPSTREAM_MAPPINGS": ""})

            assert statuses(proxy, f"{REGISTRY}:{address.port}") == [200, 200]
        assert REGISTRY in asked
