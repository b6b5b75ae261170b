"""Clients whose login a token server refuses, on their way to a pull that the operator's login opens.

Where the operator's may take the place of the client's (`AUTH_PRECEDENCE`), an old password on a node must not end its
pulls at the token server. Such a client gets a token of this proxy's own, which opens nothing anywhere: with it the
client goes on to the registry, where the proxy shows what it has. A question that names no repository to pull is
`docker login`'s: its refusal stays (contract A3).
"""

import json

from mitmproxy import http

from regproxy.oci.endpoint import Other
from regproxy.policy.credentials import is_pull, repository_of_scope
from regproxy.policy.precedence import Precedence
from regproxy.stack.access_log import PassedBytes
from regproxy.stack.core import Core
from regproxy.stack.exchange import Exchange, exchange_of

TOKEN_LIFETIME_S = 300


class StaleLogins:
    """Stands behind `client_tokens`, which sees the tokens that are given."""

    name = "registry-stale-logins"

    def __init__(self, core: Core) -> None:
        self._core = core

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Give a token in the place of a refusal."""
        exchange = exchange_of(flow)
        if exchange is None or flow.response is None or not isinstance(flow.response.stream, PassedBytes):
            return
        if flow.response.status_code in (401, 403) and await self._may_go_on(flow.request, exchange):
            token = self._core.identities.give(exchange.client)
            body = json.dumps({"token": token, "access_token": token, "expires_in": TOKEN_LIFETIME_S}).encode()
            fields = ((b"Content-Type", b"application/json"), (b"Content-Length", str(len(body)).encode()))
            flow.response.status_code, flow.response.reason = 200, "OK"
            flow.response.headers = http.Headers(fields)
            flow.response.stream = _Instead(body)

    async def _may_go_on(self, request: http.Request, exchange: Exchange) -> bool:
        if self._core.settings.auth_precedence is Precedence.CLIENT or not exchange.client_has_credentials:
            return False
        if request.method != "GET" or not isinstance(exchange.endpoint, Other) or not is_pull(request.path):
            return False
        server, repository = exchange.registry, repository_of_scope(request.path)
        return await self._core.upstream.logins.usable(server.host, server.port, repository) is not None


class _Instead(PassedBytes):
    """Lets a body of ours go in the place of the upstream's."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._body = body

    def __call__(self, data: bytes) -> bytes:
        if data:
            return b""
        return super().__call__(self._body)
