"""mitmproxy's HTTP layer, with bodies that are files and early answers that do not swallow a request's body.

Set through the public `next_layer` hook where the built-in would set `HttpLayer`. Seen at mitmproxy 12.2.3: a hook's
`args()` must return exactly one object, since `handle_hook` unpacks one and an error there hangs the client without a
word.
"""

import contextlib
import enum
import time
import weakref
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from mitmproxy import connection, flow, http
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.http import DropStream, HttpLayer, HTTPMode, HttpStream, SendHttp
from mitmproxy.proxy.layers.http._base import StreamId
from mitmproxy.proxy.layers.http._events import (
    ErrorCode as ProtocolErrorCode,
)
from mitmproxy.proxy.layers.http._events import (
    RequestHeaders,
    RequestProtocolError,
    ResponseData,
    ResponseEndOfMessage,
    ResponseHeaders,
    ResponseProtocolError,
)
from mitmproxy.proxy.layers.http._hooks import HttpResponseHeadersHook, HttpResponseHook
from mitmproxy.proxy.layers.http._http1 import Http1Server

from regproxy.engine import bodies
from regproxy.engine.bodies import FileBody, Sent
from regproxy.engine.client_tls import InterceptedTlsLayer
from regproxy.engine.request_head import END_OF_HEAD, read_plain_head
from regproxy.engine.strict_head import ABOUT_THE_CONNECTION, named_by_connection
from regproxy.engine.strict_server import StrictHttp1Server, refusal
from regproxy.engine.warm import Asked, WarmReads, answer_or_none, serialised
from regproxy.oci.errors import ErrorCode, error_body

HEAD_LIMIT_BYTES = 256 * 1024
"""What a client may send ahead of an answer: a head, in which some tokens take 100 kB, and a piece of a body."""


class Door(enum.Enum):
    """How a request reached the proxy."""

    OWN = enum.auto()
    """Origin-form, straight to the proxy's port: a request to the proxy itself."""
    FORWARD = enum.auto()
    """Absolute-form: `GET http://host/path`."""
    TUNNEL = enum.auto()
    """Inside an intercepted CONNECT."""
    MIRROR = enum.auto()
    """Origin-form to the proxy's port, for a registry: the stack says so (`enter_by`)."""


_doors: weakref.WeakKeyDictionary[http.Request, Door] = weakref.WeakKeyDictionary()


def door(request: http.Request) -> Door | None:
    """Return how the request came in; None when it did not come through our HTTP layer (a replay, a test)."""
    return _doors.get(request)


_ended_by_client: weakref.WeakSet[http.HTTPFlow] = weakref.WeakSet()


def is_ended_by_client(each: flow.Flow) -> bool:
    """Whether it was the client whose request broke off, or was none: its error says nothing of the registry."""
    return each in _ended_by_client


def enter_by(request: http.Request, entrance: Door) -> None:
    """Say by which door a request comes after all."""
    _doors[request] = entrance


@dataclass
class Transfer:
    """One file body on its way to one client. The sender fills in how it ended."""

    client: connection.Client
    body: FileBody
    tls_layer: InterceptedTlsLayer | None
    """The client's TLS, or None when the client speaks plain HTTP."""
    sent: Sent | None = None
    """Set by the sender; None when it failed to."""

    @property
    def outcome(self) -> Sent:
        """How it ended."""
        return self.sent or Sent(0, "the proxy could not send the body")


@dataclass
class BodySent:
    """A flow whose answer's body was a file, and how that ended."""

    flow: http.HTTPFlow
    sent: Sent


@dataclass
class RegistrySendBodyHook(commands.StartHook):
    """A response's headers are on their way and its body is a file: send it, then return.

    Everything of this stream waits until the hook completes; the client's TLS belongs to the sender meanwhile.
    """

    transfer: Transfer


