"""What mitmweb's list of flows gets: masked copies without bodies, and no more than a fixed number of them.

The flow that mitmproxy works on is what goes upstream, so it is neither shown nor changed: what is seen and exported is
a copy that nothing acts on. Measured: 2000 flows take 11 MiB, and 6000 more add less than one.
"""

from collections import deque
from collections.abc import Iterable

from mitmproxy import connection, flow, http
from mitmproxy.addons.view import View

from regproxy.policy.masking import masked_fields, masked_text

FLOW_LIMIT = 2000
"""How many flows are kept: the pulls of about a hundred images."""


class ShownFlows:
    """mitmweb's list of flows. The oldest goes when there are more than `limit`."""

    def __init__(self, view: View, limit: int = FLOW_LIMIT) -> None:
        self._view = view
        self._limit = limit
        self._order: deque[http.HTTPFlow] = deque()

    def show(self, shown: http.HTTPFlow) -> None:
        """Add a masked flow, or bring the one with the same id up to date."""
        known = self._view.get_by_id(shown.id)
        if isinstance(known, http.HTTPFlow):
            known.request, known.response, known.error = shown.request, shown.response, shown.error
            known.server_conn, known.comment, known.marked = shown.server_conn, shown.comment, shown.marked
            self._view.update([known])
            return
        self._view.add([shown])
        self._order.append(shown)
        while len(self._order) > self._limit:
            self._view.remove([self._order.popleft()])


def masked_flow(original: http.HTTPFlow, comment: str, marker: str) -> http.HTTPFlow:
    """Return what may be shown of a flow: no secret, no body.

    `marker` is the name of an emoji as mitmproxy knows it, or empty.
    """
    client, server = original.client_conn, original.server_conn
    shown = http.HTTPFlow(
        connection.Client(
            id=client.id,
            peername=client.peername,
            sockname=client.sockname,
            timestamp_start=client.timestamp_start,
            timestamp_tls_setup=client.timestamp_tls_setup,
            tls_version=client.tls_version,
            sni=client.sni,
        ),
        connection.Server(
            id=server.id,
            address=server.address,
            peername=server.peername,
            timestamp_start=server.timestamp_start,
            timestamp_tcp_setup=server.timestamp_tcp_setup,
            timestamp_tls_setup=server.timestamp_tls_setup,
            tls_version=server.tls_version,
        ),
    )
    shown.id = original.id
    shown.timestamp_created = original.timestamp_created
    shown.request = masked_request(original.request)
    if original.response is not None:
        shown.response = masked_response(original.response)
    if original.error is not None:
        shown.error = flow.Error(masked_text(original.error.msg), original.error.timestamp)
    shown.comment, shown.marked = masked_text(comment), marker
    return shown


def masked_request(request: http.Request) -> http.Request:
    """Return a request as it may be shown."""
    return http.Request(
        host=request.host,
        port=request.port,
        method=request.data.method,
        scheme=request.data.scheme,
        authority=b"",  # it may have a login; host and port say the rest
        path=_bytes(masked_text(_text(request.data.path))),
        http_version=request.data.http_version,
        headers=http.Headers(_masked(request.headers.fields)),
        content=None,
        trailers=None,
        timestamp_start=request.timestamp_start,
        timestamp_end=request.timestamp_end,
    )


def masked_response(response: http.Response) -> http.Response:
    """Return a response as it may be shown."""
    return http.Response(
        http_version=response.data.http_version,
        status_code=response.status_code,
        reason=response.data.reason,
        headers=http.Headers(_masked(response.headers.fields)),
        content=None,
        trailers=None,
        timestamp_start=response.timestamp_start,
        timestamp_end=response.timestamp_end,
    )


def _masked(fields: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    texts = ((_text(name), _text(value)) for name, value in fields)
    return [(_bytes(name), _bytes(value)) for name, value in masked_fields(texts)]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
