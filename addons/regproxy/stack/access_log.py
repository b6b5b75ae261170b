"""One JSON line a request on standard output, and the predecessor's response fields (contract sections 1.4 and 1.9).

Keys, order and string values are the predecessor's, because users' filters read them; what it lacked is appended. A
line never has a query string (signatures), a credential or a raw control character.
"""

import json
import logging
import sys
import time

from mitmproxy import http

from regproxy.engine.bodies import attached
from regproxy.engine.http_layer import Door, Transfer, door
from regproxy.oci.endpoint import Blob, Manifest
from regproxy.stack.exchange import Exchange, exchange_of

logger = logging.getLogger(__name__)


class AccessLog:
    """The last addon of the stack: it sees how a request ended."""

    name = "registry-access-log"

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Tell the client what the cache did."""
        exchange = exchange_of(flow)
        if exchange is None or flow.response is None:
            return
        flow.response.headers["X-Docker-Registry-Proxy-Cache-Upstream-Status"] = exchange.cache_status
        flow.response.headers["X-Docker-Registry-Proxy-Cache-Type"] = exchange.request_class

    def response(self, flow: http.HTTPFlow) -> None:
        """Log an answer that has been sent; one whose body is a file is logged when the file has been sent."""
        if attached(flow) is None:
            self.log(flow, _declared_length(flow), None)

    def registry_body_sent(self, transfer: Transfer) -> None:
        """Log an answer whose body was a file."""
        self.log(transfer.flow, transfer.sent_bytes, transfer.error)

    def error(self, flow: http.HTTPFlow) -> None:
        """Log a request that got no answer."""
        self.log(flow, 0, flow.error.msg if flow.error else None)

    def log(self, flow: http.HTTPFlow, sent_bytes: int, error: str | None) -> None:
        """Print the line of a request to a registry, or through the proxy."""
        if door(flow.request) in (None, Door.OWN):
            return
        line = log_line(flow, exchange_of(flow), sent_bytes, error, time.time())
        try:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
        except OSError as failure:
            logger.debug("the access log cannot be written: %s", failure)


def log_line(flow: http.HTTPFlow, exchange: Exchange | None, sent_bytes: int, error: str | None, now_s: float) -> str:
    """Return the line for one request; JSON escapes control characters."""
    request, response = flow.request, flow.response
    upstream = flow.server_conn.peername if flow.server_conn.timestamp_start is not None else None
    began_s = request.timestamp_start
    return json.dumps(
        {
            "access_time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now_s)),
            "upstream_cache_status": exchange.cache_status if exchange else "",
            "method": request.method,
            "uri": request.path.partition("?")[0],
            "request_type": exchange.request_class if exchange else "unknown",
            "status": str(response.status_code) if response else "",
            "bytes_sent": str(sent_bytes),
            "upstream_response_time": "",
            "host": request.host,
            "proxy_host": request.host,
            "upstream": f"{upstream[0]}:{upstream[1]}" if upstream else "",
            "client_ip": flow.client_conn.peername[0] if flow.client_conn.peername else "",
            "user_agent": request.headers.get("user-agent", ""),
            "image": _image(exchange),
            "duration_s": f"{max(0.0, now_s - began_s):.3f}",
            "error": error or (exchange.error if exchange else None) or "",
        },
        separators=(",", ":"),
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
