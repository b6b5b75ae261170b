"""The client's TLS: mitmproxy's layer, which leaves its OpenSSL connection alone while a sender uses it.

An OpenSSL connection must be used by one thread at a time. While a body is sent, another thread encrypts with it, so
bytes that the client sends meanwhile (a pipelined request, a close) are kept and read when the sender is done.
"""

import time

from mitmproxy.proxy import commands, context, events, layer, tunnel
from mitmproxy.proxy.layers.tls import ClientTLSLayer
from OpenSSL import SSL


def server_name(tls: SSL.Connection) -> str | None:
    """Return the name that a client's handshake asked for (RFC 6066 section 3), None when it asked for none."""
    name = tls.get_servername()
    return None if name is None else name.decode("ascii", "backslashreplace")


def reason_of(error: SSL.Error) -> str:
    """Return OpenSSL's words for an error."""
    entries = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return ", ".join(entry[2] for entry in entries) or type(error).__name__


class InterceptedTlsLayer(ClientTLSLayer):
    """TLS with a client, ended with a leaf of our CA.

    It may begin with TLS that is `established` already, and with plaintext that has been read from it. That plaintext
    is passed on a turn of the loop later: mitmproxy 12.2.3 cannot close a connection whose `Start` it is handling.
    """

    def __init__(
        self, layer_context: context.Context, established: SSL.Connection | None = None, early: bytes = b""
    ) -> None:
        super().__init__(layer_context)
        self._established = established
        self._early = early
        self._first_turn: commands.RequestWakeup | None = None
        self._lent = False
        self._held_data: list[bytes] = []
        self._held_close = False

    def lend(self) -> None:
        """Give the OpenSSL connection to a sender; until `give_back` this layer does not touch it."""
        self._lent = True

    def give_back(self) -> None:
        """Take the OpenSSL connection back; what the client sent meanwhile is read at the next event."""
        self._lent = False

    def start_handshake(self) -> layer.CommandGenerator[None]:
        """Take over established TLS; otherwise wait for the client's first message."""
        if self._established is None:
            yield from super().start_handshake()
            return
        self.tls = self._established
        self.client_hello_parsed = True
        self.conn.timestamp_tls_setup = time.time()
        self.conn.alpn = self.tls.get_alpn_proto_negotiated()
        self.conn.sni = server_name(self.tls)
        self.tunnel_state = tunnel.TunnelState.OPEN

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start) and self._established is not None:
            yield from super()._handle_event(event)
            self._first_turn = commands.RequestWakeup(0)
            yield self._first_turn
            return
        if self._established is not None:
            self._established = None
            yield from self._begin()
        if isinstance(event, events.Wakeup) and event.command is self._first_turn:
            self._first_turn = None
        else:
            yield from super()._handle_event(event)
        if not self._lent and (self._held_data or self._held_close):
            yield from self._catch_up()

    def _begin(self) -> layer.CommandGenerator[None]:
        """Pass on what was read before this layer came; a close may have been read along with it."""
        early, self._early = self._early, b""
        if early:
            yield from self.event_to_child(events.DataReceived(self.conn, early))
        yield from self.receive_data(b"")

    def _catch_up(self) -> layer.CommandGenerator[None]:
        held, self._held_data = self._held_data, []
        closed, self._held_close = self._held_close, False
        if held:
            yield from super().receive_data(b"".join(held))
        if closed:
            yield from super().receive_close()

    def receive_data(self, data: bytes) -> layer.CommandGenerator[None]:
        """Decrypt what the client sent, or keep it while the connection is lent."""
        self._held_data.append(data)
        if not self._lent:
            yield from self._catch_up()

    def receive_close(self) -> layer.CommandGenerator[None]:
        """Pass the client's close on, or keep it while the connection is lent."""
        self._held_close = True
        if not self._lent:
            yield from self._catch_up()
