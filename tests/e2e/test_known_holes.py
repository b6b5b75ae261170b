"""Holes that others of this kind had, where no other test stands for them; docs/security.md has the list of all."""

from collections.abc import Iterator

import pytest

from lab.fixtures import StartProxy
from lab.lab import Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.raw_http import ask, parse_response, read_head, tunnelled

pytestmark = pytest.mark.e2e

REGISTRY = "origin.lab.test"
DIGEST = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def proxy(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy for this file: nothing here leaves anything in it."""
    with lab.proxy(tmp_path_factory.mktemp("proxy")) as running:
        yield running


class TestSideProtocols:
    """Squid's CVE-2026-47729 was in its FTP: nothing is spoken here but CONNECT, HTTPS and our own HTTP."""

    @pytest.mark.parametrize("target", ["ftp://192.0.2.1/x", "gopher://192.0.2.1/x", "file:///etc/passwd", "urn:x:y"])
    def test_another_scheme_is_refused(self, proxy: Proxy, target: str) -> None:
        """No gateway to other protocols, and no file of this machine."""
        answer = parse_response(ask(proxy.address, f"GET {target} HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n".encode()))
        assert answer.status == 400
        assert b"root:" not in answer.body

    @pytest.mark.parametrize(
        "greeting",
        [
            b"\x05\x01\x00",
            b"\x04\x01\x01\xbb\xc0\x00\x02\x01\x00",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"SSH-2.0-x\r\n",
        ],
        ids=["socks5", "socks4", "http2", "ssh"],
    )
    def test_another_greeting_opens_nothing(self, proxy: Proxy, greeting: bytes) -> None:
        """It is an HTTP error, or the end."""
        answer = ask(proxy.address, greeting + b"\r\n\r\n")
        assert answer == b"" or parse_response(answer).status >= 400

    @pytest.mark.parametrize("protocol", ["websocket", "h2c", "TLS/1.2"])
    def test_an_upgrade_is_not_agreed_to(self, proxy: Proxy, origin: Origin, protocol: str) -> None:
        """After a 101 nobody here would know where a message ends."""
        origin.serve("/v2/a/manifests/up", Reply(status=404))
        request = (
            f"GET /v2/a/manifests/up HTTP/1.1\r\nHost: {REGISTRY}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        with tunnelled(proxy.address, f"{REGISTRY}:443", proxy.ca_file) as connection:
            connection.sendall(request.encode())
            head = read_head(connection)
        assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 404 "))
        assert b"upgrade" not in head.lower()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_upstream_tls_off(start_proxy: StartProxy, origin: Origin, method: str) -> None:
    """Dragonfly's client verifies nothing for HEAD: here a certificate of strangers is refused for each method."""
    client = start_proxy({"UPSTREAM_CA_FILE": ""}).client()
    for path in (f"blobs/{DIGEST}", f"manifests/{DIGEST}", "manifests/latest", "tags/list"):
        assert client.request(method, f"https://{REGISTRY}/v2/a/{path}").status == 502
    assert origin.log.count() == 0
