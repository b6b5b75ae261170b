"""mitmproxy's HTTP/1 server, which reads no head before `strict_head` has let it pass.

Seen at mitmproxy 12.2.3: a head is taken as its parser likes it, an empty line before a request has the request wait
for the next bytes, and a body with trailers is a crash.
"""

import logging
import re

from mitmproxy.net.http import status_codes
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode as ProtocolErrorCode
from mitmproxy.proxy.layers.http._events import RequestProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Server

from regproxy.engine.strict_head import Fault, find_fault
from regproxy.oci.errors import ErrorCode, error_body

logger = logging.getLogger(__name__)

# Where mitmproxy takes a head to end: with any two line ends.
_END = re.compile(rb"\n\r?\n")
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")


class StrictHttp1Server(Http1Server):
    """Refuses with a reason, and closes, what it cannot be sure of."""

    _tail = b""
    """The last bytes that were looked at: an end may come in pieces."""

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        """Read a head once it is there and there is no fault in it."""
        if isinstance(event, events.DataReceived):
            self._pass_empty_lines(event.data)
            fault = self._fault(event.data)
            if fault is not None:
                yield from self._refuse(fault)
                return
        yield from super().read_headers(event)

    def read_body(self, event: events.Event) -> layer.CommandGenerator[None]:
        """Read a body; one with trailers is no body of a registry's client, and is cut as a broken one is."""
        try:
            yield from super().read_body(event)
        except NotImplementedError:
            yield commands.CloseConnection(self.conn)
            reason = "a body with trailers is not passed on"
            yield ReceiveHttp(RequestProtocolError(self.stream_id, reason, ProtocolErrorCode.GENERIC_CLIENT_ERROR))

    def _pass_empty_lines(self, arrived: bytes) -> None:
        """Skip those before a request: a client may send one after a body (RFC 9112 section 2.2)."""
        is_start = not arrived or len(self.buf) - len(arrived) < len(b"\r\n")
        empty = _EMPTY_LINES.match(bytes(self.buf)) if is_start else None
        if empty is not None:
            self.buf.maybe_extract_at_most(empty.end())

    def _fault(self, arrived: bytes) -> Fault | None:
        """Look at the head when its end has arrived; nothing new means that all was there before."""
        recent = self._tail + arrived if arrived else bytes(self.buf)
        self._tail = recent[-3:]
        if _END.search(recent) is None:
            return None
        self._tail = b""
        received = bytes(self.buf)
        end = _END.search(received)
        return find_fault(received[: end.end()]) if end else None

    def _refuse(self, fault: Fault) -> layer.CommandGenerator[None]:
        peer = self.conn.peername[0] if self.conn.peername else ""
        logger.info("%s: a request is refused with %d: %s", peer, fault.status, fault.reason)
        yield commands.SendData(self.conn, refusal(fault.status, fault.reason))
        yield commands.CloseConnection(self.conn)
        self.state = self.done


def refusal(status: int, reason: str) -> bytes:
    """Return the whole answer to a request that nobody has read; the connection ends with it."""
    body = error_body(ErrorCode.UNSUPPORTED, reason)
    head = (
        f"HTTP/1.1 {status} {status_codes.RESPONSES.get(status, '')}\r\n"
        f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
