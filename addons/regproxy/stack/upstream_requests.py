"""The requests that the stack sends for a client."""

from mitmproxy import http

from regproxy.oci.endpoint import Blob, Manifest, build_path
from regproxy.origin.callers import Callers
from regproxy.origin.request import UpstreamRequest, header_pairs
from regproxy.policy.realms import Access
from regproxy.policy.redirects import Url
from regproxy.stack.exchange import Exchange, opened_by, trace_of


def content_request(method: str, flow: http.HTTPFlow, exchange: Exchange, endpoint: Blob | Manifest) -> UpstreamRequest:
    """Ask the registry for content, with what the client accepts and its authorization, or else the proxy's own."""
    return read_request(method, flow, exchange, endpoint.name, build_path(endpoint))


def read_request(method: str, flow: http.HTTPFlow, exchange: Exchange, name: str, target: str) -> UpstreamRequest:
    """Ask the registry for something of the repository `name`, as `content_request`; `target` is path and query."""
    fields: dict[str, str | None] = {
        "Accept": sendable(", ".join(flow.request.headers.get_all("accept"))),
        "Authorization": _own_authorization(exchange),
        "User-Agent": sendable(flow.request.headers.get("user-agent", "")),
    }
    access = Access(name)
    return UpstreamRequest(
        method,
        url(exchange, target),
        header_pairs(fields),
        trace_of(exchange),
        access=None if exchange.client_has_credentials else access,
        fallback=access if exchange.client_has_credentials and exchange.may_fall_back else None,
        opened_by=opened_by(exchange),
        is_anonymous=exchange.client_has_credentials and exchange.client.is_nobody,
        is_drill=exchange.drill is not None,
    )


def ping_request(flow: http.HTTPFlow, exchange: Exchange, *, takes_tokens: bool) -> UpstreamRequest:
    """Ask the registry whether it is there, and whether the client, or else the proxy, may come in."""
    fields: dict[str, str | None] = {
        "Authorization": _own_authorization(exchange),
        "User-Agent": sendable(flow.request.headers.get("user-agent", "")),
    }
    return UpstreamRequest(
        flow.request.method,
        url(exchange, "/v2/"),
        header_pairs(fields),
        trace_of(exchange),
        access=None if exchange.client_has_credentials else Access(None, takes_tokens),
        opened_by=opened_by(exchange),
        is_drill=exchange.drill is not None,
    )


def sendable(value: str) -> str:
    """Return a field's value as aiohttp takes it: it raises for bytes that are no UTF-8 and for control characters."""
    text = value.encode("utf-8", "replace").decode()
    return "".join(character if character >= " " and character != "\x7f" else " " for character in text)


def _own_authorization(exchange: Exchange) -> str | None:
    return exchange.authorization if exchange.client_has_credentials else None


def fingerprint(callers: Callers, exchange: Exchange) -> str:
    """Return what stands for the client's own authorization; empty when the proxy asks on its own account."""
    return callers.fingerprint(_own_authorization(exchange))


def url(exchange: Exchange, target: str) -> Url:
    """Return a URL of the exchange's registry."""
    return Url("http" if exchange.scheme == "http" else "https", exchange.registry.host, exchange.registry.port, target)
