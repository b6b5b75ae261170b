"""Adds the operator's credentials to requests that bring none (contract section 1.5).

The header is set on the request to the host it is configured for, and nowhere else: redirects of our own requests
drop it (`regproxy.policy.redirects`), a client that follows a redirect asks again with its own fields.

This is for what goes through to the registry or a token server. Our own requests upstream get tokens too
(`regproxy.origin.logins`).
"""

from mitmproxy import http

from regproxy.oci.endpoint import Other
from regproxy.policy.credentials import choose_authorization, find_credential
from regproxy.policy.realms import is_anonymous_bearer
from regproxy.stack.answers import first_value
from regproxy.stack.core import Core
from regproxy.stack.exchange import exchange_of, unanswered
from regproxy.stack.passed_reads import repository_read


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
        registry = exchange.registry
        logins = self._core.upstream.logins
        usable = [each for each in self._core.settings.credentials if not logins.is_resting(each)]
        credential = find_credential(registry.host, registry.port, usable)
        # Contract A2: a token that was given to nobody in particular is no login of the client's.
        is_read = repository_read(flow.request.method, exchange.endpoint) is not None
        if own is not None and credential is not None and is_read and is_anonymous_bearer(own):
            own = None
        exchange.client_has_credentials = own is not None
        exchange.credential = None if own is not None else credential
        exchange.authorization = choose_authorization(own, registry.host, registry.port, usable)
        if exchange.authorization is not None:
            flow.request.headers["authorization"] = exchange.authorization
        # Meant for this proxy (RFC 9110 section 11.7.1), whatever it holds.
        flow.request.headers.pop("proxy-authorization", None)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Let a password rest that a token server refused: the next client's request must not repeat it."""
        exchange = exchange_of(flow)
        if exchange is None or exchange.credential is None or flow.response is None:
            return
        if flow.response.status_code == 401 and isinstance(exchange.endpoint, Other):
            self._core.upstream.logins.rest(exchange.credential, str(exchange.registry))