@dataclass
class RegistryBodySentHook(commands.StartHook):
    """A file body has been sent, or has failed: the last event of such a flow."""

    body_sent: BodySent


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
        refusal = refusal_of(event.request)
        if refusal is not None:
            yield SendHttp(
                ResponseProtocolError(self.stream_id, refusal, ProtocolErrorCode.GENERIC_CLIENT_ERROR),
                self.context.client,
            )
            yield DropStream(self.stream_id)
            return
        _drop_hop_by_hop(event.request)
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

    def check_killed(self, emit_error_hook: bool) -> layer.CommandGenerator[bool]:
        """Note that it is the client's error which waits for the hook to end."""
        if any(isinstance(each, RequestProtocolError) for each in self._paused_event_queue):
            _ended_by_client.add(self.flow)
        return (yield from super().check_killed(emit_error_hook))

    def handle_protocol_error(
        self, event: RequestProtocolError | ResponseProtocolError
    ) -> Generator[commands.Command, Any, None]:
        """Tell the client of a registry that this cannot be had in the words of registries: mitmproxy's are HTML."""
        if isinstance(event, RequestProtocolError):
            _ended_by_client.add(self.flow)
        status = event.code.http_status_code()
        is_unanswered = self.server_state in (self.state_uninitialized, self.state_wait_for_response_headers)
        steps = super().handle_protocol_error(event)
        if (
            not isinstance(event, ResponseProtocolError)
            or not is_unanswered
            or status != 502
            or not self._is_of_registry
        ):
            yield from steps
            return
        failure = self.flow.response = _unavailable(event.message)
        reply = None
        with contextlib.suppress(StopIteration):
            while True:
                command = steps.send(reply)
                if isinstance(command, SendHttp) and command.event is event:
                    reply = None
                    yield SendHttp(ResponseHeaders(self.stream_id, failure, end_stream=False), self.context.client)
                    yield SendHttp(ResponseData(self.stream_id, failure.raw_content or b""), self.context.client)
                    yield SendHttp(ResponseEndOfMessage(self.stream_id), self.context.client)
                    yield commands.CloseConnection(self.context.client)
                else:
                    reply = yield command

    @property
    def _is_of_registry(self) -> bool:
        return door(self.flow.request) in (Door.TUNNEL, Door.MIRROR)

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
        transfer = Transfer(self.context.client, body, client_tls(self.context))
        yield RegistrySendBodyHook(transfer)
        bodies.detach(self.flow)
        yield RegistryBodySentHook(BodySent(self.flow, transfer.outcome))
        if transfer.outcome.error is None:
            yield from self.flow_done()
        else:
            yield from self._cut(transfer.outcome.error)

    def _cut(self, reason: str) -> layer.CommandGenerator[None]:
        """End the connection: a body that cannot be completed must never look complete (RFC 9112 section 8)."""
        self.flow.error = flow.Error(reason)
        self.flow.live = False
        self.client_state = self.server_state = self.state_errored
        yield SendHttp(
            ResponseProtocolError(self.stream_id, reason, ProtocolErrorCode.GENERIC_SERVER_ERROR), self.context.client
        )
        yield DropStream(self.stream_id)


def _unavailable(reason: str) -> http.Response:
    """Return the error of a registry that gives no answer, which ends its connection."""
    fields = {"content-type": "application/json; charset=utf-8", "connection": "close"}
    return http.Response.make(502, error_body(ErrorCode.UNAVAILABLE, reason), fields)


def client_tls(layer_context: context.Context) -> InterceptedTlsLayer | None:
    """Return the client's TLS; None when the client speaks plain HTTP."""
    return next((each for each in layer_context.layers if isinstance(each, InterceptedTlsLayer)), None)


def refusal_of(request: http.Request) -> str | None:
    """Return why mitmproxy's layer must not see a request, which would take it."""
    if request.method == "CONNECT":
        # `connect_layer` takes a CONNECT that begins a connection; a later one would be tunnelled past its rules.
        return "a CONNECT must be the first request of its connection"
    if request.http_version not in ("HTTP/1.0", "HTTP/1.1"):
        return "this proxy speaks HTTP/1.1"
    return None


