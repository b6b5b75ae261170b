"""The upstream client that logs in by itself where a client brought no credentials."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp

from regproxy.origin.client import Upstream, UpstreamOptions, UpstreamRequest
from regproxy.origin.logins import CredentialSource, Logins, Shown
from regproxy.origin.observer import Observer
from regproxy.origin.tokens import Tokens
from regproxy.policy.interception import HostPattern
from regproxy.policy.redirects import Url


class AuthorizedUpstream(Upstream):
    """Sends a request with `access` under the proxy's own login; one other attempt follows a 401 (contract A1)."""

    def __init__(
        self,
        options: UpstreamOptions,
        credentials: CredentialSource,
        trusted: tuple[HostPattern, ...] = (),
        observer: Observer | None = None,
    ) -> None:
        super().__init__(options, observer)
        self.logins = Logins(Tokens(self), credentials, trusted)

    @contextlib.asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request as `Upstream.send` does, and log in if that is wanted.

        Raises `UpstreamUnavailable`, also when the registry wants a token and its token server gives no answer.
        """
        self.refuse_early(request.url)
        async with contextlib.AsyncExitStack() as stack:
            if request.access is None:
                yield await stack.enter_async_context(super().send(request))
                return
            shown = await self.logins.before(request.url, request.access)
            response = await stack.enter_async_context(super().send(_showing(request, shown)))
            if _asks_for_login(response, request.url):
                fields = response.headers.getall("WWW-Authenticate", [])
                second = await self.logins.after(request.url, request.access, shown, fields)
                if second is not None:
                    response.release()
                    response = await stack.enter_async_context(super().send(_showing(request, second)))
                    if _asks_for_login(response, request.url):
                        self.logins.refused(request.url, second)
            yield response


def _showing(request: UpstreamRequest, shown: Shown) -> UpstreamRequest:
    if shown.header is None:
        return request
    return replace(request, headers=(*request.headers, ("Authorization", shown.header)))


def _asks_for_login(response: aiohttp.ClientResponse, registry: Url) -> bool:
    """Whether the registry itself said 401: what a host says that it redirected to is nobody's challenge."""
    return response.status == 401 and str(response.url.origin()) == registry.origin
