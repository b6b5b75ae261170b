"""Chooses between a client's own credentials and the operator's (contract section 1.5, `policy.precedence`).

The header is set on the request to the host it is configured for, and nowhere else: redirects of our own requests
drop it (`regproxy.policy.redirects`), a client that follows a redirect asks again with its own fields.

This is for what goes through to the registry or a token server. Our own requests upstream get tokens too
(`regproxy.origin.logins`).
"""

from typing import assert_never

from mitmproxy import http

from regproxy.oci.endpoint import V1, Blob, BlobUpload, Catalog, Manifest, Other, Ping, Referrers, Tags
from regproxy.policy.credentials import Credential, authorization_of, repository_of_scope
from regproxy.policy.precedence import Own, Turn, turn_of
from regproxy.stack.answers import first_value
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, exchange_of, unanswered
from regproxy.stack.passed_reads import repository_read
from regproxy.stack.upstream_requests import url


class AuthInjector:
    """Chooses the Authorization of every request to a registry or token host."""

    name = "registry-auth-injector"

    def __init__(self, core: Core) -> None:
        self._core = core

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Set what is sent upstream."""
        exchange = unanswered(flow)
        if exchange is None:
            return
        own = first_value(flow.request.headers, "authorization")
        exchange.client = await self._core.identities.of(own)
        turn = await self._turn(flow, exchange, own)
        exchange.may_fall_back = turn.then_proxys
        credential = None
        if not turn.own_first:
            if own is None or repository_read(flow.request.method, exchange.endpoint) is not None:
                credential = await self._of_operator(flow, exchange)
            own = None
            flow.request.headers.pop("authorization", None)
        exchange.client_has_credentials = own is not None
        exchange.credential = credential
        exchange.authorization = authorization_of(credential) if credential is not None else own
        if exchange.authorization is not None:
            flow.request.headers["authorization"] = exchange.authorization
        # Meant for this proxy (RFC 9110 section 11.7.1), whatever it holds.
        flow.request.headers.pop("proxy-authorization", None)

    async def _turn(self, flow: http.HTTPFlow, exchange: Exchange, own: str | None) -> Turn:
        """Return whose credentials come first; the client's own where they may be a proof or part of a push."""
        kind = self._core.identities.kind_of(own)
        name = repository_read(flow.request.method, exchange.endpoint)
        if kind is Own.NOTHING or name is None or exchange.cache_status is CacheStatus.BYPASS:
            return Turn(own_first=kind is not Own.NOTHING)
        has_login = await self._core.upstream.logins.has_login(url(exchange, "/v2/"), name)
        return turn_of(self._core.settings.auth_precedence, kind, operator_has_login=has_login)

    async def _of_operator(self, flow: http.HTTPFlow, exchange: Exchange) -> Credential | None:
        """Return the operator's credential for a request, if it was not refused lately."""
        registry, repository = exchange.registry, _repository(flow, exchange)
        return await self._core.upstream.logins.usable(registry.host, registry.port, repository)

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Have a refused login asked for anew, and let the password rest if it was a token server that refused it."""
        exchange = exchange_of(flow)
        if exchange is None or exchange.credential is None or flow.response is None or flow.response.status_code != 401:
            return
        self._core.credentials.distrust(exchange.registry.host, exchange.registry.port)
        if isinstance(exchange.endpoint, Other):
            self._core.upstream.logins.rest(exchange.credential, str(exchange.registry))


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
