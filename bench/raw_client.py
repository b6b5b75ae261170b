"""The least of an HTTP client: a connection to a URL, by CONNECT or plain forwarding if there is a proxy.

For the clients of our own, which must see the first byte of a body or read it slowly, as no finished client lets them.
"""

import argparse
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_CONNECT_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class Resource:
    """A URL and the way to it."""

    url: str
    ca_file: Path
    proxy: str | None

    @property
    def host(self) -> str:
        """The name or address in the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def authority(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc

    @property
    def is_tls(self) -> bool:
        """Whether the URL is https."""
        return urlsplit(self.url).scheme == "https"

    @property
    def first_hop(self) -> tuple[str, int]:
        """Where to connect to."""
        host, _, port = (self.proxy or self.authority).rpartition(":")
        return host, int(port)

    def get(self, path: str | None = None) -> bytes:
        """Return the request for the URL, or for another path on its host."""
        parts = urlsplit(self.url)
        wanted = parts._replace(scheme="", netloc="").geturl() if path is None else path
        target = f"{parts.scheme}://{self.authority}{wanted}" if self.proxy and not self.is_tls else wanted
        accept = "application/vnd.oci.image.manifest.v1+json" if "/manifests/" in wanted else "*/*"
        return f"GET {target} HTTP/1.1\r\nHost: {self.authority}\r\nAccept: {accept}\r\n\r\n".encode()

    def connect_request(self) -> bytes | None:
        """Return the CONNECT to send first, None when there is none to send."""
        if self.proxy is None or not self.is_tls:
            return None
        return f"CONNECT {self.authority} HTTP/1.1\r\nHost: {self.authority}\r\n\r\n".encode()

    def tls_context(self) -> ssl.SSLContext:
        """Return what checks the certificate, without the strictness of Python 3.13: Squid's leaves fail at it."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `resource_of` reads."""
    parser.add_argument("url")
    parser.add_argument("--ca-file", type=Path, required=True)
    parser.add_argument("--proxy", metavar="HOST:PORT")


def resource_of(chosen: argparse.Namespace) -> Resource:
    """Return the resource that the command line names."""
    return Resource(chosen.url, chosen.ca_file, chosen.proxy)


def open_connection(resource: Resource, context: ssl.SSLContext | None = None) -> socket.socket:
    """Return a connection on which requests can be sent; OSError when there is none."""
    connection = socket.create_connection(resource.first_hop, timeout=_CONNECT_LIMIT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        request = resource.connect_request()
        if request is not None:
            connection.sendall(request)
            expect_ok(read_head(connection)[0])
        if not resource.is_tls:
            return connection
        return (context or resource.tls_context()).wrap_socket(connection, server_hostname=resource.host)
    except BaseException:
        connection.close()
        raise


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return an answer's head and what came with it; ConnectionError when the connection ends before."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(16384)
        if not piece:
            raise ConnectionError(f"the connection ended inside the head: {received[:80]!r}")
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def status_of(head: bytes) -> int:
    """Return the status of an answer."""
    return int(head.split(b" ", 2)[1])


def expect_ok(head: bytes) -> None:
    """Raise ConnectionError when an answer is no 200."""
    if status_of(head) != 200:
        raise ConnectionError(f"the answer is {head[:80]!r}")


def length_of(head: bytes) -> int:
    """Return the announced length of an answer's body; ConnectionError when there is none."""
    for line in head.split(b"\r\n")[1:]:
        name, _, text = line.partition(b":")
        if name.lower() == b"content-length":
            return int(text)
    raise ConnectionError("the answer has no Content-Length")
