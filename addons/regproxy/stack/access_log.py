"""One JSON line a request on standard output, and the predecessor's response fields (contract sections 1.4 and 1.9).

Keys, order and string values are the predecessor's, because users' filters read them; what it lacked is appended. A
line never has a query string (signatures), a credential or a raw control character.
"""

import json
import logging
import sys
import time
from dataclasses import dataclass

from mitmproxy import http

from regproxy.engine.bodies import attached
from regproxy.engine.http_layer import BodySent, Door, door
from regproxy.oci.endpoint import Blob, Manifest
from regproxy.stack.exchange import Exchange, exchange_of

logger = logging.getLogger(__name__)


class AccessLog:
    """The last addon of the stack: it sees how a request ended."""

    name = "registry-access-log"

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Tell the client what the cache did."""
        exchange = exchange_of(flow)
        if exchange is not None and flow.response is not None:
            flow.response.headers.update(cache_fields(exchange))

    def response(self, flow: http.HTTPFlow) -> None:
        """Log an answer that has been sent; one whose body is a file is logged when the file has been sent."""
        if attached(flow) is None:
            _log(flow, _declared_length(flow), None)

    def registry_body_sent(self, body_sent: BodySent) -> None:
        """Log an answer whose body was a file."""
        _log(body_sent.flow, body_sent.sent.body_bytes, body_sent.sent.error)

    def error(self, flow: http.HTTPFlow) -> None:
        """Log a request that got no answer."""
        _log(flow, 0, flow.error.msg if flow.error else None)


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
    upstream: str = ""
    """Address of the registry's end, if a connection of mitmproxy's led there."""
    began_s: float
    exchange: Exchange | None
    error: str | None


def cache_fields(exchange: Exchange) -> dict[str, str]:
    """Return the predecessor's two response fields."""
    return {
        "X-Docker-Registry-Proxy-Cache-Upstream-Status": exchange.cache_status,
        "X-Docker-Registry-Proxy-Cache-Type": exchange.request_class,
    }


def write(entry: Entry) -> None:
    """Print the line of a request."""
    try:
        sys.stdout.write(f"{log_line(entry, time.time())}\n")
        sys.stdout.flush()
    except OSError as failure:
        logger.debug("the access log cannot be written: %s", failure)


def log_line(entry: Entry, now_s: float) -> str:
    """Return the line for one request; JSON escapes control characters."""
    exchange = entry.exchange
    return json.dumps(
        {
            "access_time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now_s)),
            "upstream_cache_status": exchange.cache_status if exchange else "",
            "method": entry.method,
            "uri": entry.target.partition("?")[0],
            "request_type": exchange.request_class if exchange else "unknown",
            "status": "" if entry.status is None else str(entry.status),
            "bytes_sent": str(entry.sent_bytes),
            "upstream_response_time": "",
            "host": entry.host,
            "proxy_host": entry.host,
            "upstream": entry.upstream,
            "client_ip": entry.client_ip,
            "user_agent": entry.user_agent,
            "image": _image(exchange),
            "duration_s": f"{max(0.0, now_s - entry.began_s):.3f}",
            "error": entry.error or (exchange.error if exchange else None) or "",
        },
        separators=(",", ":"),
    )


def _log(flow: http.HTTPFlow, sent_bytes: int, error: str | None) -> None:
    """Print the line of a request to a registry, or through the proxy."""
    if door(flow.request) not in (None, Door.OWN):
        write(entry_of(flow, exchange_of(flow), sent_bytes, error))


def entry_of(flow: http.HTTPFlow, exchange: Exchange | None, sent_bytes: int, error: str | None) -> Entry:
    """Return what the line of a flow says."""
    request, response = flow.request, flow.response
    upstream = flow.server_conn.peername if flow.server_conn.timestamp_start is not None else None
    return Entry(
        method=request.method,
        target=request.path,
        host=request.host,
        status=response.status_code if response else None,
        sent_bytes=sent_bytes,
        client_ip=flow.client_conn.peername[0] if flow.client_conn.peername else "",
        user_agent=request.headers.get("user-agent", ""),
        upstream=f"{upstream[0]}:{upstream[1]}" if upstream else "",
        began_s=request.timestamp_start,
        exchange=exchange,
        error=error,
    )


def _image(exchange: Exchange | None) -> str:
    match exchange.endpoint if exchange else None:
        case Manifest(name, reference):
            return f"{name}{'@' if ':' in str(reference) else ':'}{reference}"
        case Blob(name, _):
            return name
        case _:
            return ""


def _declared_length(flow: http.HTTPFlow) -> int:
    length = flow.response.headers.get("content-length", "") if flow.response else ""
    return int(length) if length.isdecimal() and flow.request.method != "HEAD" else 0
