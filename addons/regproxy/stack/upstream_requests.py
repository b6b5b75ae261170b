"""The requests that the stack sends for a client."""

from mitmproxy import http

from regproxy.oci.endpoint import Blob, Manifest, build_path
from regproxy.origin.client import UpstreamRequest, header_pairs
from regproxy.policy.redirects import Url
from regproxy.stack.exchange import Exchange, trace_of


def content_request(method: str, flow: http.HTTPFlow, exchange: Exchange, endpoint: Blob | Manifest) -> UpstreamRequest:
    """Ask the registry for content, with what the client accepts and the authorization chosen for it."""
    fields: dict[str, str | None] = {
        "Accept": ", ".join(flow.request.headers.get_all("accept")),
        "Authorization": exchange.authorization,
        "User-Agent": flow.request.headers.get("user-agent"),
    }
    return UpstreamRequest(method, url(exchange, build_path(endpoint)), header_pairs(fields), trace_of(exchange))


def ping_request(flow: http.HTTPFlow, exchange: Exchange) -> UpstreamRequest:
    """Ask the registry whether it is there, and whether the client may come in."""
    fields: dict[str, str | None] = {
        "Authorization": exchange.authorization,
        "User-Agent": flow.request.headers.get("user-agent"),
    }
    return UpstreamRequest(flow.request.method, url(exchange, "/v2/"), header_pairs(fields), trace_of(exchange))


def url(exchange: Exchange, target: str) -> Url:
    """Return a URL of the exchange's registry."""
    return Url("http" if exchange.scheme == "http" else "https", exchange.registry.host, exchange.registry.port, target)
