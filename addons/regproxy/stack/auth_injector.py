"""Adds the operator's credentials to requests that bring none (contract section 1.5).

The header is set on the request to the host it is configured for, and nowhere else: redirects of our own requests
drop it (`regproxy.policy.redirects`), a client that follows a redirect asks again with its own fields.
"""

from typing import assert_never

from mitmproxy import http

from regproxy.oci.endpoint import V1, Blob, BlobUpload, Catalog, Manifest, Other, Ping, Referrers, Tags
from regproxy.policy.credentials import choose_authorization, repository_of_scope
from regproxy.stack.answers import first_value
from regproxy.stack.core import Core
from regproxy.stack.exchange import Exchange, unanswered


class AuthInjector:
    """Chooses the Authorization of every request to a registry or token host."""

    name = "registry-auth-injector"

    def __init__(self, core: Core) -> None:
        self._core = core

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Set what is sent upstream."""
        exchange = unanswered(flow)
        if exchange is None:
            return
        own = first_value(flow.request.headers, "authorization")
        exchange.client_has_credentials = own is not None
        registry = exchange.registry
        exchange.authorization = choose_authorization(
            own, registry.host, registry.port, self._core.settings.credentials, _repository(flow, exchange)
        )
        if exchange.authorization is not None:
            flow.request.headers["authorization"] = exchange.authorization
        # Meant for this proxy (RFC 9110 section 11.7.1), whatever it holds.
        flow.request.headers.pop("proxy-authorization", None)


def _repository(flow: http.HTTPFlow, exchange: Exchange) -> str | None:
    """Return the repository that a request is about, None when it names none."""
    match exchange.endpoint:
        case Blob(name) | Manifest(name) | BlobUpload(name) | Tags(name) | Referrers(name):
            return name
        case Other():
            return repository_of_scope(flow.request.path)
        case Ping() | Catalog() | V1():
            return None
        case _ as unreachable:
            assert_never(unreachable)
