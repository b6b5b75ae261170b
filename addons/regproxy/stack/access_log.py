"""One JSON line a request on standard output, and the predecessor's response fields (contract sections 1.4 and 1.9).

Keys, order and string values are the predecessor's, because users' filters read them; what it lacked is appended. A
line never has a query string (signatures), a credential or a raw control character. It is one write of at most 4,096
bytes, which the lines of other workers cannot tear apart.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import NamedTuple

from mitmproxy import http

from regproxy.engine.bodies import attached
from regproxy.engine.http_layer import BodySent, Door, door
from regproxy.oci.endpoint import Blob, Manifest
from regproxy.origin.client import joined_address
from regproxy.policy.openers import OpenedBy, opener_text
from regproxy.policy.tiers import RequestClass
from regproxy.settings import Compat
from regproxy.stack.announcements import has_colours, is_text
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, exchange_of, opened_by
from regproxy.stack.log_lines import access_text, bounded, decoded

logger = logging.getLogger(__name__)

FIELD_PREFIXES: Mapping[Compat, str] = MappingProxyType(
    {Compat.RPARDINI: "X-Docker-Registry-Proxy", Compat.GMARCY: "X-Container-Registry-Proxy"}
)
"""How each predecessor's response fields begin."""

_CACHE_FIELDS: Mapping[Compat, tuple[str, str]] = MappingProxyType(
    {compat: (f"{prefix}-Cache-Upstream-Status", f"{prefix}-Cache-Type") for compat, prefix in FIELD_PREFIXES.items()}
)

REQUEST_ID_FIELD = "X-Registry-Proxy-Request-Id"
"""The same id as in the log: `registry-proxy why <id>` explains the answer."""

# One encoder for all lines: `json.dumps` with other separators than its own makes one for each.
_encode = json.JSONEncoder(separators=(",", ":")).encode


type Listener = Callable[["Entry"], None]
"""Told of each request when it has been answered; must be quick and raise nothing."""


class AccessLog:
    """The last addon of the stack: it sees how a request ended."""

    name = "registry-access-log"

    def __init__(self, core: Core | None = None, listeners: Sequence[Listener] = ()) -> None:
        self._core = core
        self._listeners = listeners
        self._compat = Compat.RPARDINI
        self._line: Callable[[Entry, float], str] = log_line

    def running(self) -> None:
        """Take the names of the predecessor that clients know, and the form of lines that was asked for."""
        if self._core is not None and self._core.ready:
            settings = self._core.settings
            self._compat = settings.compat
            if is_text(settings.log_format, sys.stdout):
                self._line = partial(text_line, colours=has_colours(sys.stdout))

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Tell the client what the cache did; like nginx's `add_header`, nothing where there is nothing to tell."""
        exchange = exchange_of(flow)
        if exchange is not None and flow.response is not None:
            exchange.answered_at_s = time.time()
            flow.response.headers.update(cache_fields(exchange, self._compat))

    def response(self, flow: http.HTTPFlow) -> None:
        """Log an answer that has been sent; one whose body is a file is logged when the file has been sent."""
        if attached(flow) is None:
            self._log(flow, _sent_bytes(flow), None)

    def registry_body_sent(self, body_sent: BodySent) -> None:
        """Log an answer whose body was a file."""
        self._log(body_sent.flow, body_sent.sent.body_bytes, body_sent.sent.error)

    def error(self, flow: http.HTTPFlow) -> None:
        """Log a request that got no answer."""
        self._log(flow, passed_bytes(flow.response), flow.error.msg if flow.error else None)

    def write(self, entry: "Entry") -> None:
        """Print the line of a request, and tell who listens."""
        try:
            sys.stdout.write(f"{self._line(entry, time.time())}\n")  # kept until the flush: one write
            sys.stdout.flush()
        except OSError as failure:
            logger.debug("the access log cannot be written: %s", failure)
        for listener in self._listeners:
            listener(entry)

    def _log(self, flow: http.HTTPFlow, sent_bytes: int, error: str | None) -> None:
        """Print the line of a request to a registry, or through the proxy."""
        if door(flow.request) not in (None, Door.OWN):
            self.write(entry_of(flow, exchange_of(flow), sent_bytes, error))


class UpstreamPart(NamedTuple):
    """What the line says of the upstream."""

    host: str
    """Of the last hop, with its port if that is not its scheme's."""
    addresses: str = ""
    times_s: str = ""
    bytes: str = ""
    credential: str = ""
    """Whose login the registry answered to: `client`, `operator:<user>@<host>`, or empty."""
    source: str = ""
    """`bucket` for what came from the shared store, or was found by what it says of a tag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request, and what became of it."""

    method: str
    target: str
    host: str
    status: int | None
    """None when there was no answer."""
    sent_bytes: int
    """Of the body."""
    client_ip: str
    user_agent: str
    upstream: UpstreamPart
    began_s: float
    exchange: Exchange | None
    error: str | None


_CACHE_STATUS = {
    CacheStatus.NONE: "",
    CacheStatus.HIT: "registry-proxy; hit",
    CacheStatus.MISS: "registry-proxy; fwd=uri-miss",
    CacheStatus.EXPIRED: "registry-proxy; fwd=stale",
    CacheStatus.REVALIDATED: "registry-proxy; fwd=stale; detail=revalidated",
    CacheStatus.STALE: "registry-proxy; hit; detail=stale",
    CacheStatus.BYPASS: "registry-proxy; fwd=bypass",
}
"""RFC 9211."""


