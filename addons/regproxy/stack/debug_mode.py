"""Shows the traffic in mitmweb: every request to a registry with what the cache did, and our own requests upstream.

In use when the program is mitmweb, which `entrypoint.sh` chooses for `DEBUG=true` and `DEBUG_HUB=true`. What is shown
are masked copies (`engine.shown_flows`), in an interface that only shows (`engine.web_interface`).
"""

import secrets
import sys
import time
from typing import cast

import tornado.httpserver
from mitmproxy import connection, ctx, flow, http

from regproxy.engine.http_layer import BodySent, Door, door
from regproxy.engine.shown_flows import ShownFlows, masked_flow
from regproxy.engine.web_interface import COLUMNS, WebMaster, listen_too, secure
from regproxy.oci.endpoint import Blob, Manifest
from regproxy.origin.observer import Observer, TracedRequest
from regproxy.settings import Settings
from regproxy.stack.exchange import CacheStatus, Exchange, exchange_of

MARKERS = {
    CacheStatus.NONE: "",
    CacheStatus.HIT: ":green_circle:",
    CacheStatus.MISS: ":large_blue_circle:",
    CacheStatus.EXPIRED: ":purple_circle:",
    CacheStatus.REVALIDATED: ":white_check_mark:",
    CacheStatus.STALE: ":orange_circle:",
    CacheStatus.BYPASS: ":white_circle:",
}
ERROR_MARKER = ":red_circle:"
UPSTREAM_MARKER = ":arrow_up:"


class DebugMode:
    """The addon that fills mitmweb's list in the place of mitmweb's own, which would show secrets and keep bodies."""

    name = "registry-debug-mode"

    def __init__(self, settings: Settings) -> None:
        """Close mitmweb before its port opens: to be called when scripts are loaded."""
        self._settings = settings
        self._master = cast(WebMaster, ctx.master)
        self._password = settings.debug_password or secrets.token_urlsafe(24)
        self._flows = ShownFlows(self._master.view)
        self._second_server: tornado.httpserver.HTTPServer | None = None
        self._master.addons.remove(self._master.view)
        ctx.options.update(web_open_browser=False, web_columns=list(COLUMNS))
        if settings.debug_ports:
            ctx.options.update(web_host=settings.listen_host, web_port=settings.debug_ports[0])
        secure(self._master, self._password)

    @property
    def ports(self) -> set[int]:
        """The ports of the interface."""
        return {ctx.options.web_port, *self._settings.debug_ports}

    @property
    def observer(self) -> Observer | None:
        """What our own upstream requests are told to."""
        return self.show_upstream_request if self._settings.debug_hub else None

    def open(self) -> None:
        """Open the second port, and print once where the interface is and how to get in. Raises OSError."""
        for port in self.ports - {ctx.options.web_port}:
            try:
                self._second_server = listen_too(self._master, ctx.options.web_host, port)
            except OSError as error:
                raise OSError(f"port {port}, the second of the web interface: {error.strerror or error}") from error
        host = ctx.options.web_host or "127.0.0.1"
        url = f"http://{f'[{host}]' if ':' in host else host}:{ctx.options.web_port}/"
        way_in = (
            f"{url} (password: DEBUG_PASSWORD)" if self._settings.debug_password else f"{url}?token={self._password}"
        )
        # Not through the log: the interface shows the log, and a password belongs into neither.
        sys.stderr.write(f"registry-proxy: debug mode shows the traffic at {way_in}\n")
        sys.stderr.flush()

    def done(self) -> None:
        """Close the second port."""
        if self._second_server is not None:
            self._second_server.stop()

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Show a request that has begun."""
        self._show(flow)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Show the answer's head."""
        self._show(flow)

    def response(self, flow: http.HTTPFlow) -> None:
        """Show the answer's end, unless its body is a file that follows."""
        self._show(flow)

    def error(self, flow: http.HTTPFlow) -> None:
        """Show how a request failed."""
        self._show(flow)

    def registry_body_sent(self, body_sent: BodySent) -> None:
        """Show the end of an answer whose body was a file."""
        original, sent = body_sent.flow, body_sent.sent
        if original.response is not None:
            original.response.timestamp_end = time.time()
        shown = self._masked(original)
        if sent.error is not None:
            shown.error = flow.Error(f"{sent.error} (after {sent.body_bytes} bytes)")
            shown.marked = ERROR_MARKER
        self._flows.show(shown)

    def show_upstream_request(self, request: TracedRequest) -> None:
        """Show one of our own requests to an upstream."""
        self._flows.show(masked_flow(upstream_flow(request), "upstream", UPSTREAM_MARKER))

    def _show(self, original: http.HTTPFlow) -> None:
        if door(original.request) not in (None, Door.OWN):
            self._flows.show(self._masked(original))

    def _masked(self, original: http.HTTPFlow) -> http.HTTPFlow:
        exchange = exchange_of(original)
        return masked_flow(original, comment_of(exchange), marker_of(original, exchange))


def comment_of(exchange: Exchange | None) -> str:
    """Return cache status, kind of request and what it asks for: `HIT blob-by-digest quay.io/team/app`."""
    if exchange is None:
        return ""
    words = (exchange.cache_status, exchange.request_class, _subject(exchange))
    comment = " ".join(word for word in words if word)
    return f"{comment}: {exchange.error}" if exchange.error else comment


def marker_of(original: http.HTTPFlow, exchange: Exchange | None) -> str:
    """Return the emoji's name for what the cache did, or for an error."""
    if original.error is not None:
        return ERROR_MARKER
    return MARKERS[exchange.cache_status] if exchange is not None else ""


def upstream_flow(request: TracedRequest) -> http.HTTPFlow:
    """Return one of our own requests in the form that mitmweb shows; nothing is masked yet."""
    peer = request.answer.peer if request.answer is not None else None
    original = http.HTTPFlow(
        connection.Client(peername=("", 0), sockname=("", 0), timestamp_start=request.at_s),
        connection.Server(address=(request.host, request.port), peername=peer, timestamp_start=request.at_s),
    )
    original.id, original.timestamp_created = request.id, request.at_s
    original.request = http.Request(
        host=request.host,
        port=request.port,
        method=request.method.encode(),
        scheme=request.scheme.encode(),
        authority=b"",
        path=request.target.encode(),
        http_version=b"HTTP/1.1",
        headers=_headers(request.fields),
        content=None,
        trailers=None,
        timestamp_start=request.at_s,
        timestamp_end=request.at_s,
    )
    if request.answer is not None:
        original.response = http.Response(
            http_version=b"HTTP/1.1",
            status_code=request.answer.status,
            reason=request.answer.reason.encode(),
            headers=_headers(request.answer.fields),
            content=None,
            trailers=None,
            timestamp_start=request.answer.at_s,
            timestamp_end=request.answer.at_s,
        )
    if request.error is not None:
        original.error = flow.Error(request.error)
    return original


def _headers(fields: tuple[tuple[str, str], ...]) -> http.Headers:
    return http.Headers([(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in fields])


def _subject(exchange: Exchange) -> str:
    match exchange.endpoint:
        case Manifest(name, reference):
            return f"{exchange.registry}/{name}{'@' if ':' in str(reference) else ':'}{reference}"
        case Blob(name, _):
            return f"{exchange.registry}/{name}"
        case _:
            return str(exchange.registry)
