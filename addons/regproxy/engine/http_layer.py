"""mitmproxy's HTTP layer with two changes: a response's body may be a file, and an early answer does not swallow a
request's body.

Set through the public `next_layer` hook where the built-in would set `HttpLayer`. Seen at mitmproxy 12.2.3: a hook's
`args()` must return exactly one object, since `handle_hook` unpacks one and an error there hangs the client without a
word.
"""

import enum
import weakref
from dataclasses import dataclass

from mitmproxy import connection, flow, http
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.http import DropStream, HttpLayer, HTTPMode, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._base import StreamId
from mitmproxy.proxy.layers.http._events import (
    ErrorCode,
    RequestHeaders,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpResponseHeadersHook, HttpResponseHook

from regproxy.engine import bodies
from regproxy.engine.bodies import FileBody
from regproxy.engine.client_tls import InterceptedTlsLayer


class Door(enum.Enum):
    """How a request reached the proxy."""

    OWN = enum.auto()
    """Origin-form, straight to the proxy's port: a request to the proxy itself."""
    FORWARD = enum.auto()
    """Absolute-form: `GET http://host/path`."""
    TUNNEL = enum.auto()
    """Inside an intercepted CONNECT."""


_doors: weakref.WeakKeyDictionary[http.Request, Door] = weakref.WeakKeyDictionary()


def door(request: http.Request) -> Door | None:
    """Return how the request came in; None when it did not come through our HTTP layer (a replay, a test)."""
    return _doors.get(request)


@dataclass
class Transfer:
    """One file body on its way to one client. The sender fills in how it ended."""

    flow: http.HTTPFlow
    client: connection.Client
    body: FileBody
    tls_layer: InterceptedTlsLayer | None
    """The client's TLS, or None when the client speaks plain HTTP."""
    sent_bytes: int = 0
    """Body bytes handed to the client's socket (before encryption)."""
    error: str | None = None
    """Why the transfer did not reach its end, in words; None when it did."""


@dataclass
class RegistrySendBodyHook(commands.StartHook):
    """A response's headers are on their way and its body is a file: send it, then return.

    Everything of this stream waits until the hook completes; the client's TLS belongs to the sender meanwhile.
    """

    transfer: Transfer


@dataclass
class RegistryBodySentHook(commands.StartHook):
    """A file body has been sent, or has failed (`transfer.error`): the last event of such a flow."""

    transfer: Transfer


class RegistryStream(HttpStream):
    """One request and its response."""

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        """Answer at once, and close, when an addon has answered a request whose body is still to come.

        mitmproxy would first collect the whole body in memory, which a refused upload of some gigabytes must not cost.
        """
        if self.mode is HTTPMode.transparent:
            _doors[event.request] = Door.TUNNEL
        else:
            _doors[event.request] = Door.FORWARD if event.request.host else Door.OWN
        yield from super().state_wait_for_request_headers(event)
        answered_early = (
            self.client_state == self.state_consume_request_body
            and self.flow.response is not None
            and not event.end_stream
        )
        if not answered_early:
            return
        assert self.flow.response is not None
        self.flow.response.headers["connection"] = "close"
        yield HttpResponseHeadersHook(self.flow)
        self.client_state = self.state_errored
        yield from self.send_response()
        yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
        yield DropStream(self.stream_id)
        self.flow.live = False
        yield commands.CloseConnection(self.context.client)

    def send_response(self, already_streamed: bool = False) -> layer.CommandGenerator[None]:
        """Send the response; its body from a file, if one is attached."""
        body = bodies.attached(self.flow)
        if body is None or already_streamed:
            yield from super().send_response(already_streamed)
        else:
            yield from self._send_file_response(body)

    def _send_file_response(self, body: FileBody) -> layer.CommandGenerator[None]:
        assert self.flow.response is not None
        yield HttpResponseHook(self.flow)
        self.server_state = self.state_done
        if (yield from self.check_killed(False)):
            bodies.detach(self.flow)
            return
        yield SendHttp(ResponseHeaders(self.stream_id, self.flow.response, end_stream=False), self.context.client)
        transfer = Transfer(self.flow, self.context.client, body, self._client_tls())
        yield RegistrySendBodyHook(transfer)
        bodies.detach(self.flow)
        yield RegistryBodySentHook(transfer)
        if transfer.error is None:
            yield from self.flow_done()
        else:
            yield from self._cut(transfer.error)

    def _cut(self, reason: str) -> layer.CommandGenerator[None]:
        """End the connection: a body that cannot be completed must never look complete (RFC 9112 section 8)."""
        self.flow.error = flow.Error(reason)
        self.flow.live = False
        self.client_state = self.server_state = self.state_errored
        yield SendHttp(
            ResponseProtocolError(self.stream_id, reason, ErrorCode.GENERIC_SERVER_ERROR), self.context.client
        )
        yield DropStream(self.stream_id)

    def _client_tls(self) -> InterceptedTlsLayer | None:
        for candidate in self.context.layers:
            if isinstance(candidate, InterceptedTlsLayer):
                return candidate
        return None


class RegistryHttpLayer(HttpLayer):
    """mitmproxy's HTTP layer, whose streams are `RegistryStream`s."""

    def make_stream(self, stream_id: StreamId) -> layer.CommandGenerator[None]:
        """Start the stream of a new request."""
        stream_context: context.Context = self.context.fork()
        self.streams[stream_id] = RegistryStream(stream_context, stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())
