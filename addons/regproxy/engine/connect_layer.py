"""CONNECT, answered by one small layer of our own.

mitmproxy would build a whole HTTP stream for the CONNECT request, through which every later byte of the connection
passes. This layer reads the request head, asks the stack what to do (`registry_connect`), answers, and steps aside
for its child: TLS with a leaf of our CA and our HTTP layer for an intercepted host, an untouched TCP tunnel for any
other.
"""

import logging
from dataclasses import dataclass, field
from typing import assert_never

from mitmproxy import connection, http
from mitmproxy.net.http import http1, status_codes
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers import TCPLayer
from mitmproxy.proxy.layers.http import HTTPMode
from OpenSSL import SSL

from regproxy.engine.client_tls import InterceptedTlsLayer, server_name
from regproxy.engine.http_layer import RegistryHttpLayer
from regproxy.engine.request_head import CONNECT_LIMIT_BYTES, END_OF_HEAD
from regproxy.engine.strict_head import Fault, find_fault
from regproxy.engine.warm import WarmReads
from regproxy.engine.warm_connection import CONNECT_ANSWER, CONNECT_START
from regproxy.oci.names import names
from regproxy.oci.wording import shown

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Intercept:
    """Terminate TLS here and read the requests."""


@dataclass(frozen=True, slots=True)
class Via:
    """Another proxy on the way."""

    name: str
    """For messages, without a login."""
    head: bytes = field(repr=False)
    """The CONNECT that it is sent; its answer opens the tunnel or not."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Connect to the first address that answers, and pass the bytes on untouched."""

    addresses: tuple[tuple[str, int], ...]
    via: Via | None = None
    """The addresses are this proxy's."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not connect."""

    status: int
    reason: str
    """One sentence for the client, with the remedy."""
    challenge: str | None = None
    """The `Proxy-Authenticate` field of a 407."""


type Verdict = Intercept | Tunnel | Refuse


@dataclass
class ConnectRequest:
    """A client's CONNECT; the stack sets the verdict."""

    client: connection.Client
    host: str
    port: int
    request: http.Request
    verdict: Verdict = field(
        default_factory=lambda: Refuse(503, "the proxy is not ready: no addon decides about CONNECT")
    )


@dataclass
class RegistryConnectHook(commands.StartHook):
    """A client asks for a tunnel: set `connect.verdict`."""

    connect: ConnectRequest


def connect_head(host: str, port: int, authorization: str | None) -> bytes:
    """Return the CONNECT request that asks another proxy for a tunnel."""
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    login = f"Proxy-Authorization: {authorization}\r\n" if authorization else ""
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{login}\r\n".encode()


def _host_as_written(request: http.Request) -> str:
    """Return the host of a CONNECT; mitmproxy decodes A-labels, which DNS, certificates and our settings do not."""
    if request.host.isascii():
        return request.host
    return request.data.authority.decode("ascii").rpartition(":")[0]


class TunnelServer(connection.Server):
    """The far end of a tunnel, at an address that the stack has checked already."""


