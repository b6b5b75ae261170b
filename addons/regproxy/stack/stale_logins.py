"""Clients whose login a token server refuses, on their way to a pull that the operator's login opens.

Where the operator's may take the place of the client's (`AUTH_PRECEDENCE`), an old password on a node must not end its
pulls at the token server. Such a client gets a token of this proxy's own (`token_requests`), which opens nothing
anywhere: with it the client goes on to the registry, where the proxy shows what it has. A question that names no
repository to pull is `docker login`'s: its refusal stays (contract A3).
"""

from mitmproxy import http

from regproxy.policy.credentials import is_pull, repository_of_scope
from regproxy.policy.precedence import Precedence
from regproxy.stack.core import Core
from regproxy.stack.exchange import Exchange


async def may_go_on(core: Core, request: http.Request, exchange: Exchange) -> bool:
    """Whether a client whose request for a token was refused may pull by the operator's login."""
    if core.settings.auth_precedence is Precedence.CLIENT or not exchange.client_has_credentials:
        return False
    if not is_pull(request.path):
        return False
    server, repository = exchange.registry, repository_of_scope(request.path)
    return await core.upstream.logins.usable(server.host, server.port, repository) is not None