def cache_fields(exchange: Exchange, compat: Compat) -> dict[str, str]:
    """Return the predecessor's two fields, the standard's one and the request's id; none that has nothing to tell."""
    status_field, type_field = _CACHE_FIELDS[compat]
    fields: dict[str, str] = {
        status_field: exchange.cache_status,
        type_field: exchange.request_class,
        "Cache-Status": _CACHE_STATUS[exchange.cache_status],
        REQUEST_ID_FIELD: exchange.request_id,
    }
    return {name: value for name, value in fields.items() if value}


def log_line(entry: Entry, now_s: float) -> str:
    """Return the line for one request; JSON escapes control characters."""
    return bounded(log_facts(entry, now_s), _encode)


def text_line(entry: Entry, now_s: float, *, colours: bool) -> str:
    """Return the line for people."""
    return bounded(log_facts(entry, now_s), partial(access_text, colours=colours))


def log_facts(entry: Entry, now_s: float) -> dict[str, str]:
    """Return what is said of one request."""
    exchange, upstream = entry.exchange, entry.upstream
    return {
        "access_time": _access_time(int(now_s)),
        "upstream_cache_status": exchange.cache_status if exchange else "",
        "method": entry.method,
        "uri": entry.target.partition("?")[0],
        "request_type": exchange.request_class if exchange else RequestClass.UNKNOWN,
        "status": "" if entry.status is None else str(entry.status),
        "bytes_sent": str(entry.sent_bytes),
        "upstream_response_time": upstream.times_s,
        "host": entry.host,
        "proxy_host": upstream.host,
        "upstream": upstream.addresses,
        "client_ip": entry.client_ip,
        "user_agent": decoded(entry.user_agent),
        "bytes_upstream": upstream.bytes,
        "image": _image(exchange),
        "error": entry.error or (exchange.error if exchange else None) or "",
        "duration_s": f"{max(0.0, now_s - entry.began_s):.3f}",
        "credential": upstream.credential,
        "source": upstream.source,
        "request_id": exchange.request_id if exchange else "",
    }


def entry_of(flow: http.HTTPFlow, exchange: Exchange | None, sent_bytes: int, error: str | None) -> Entry:
    """Return what the line of a flow says."""
    request, response = flow.request, flow.response
    return Entry(
        method=request.method,
        target=request.path,
        host=request.host,
        status=response.status_code if response else None,
        sent_bytes=sent_bytes,
        client_ip=flow.client_conn.peername[0] if flow.client_conn.peername else "",
        user_agent=request.headers.get("user-agent", ""),
        upstream=_upstream(flow, exchange),
        began_s=request.timestamp_start,
        exchange=exchange,
        error=error,
    )


def _upstream(flow: http.HTTPFlow, exchange: Exchange | None) -> UpstreamPart:
    """Return what is known of the upstream: of our own client's requests, or of the one that mitmproxy passed on."""
    request = flow.request
    default_port = 80 if request.scheme == "http" else 443
    host = request.host if request.port == default_port else f"{request.host}:{request.port}"
    trace = exchange.trace if exchange else None
    source = "bucket" if trace is not None and trace.from_bucket else ""
    if trace is not None and trace.last_host is not None:
        return UpstreamPart(
            trace.last_host, trace.addresses(), trace.times_s(), str(trace.received_bytes), trace.opener, source
        )
    server, response = flow.server_conn, flow.response
    if server.timestamp_start is None or server.peername is None:
        return UpstreamPart(host, source=source)
    began_s = request.timestamp_end or request.timestamp_start
    ended_s = response.timestamp_end if response else None
    return UpstreamPart(
        host,
        joined_address(server.peername[0], server.peername[1]),
        f"{max(0.0, ended_s - began_s):.3f}" if ended_s else "",
        str(passed_bytes(response)),
        "" if exchange is None else _shown(exchange),
    )


def _shown(exchange: Exchange) -> str:
    """Return whose login a request had that mitmproxy passed on."""
    if exchange.credential is not None:
        return opener_text(OpenedBy.OPERATOR, exchange.credential)
    return opener_text(opened_by(exchange), None)


class PassedBytes:
    """Counts a body that streams through: mitmproxy keeps nothing of it. For `Response.stream`."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, data: bytes) -> bytes:
        """Pass the bytes on."""
        self.count += len(data)
        return data


def passed_bytes(response: http.Response | None) -> int:
    """Return how much of a streamed body has passed; 0 for a body of our own."""
    counter = response.stream if response else None
    return counter.count if isinstance(counter, PassedBytes) else 0


@lru_cache(maxsize=1)
def _access_time(now_s: int) -> str:
    """Return nginx's `$time_local` in UTC; within one second all lines have the same."""
    return time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now_s))


def _image(exchange: Exchange | None) -> str:
    match exchange.endpoint if exchange else None:
        case Manifest(name, reference):
            return f"{name}{'@' if ':' in str(reference) else ':'}{reference}"
        case Blob(name, _):
            return name
        case _:
            return ""


def _sent_bytes(flow: http.HTTPFlow) -> int:
    """Return the length of a body that has been sent."""
    response = flow.response
    if response is None or flow.request.method == "HEAD":
        return 0
    return passed_bytes(response) or len(response.raw_content or b"")