class ConnectLayer(layer.Layer):
    """The start of a proxied connection: `context.layers` is [HttpProxy, ConnectLayer]."""

    def __init__(self, layer_context: context.Context) -> None:
        super().__init__(layer_context)
        self._received = bytearray()
        self._asked = ""
        self._via_name = ""
        self._via_answer = bytearray()

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        match event:
            case events.DataReceived():
                self._received += event.data
                yield from self._read_head()
            case events.ConnectionClosed():
                yield commands.CloseConnection(self.context.client)
            case _:
                pass

    def _read_head(self) -> layer.CommandGenerator[None]:
        if not CONNECT_START.startswith(self._received[: len(CONNECT_START)]):
            yield from self._refuse(400, "this is an HTTP proxy, and what came is not an HTTP request")
            return
        head, end_of_head, rest = self._received.partition(b"\r\n\r\n")
        if len(head) > CONNECT_LIMIT_BYTES:
            yield from self._refuse(431, f"the request's head is larger than {CONNECT_LIMIT_BYTES} bytes")
            return
        if not end_of_head:
            return
        request = _read_connect(bytes(head))
        if isinstance(request, Fault):
            yield from self._refuse(request.status, request.reason)
            return
        self._received = bytearray(rest)
        connect = ConnectRequest(self.context.client, _host_as_written(request), request.port, request)
        self._asked = shown(f"{connect.host}:{connect.port}")
        yield RegistryConnectHook(connect)
        match connect.verdict:
            case Intercept():
                yield from self._intercept(connect)
            case Tunnel(addresses, via):
                yield from self._tunnel(connect, addresses, via)
            case Refuse(status, reason, challenge):
                yield from self._refuse(status, reason, challenge)
            case _ as unreachable:
                assert_never(unreachable)

    def _intercept(self, connect: ConnectRequest) -> layer.CommandGenerator[None]:
        self.begin_intercepted(connect.host, connect.port)
        yield commands.SendData(self.context.client, CONNECT_ANSWER)
        yield from self._first_bytes(events.DataReceived(self.context.client, b""))

    def begin_intercepted(self, host: str, port: int) -> None:
        """Go on as after the answer to a CONNECT."""
        self.context.server.address = (host, port)
        self._handle_event = self._first_bytes  # type: ignore[method-assign]

    def _first_bytes(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Tell TLS from plain HTTP by the first bytes: a `http://` registry may be reached through CONNECT."""
        match event:
            case events.DataReceived():
                self._received += event.data
            case events.ConnectionClosed():
                yield commands.CloseConnection(self.context.client)
                return
            case _:
                return
        received = bytes(self._received)
        if len(received) < 3:
            return
        if starts_like_tls_record(received):
            yield from self._step_aside(_tls_layer(self.context, InterceptedTlsLayer(self.context)))
        else:
            yield from self._step_aside(RegistryHttpLayer(self.context, HTTPMode.transparent))

    def _tunnel(
        self, connect: ConnectRequest, addresses: tuple[tuple[str, int], ...], via: Via | None
    ) -> layer.CommandGenerator[None]:
        failure: str | None = "the name has no address"
        for address in addresses:
            self.context.server = TunnelServer(address=address)
            failure = yield commands.OpenConnection(self.context.server)
            if failure is None:
                break
        if failure is not None:
            yield from self._refuse(502, f"cannot connect to {connect.host}:{connect.port}: {failure}")
        elif via is None:
            yield from self._establish()
        else:
            self._via_name, self._via_answer = via.name, bytearray()
            self._handle_event = self._await_via  # type: ignore[method-assign]
            yield commands.SendData(self.context.server, via.head)

    def _establish(self) -> layer.CommandGenerator[None]:
        yield commands.SendData(self.context.client, CONNECT_ANSWER)
        yield from self._step_aside(TCPLayer(self.context, ignore=True))

    def _await_via(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Read the answer of the other proxy; the client may send its first bytes meanwhile."""
        match event:
            case events.DataReceived(connection=self.context.client):
                self._received += event.data
            case events.DataReceived():
                self._via_answer += event.data
                yield from self._read_via_answer()
            case events.ConnectionClosed(connection=self.context.client):
                yield commands.CloseConnection(self.context.server)
                yield commands.CloseConnection(self.context.client)
            case events.ConnectionClosed():
                yield from self._refuse(502, f"{self._via_name} closed the connection")
            case _:
                pass

    def _read_via_answer(self) -> layer.CommandGenerator[None]:
        head, end_of_head, early = bytes(self._via_answer).partition(b"\r\n\r\n")
        status = head.split(b"\r\n")[0].split(b" ")[1:2]
        if not end_of_head and len(head) <= CONNECT_LIMIT_BYTES:
            return
        if end_of_head and status and status[0].startswith(b"2"):
            yield from self._establish()
            if early:
                yield commands.SendData(self.context.client, early)
            return
        code = (status[0] if status else b"").decode("ascii", "replace")[:3]
        yield commands.CloseConnection(self.context.server)
        yield from self._refuse(502, f"{self._via_name} refused the tunnel ({code or 'no HTTP'})")

    def _step_aside(self, child: layer.Layer) -> layer.CommandGenerator[None]:
        """From now on every event goes straight to `child`."""
        early = bytes(self._received)
        self._received.clear()
        self.handle_event = child.handle_event  # type: ignore[method-assign]
        self._handle_event = child.handle_event  # type: ignore[method-assign]
        yield from child.handle_event(events.Start())
        if early:
            yield from child.handle_event(events.DataReceived(self.context.client, early))

    def _refuse(self, status: int, reason: str, challenge: str | None = None) -> layer.CommandGenerator[None]:
        if self._asked:
            # In words, for the access log has requests to registries only, as the predecessor's.
            logger.info("CONNECT %s is refused with %d: %s", self._asked, status, reason)
        body = f"registry-proxy: {reason}\n".encode()
        challenge_line = "" if challenge is None else f"Proxy-Authenticate: {challenge}\r\n"
        head = (
            f"HTTP/1.1 {status} {status_codes.RESPONSES.get(status, '')}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"{challenge_line}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        # What still comes is passed over: a client that floods is not answered for each piece.
        self._handle_event = self._refused  # type: ignore[method-assign]
        yield commands.SendData(self.context.client, head.encode() + body)
        yield commands.CloseConnection(self.context.client)

    def _refused(self, event: events.Event) -> layer.CommandGenerator[None]:
        self._received.clear()
        if isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)


def _read_connect(head: bytes) -> http.Request | Fault:
    fault = find_fault(head + END_OF_HEAD)
    if fault is not None:
        return fault
    try:
        return http1.read_request_head(head.split(b"\r\n"))
    except ValueError as error:
        return Fault(400, f"the CONNECT request cannot be read: {error}")


def plain_layer(layer_context: context.Context, host: str, port: int) -> layer.Layer:
    """Return the layer of a connection whose CONNECT has been answered, before the first byte behind it."""
    connect_layer = ConnectLayer(layer_context)
    connect_layer.begin_intercepted(host, port)
    return connect_layer


def established_layer(
    layer_context: context.Context, authority: tuple[str, int], tls: SSL.Connection, early: bytes, warm: WarmReads
) -> layer.Layer:
    """Return the layer of a connection with TLS, from which the plaintext `early` has been read.

    What a handshake for another host asks is not answered from the cache: the stack refuses it.
    """
    layer_context.server.address = authority
    is_for_the_host = names(server_name(tls), authority[0])
    return _tls_layer(layer_context, InterceptedTlsLayer(layer_context, tls, early), warm if is_for_the_host else None)


def door_tls_layer(layer_context: context.Context) -> layer.Layer:
    """Return the layer of a connection that begins with TLS, for requests to the proxy itself."""
    tls_layer = InterceptedTlsLayer(layer_context)
    tls_layer.child_layer = RegistryHttpLayer(layer_context, HTTPMode.regular)
    return tls_layer


def _tls_layer(
    layer_context: context.Context, tls_layer: InterceptedTlsLayer, warm: WarmReads | None = None
) -> InterceptedTlsLayer:
    layer_context.server.tls = True
    tls_layer.child_layer = RegistryHttpLayer(layer_context, HTTPMode.transparent, warm)
    return tls_layer
