"""A small HTTP client for tests: direct to a lab server by its address, or through a proxy with CONNECT.

It follows no redirect, adds no header but Host, and lets a test read a body piece by piece.
"""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from lab.addresses import Address

_TIMEOUT_S = 30.0

error_pages: list[bytes] = []
"""The refusals that all clients of the test got, head and body: no secret may be in one (`lab.secrets`)."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def header(self, name: str) -> str:
        """Return a field's value; AssertionError when the answer has none."""
        field = self.headers[name]
        assert field is not None, f"no {name} in {dict(self.headers)}"
        return field


class Route(Protocol):
    """How a connection to the host of a URL is made."""

    def connect(self, url: SplitResult) -> http.client.HTTPConnection:
        """Return a connection for `url`, which the caller closes."""
        ...


class _TlsConnection(http.client.HTTPConnection):
    """A connection whose socket is given; knows the port that the Host field leaves out."""

    default_port = 443


class DirectRoute:
    """Names end at the given addresses; the certificate is checked for the name."""

    def __init__(self, ca_file: Path, addresses: Mapping[str, Address]) -> None:
        self._context = ssl.create_default_context(cafile=str(ca_file))
        self._addresses = addresses

    def connect(self, url: SplitResult) -> http.client.HTTPConnection:
        """Return a connection; KeyError for a name that is not of the lab."""
        name = url.hostname or ""
        connection = _TlsConnection(name, url.port or 443, timeout=_TIMEOUT_S)
        plain = socket.create_connection(self._addresses[name], timeout=_TIMEOUT_S)
        try:
            connection.sock = self._context.wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise
        return connection


class ProxyRoute:
    """CONNECT through a proxy, then TLS with whoever answers there."""

    def __init__(self, proxy: Address, ca_file: Path, fields: Mapping[str, str] | None = None) -> None:
        self._proxy = proxy
        self._fields = dict(fields or {})
        """Of the CONNECT."""
        self._context = ssl.create_default_context(cafile=str(ca_file))

    def connect(self, url: SplitResult) -> http.client.HTTPConnection:
        """Return a connection; OSError when the proxy refuses the CONNECT."""
        connection = http.client.HTTPSConnection(*self._proxy, timeout=_TIMEOUT_S, context=self._context)
        connection.set_tunnel(url.hostname or "", url.port or 443, self._fields)
        return connection


class Client:
    """Requests by URL over a route; safe to use from several threads, one connection a request."""

    def __init__(self, route: Route) -> None:
        self._route = route

    def get(self, url: str, headers: Mapping[str, str] | None = None) -> Response:
        """Return the answer to a GET."""
        return self.request("GET", url, headers)

    def head(self, url: str, headers: Mapping[str, str] | None = None) -> Response:
        """Return the answer to a HEAD."""
        return self.request("HEAD", url, headers)

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """Return the whole answer; http.client.IncompleteRead when the connection is cut inside its body."""
        with self.stream(method, url, headers, body) as response:
            answer = Response(response.status, response.headers, response.read())
        if answer.status >= 400:
            error_pages.append(str(answer.headers).encode() + answer.body)
        return answer

    @contextlib.contextmanager
    def stream(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield an answer whose body is still to be read; the connection is closed afterwards."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection = self._route.connect(parts)
        try:
            connection.request(method, target, body, dict(headers or {}))
            with connection.getresponse() as response:
                yield response
        finally:
            connection.close()