def _drop_hop_by_hop(request: http.Request) -> None:
    """Take off what is between the client and this proxy; nothing is upgraded here (RFC 9110 section 7.6.1).

    Of `Connection` itself the one option stays that mitmproxy reads, in the one spelling that it knows.
    """
    named = named_by_connection(request.headers.get("connection", ""))
    for name in {"connection", *ABOUT_THE_CONNECTION, *named}.intersection(map(str.lower, request.headers)):
        del request.headers[name]
    option = next((each for each in ("close", "keep-alive") if each in named), None)
    if option is not None:
        request.headers["connection"] = option


class RegistryHttpLayer(HttpLayer):
    """mitmproxy's HTTP layer, whose streams are `RegistryStream`s; between them it answers warm reads by itself."""

    def __init__(self, layer_context: context.Context, mode: HTTPMode, warm: WarmReads | None = None) -> None:
        super().__init__(layer_context, mode)
        self._warm = warm
        self._overflowed = False

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Let a client send no more than a head ahead of its answer: mitmproxy has no limit."""
        if isinstance(event, events.Start):
            self.connections.setdefault(self.context.client, StrictHttp1Server(self.context.fork()))
        if not self._overflows(event):
            if not (yield from self._answer_warm(event)):
                yield from super()._handle_event(event)
            return
        if self._overflowed:
            return
        self._overflowed = True
        server = self.connections[self.context.client]
        assert isinstance(server, Http1Server)
        if server.state == server.read_headers:
            reason = f"the request's head is larger than {HEAD_LIMIT_BYTES} bytes"
            yield commands.SendData(self.context.client, refusal(431, reason))
        yield commands.CloseConnection(self.context.client)

    def _answer_warm(self, event: events.Event) -> Generator[commands.Command, Any, bool]:
        """Answer a request that is all of an event, if it is a warm read; else return False."""
        if self._warm is None or not isinstance(event, events.DataReceived) or not self._is_between_requests():
            return False
        if event.connection is not self.context.client:
            return False  # a registry that says something unasked must not have it answered to the client
        address, peername = self.context.server.address, self.context.client.peername
        head = read_plain_head(event.data.removesuffix(END_OF_HEAD)) if event.data.endswith(END_OF_HEAD) else None
        if head is None or head.is_last or address is None:
            return False
        asked = Asked(head, address[0], address[1], peername[0] if peername else "", time.time())
        answer = answer_or_none(self._warm, asked)
        if answer is None:
            return False
        if isinstance(answer.content, FileBody):
            yield commands.SendData(self.context.client, serialised(answer))
            transfer = Transfer(self.context.client, answer.content, client_tls(self.context))
            yield RegistrySendBodyHook(transfer)
            answer.content.close()
            sent = transfer.outcome
        else:
            yield commands.SendData(self.context.client, serialised(answer) + answer.content)
            sent = Sent(len(answer.content), None)
        self._warm.sent(asked, answer, sent)
        if sent.error is not None:
            yield commands.CloseConnection(self.context.client)
        return True

    def _is_between_requests(self) -> bool:
        server = self.connections.get(self.context.client)
        return (
            isinstance(server, Http1Server)
            and server.state == server.read_headers
            and not len(server.buf)
            and not self.streams
        )

    def _overflows(self, event: events.Event) -> bool:
        if not isinstance(event, events.DataReceived) or event.connection is not self.context.client:
            return False
        server = self.connections.get(self.context.client)
        return (
            isinstance(server, Http1Server)
            and server.state in (server.read_headers, server.wait)
            and len(server.buf) + len(event.data) > HEAD_LIMIT_BYTES
        )

    def make_stream(self, stream_id: StreamId) -> layer.CommandGenerator[None]:
        """Start the stream of a new request."""
        stream_context: context.Context = self.context.fork()
        self.streams[stream_id] = RegistryStream(stream_context, stream_id)
        yield from self.event_to_child(self.streams[stream_id], events.Start())
