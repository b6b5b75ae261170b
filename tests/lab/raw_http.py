"""What a well-behaved HTTP client cannot send: bytes as a test wrote them, to a port or inside a CONNECT."""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from lab.addresses import Address
from lab.http_client import Response

_TIMEOUT_S = 20.0
_PIECE_BYTES = 64 * 1024


@contextlib.contextmanager
def connected(address: Address) -> Iterator[socket.socket]:
    """Yield a plain connection that is closed afterwards."""
    with socket.create_connection(address, timeout=_TIMEOUT_S) as connection:
        yield connection


@contextlib.contextmanager
def tunnelled(proxy: Address, authority: str, ca_file: Path) -> Iterator[ssl.SSLSocket]:
    """Yield TLS with whoever answers behind a CONNECT to `host:port`; OSError when the proxy refuses it."""
    with connected(proxy) as plain:
        plain.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        head = read_head(plain)
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise OSError(head.decode("latin-1"))
        context = ssl.create_default_context(cafile=str(ca_file))
        name = authority.rpartition(":")[0].strip("[]")
        with context.wrap_socket(plain, server_hostname=name) as connection:
            yield connection


def read_to_end(connection: socket.socket) -> bytes:
    """Return all that comes until the other end closes or resets; TimeoutError when it does neither."""
    received = bytearray()
    with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
        while piece := connection.recv(_PIECE_BYTES):
            received += piece
    return bytes(received)


def ask(address: Address, request: bytes) -> bytes:
    """Send bytes and return all that comes back until the connection ends."""
    with connected(address) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(request)
        return read_to_end(connection)


def parse_response(received: bytes, *, method: str = "GET") -> Response:
    """Return the one response that these bytes are; http.client.HTTPException when they are none."""
    response = http.client.HTTPResponse(_Received(received), method=method)  # type: ignore[arg-type]
    with response:
        response.begin()
        return Response(response.status, response.headers, response.read())


class _Received:
    """What http.client wants of a socket."""

    def __init__(self, received: bytes) -> None:
        self._received = received

    def makefile(self, _mode: str) -> BytesIO:
        """Return the received bytes as a file."""
        return BytesIO(self._received)


def read_head(connection: socket.socket) -> bytes:
    """Return the head of a message, and leave what follows it to be read; what came if the connection ends."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            break
        head += byte
    return bytes(head)
