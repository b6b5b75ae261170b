"""The requests that the stack sends for a client."""

from mitmproxy import http

from regproxy.oci.endpoint import Blob, Manifest, build_path
from regproxy.origin.client import UpstreamRequest, header_pairs
from regproxy.policy.openers import OpenedBy
from regproxy.policy.realms import Access
from regproxy.policy.redirects import Url
from regproxy.stack.exchange import Exchange, trace_of


def content_request(method: str, flow: http.HTTPFlow, exchange: Exchange, endpoint: Blob | Manifest) -> UpstreamRequest:
    """Ask the registry for content, with what the client accepts and its authorization, or else the proxy's own."""
    fields: dict[str, str | None] = {
        "Accept": ", ".join(flow.request.headers.get_all("accept")),
        "Authorization": _own_authorization(exchange),
        "User-Agent": flow.request.headers.get("user-agent"),
    }
    access = None if exchange.client_has_credentials else Access(endpoint.name)
    target = url(exchange, build_path(endpoint))
    return UpstreamRequest(method, target, header_pairs(fields), trace_of(exchange), access, _opened_by(exchange))


def ping_request(flow: http.HTTPFlow, exchange: Exchange, *, takes_tokens: bool) -> UpstreamRequest:
    """Ask the registry whether it is there, and whether the client, or else the proxy, may come in."""
    fields: dict[str, str | None] = {
        "Authorization": _own_authorization(exchange),
        "User-Agent": flow.request.headers.get("user-agent"),
    }
    access = None if exchange.client_has_credentials else Access(None, takes_tokens)
    target = url(exchange, "/v2/")
    opened_by = _opened_by(exchange)
    return UpstreamRequest(flow.request.method, target, header_pairs(fields), trace_of(exchange), access, opened_by)


def _own_authorization(exchange: Exchange) -> str | None:
    return exchange.authorization if exchange.client_has_credentials else None


def _opened_by(exchange: Exchange) -> OpenedBy:
    # A token that only says itself that it is nobody's may be somebody's: what it opens is not public.
    is_somebodys = not exchange.client.is_nobody or exchange.has_unseen_token
    return OpenedBy.CLIENT if exchange.client_has_credentials and is_somebodys else OpenedBy.NOBODY


def url(exchange: Exchange, target: str) -> Url:
    """Return a URL of the exchange's registry."""
    return Url("http" if exchange.scheme == "http" else "https", exchange.registry.host, exchange.registry.port, target)
