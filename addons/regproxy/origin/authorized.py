"""The upstream client that logs in by itself where a client brought no credentials."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp

from regproxy.origin.callers import Caller, Callers
from regproxy.origin.client import Upstream, UpstreamOptions, UpstreamRequest
from regproxy.origin.logins import CredentialSource, Logins, Shown
from regproxy.origin.observer import Observer
from regproxy.origin.quota import Quotas
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
        self.quotas = Quotas()
        self.callers = Callers()

    @contextlib.asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request as `Upstream.send` does, and log in if that is wanted.

        Raises `UpstreamUnavailable`, also when the registry wants a token and its token server gives no answer.
        """
        async with contextlib.AsyncExitStack() as stack:
            if request.access is None:
                yield await self._counted(stack, request, self._caller_of(request))
                return
            shown = await self.logins.before(request.url, request.access)
            response = await self._counted(stack, _showing(request, shown), self.callers.of_operator(shown.credential))
            if _asks_for_login(response, request.url):
                fields = response.headers.getall("WWW-Authenticate", [])
                second = await self.logins.after(request.url, request.access, shown, fields)
                if second is not None:
                    response.release()
                    caller = self.callers.of_operator(second.credential)
                    response = await self._counted(stack, _showing(request, second), caller)
                    if _asks_for_login(response, request.url):
                        self.logins.refused(request.url, second)
            yield response

    async def _counted(
        self, stack: contextlib.AsyncExitStack, request: UpstreamRequest, caller: Caller
    ) -> aiohttp.ClientResponse:
        """Send a request on an account, if its limits allow it, and take note of the answer."""
        self.quotas.check(request.url, request.method, caller, dispensable=request.dispensable)
        response = await stack.enter_async_context(super().send(request))
        self.quotas.observe(
            request.url,
            request.method,
            caller,
            status=response.status,
            fields=response.headers,
            answered_by=str(response.url.origin()),
        )
        return response

    def _caller_of(self, request: UpstreamRequest) -> Caller:
        """Return the account of a request that carries its own authorization, or none."""
        if request.owner is not None:
            return self.callers.of_operator(request.owner)
        shown = next((value for name, value in request.headers if name == "Authorization"), None)
        return self.callers.of_client(shown)


def _showing(request: UpstreamRequest, shown: Shown) -> UpstreamRequest:
    if shown.header is None:
        return request
    return replace(request, headers=(*request.headers, ("Authorization", shown.header)))


def _asks_for_login(response: aiohttp.ClientResponse, registry: Url) -> bool:
    """Whether the registry itself said 401: what a host says that it redirected to is nobody's challenge."""
    return response.status == 401 and str(response.url.origin()) == registry.origin
