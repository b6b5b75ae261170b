"""The upstream client that logs in by itself where a client brought no credentials, or some that are refused."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

from regproxy.origin.callers import Caller, Callers
from regproxy.origin.client import Response, Upstream, UpstreamOptions
from regproxy.origin.errors import UpstreamUnavailable
from regproxy.origin.logins import CredentialSource, Logins, Shown
from regproxy.origin.observer import Observer
from regproxy.origin.quota import Quotas
from regproxy.origin.refused_logins import RefusedLogins
from regproxy.origin.request import UpstreamRequest
from regproxy.origin.tokens import Tokens
from regproxy.policy.interception import HostPattern
from regproxy.policy.openers import OpenedBy, opener_text
from regproxy.policy.precedence import FALLBACK_STATUSES
from regproxy.policy.realms import Access
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
        self._refused = RefusedLogins()
        self.quotas = Quotas()
        self.callers = Callers()

    @contextlib.asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[Response]:
        """Send a request as `Upstream.send` does, and log in if that is wanted.

        Raises `UpstreamUnavailable`, also when the registry wants a token and its token server gives no answer.
        """
        self.refuse_early(request.url, is_drill=request.is_drill)
        async with AsyncExitStack() as stack:
            if request.access is not None:
                response = await self._logged_in(stack, request, request.access)
            elif request.fallback is not None:
                response = await self._own_first(stack, request, request.fallback)
            else:
                response = await self._counted(stack, request, self._caller_of(request))
            if request.trace is not None:
                request.trace.opener = opener_text(response.opened_by, response.credential)
            yield response

    async def _logged_in(self, stack: AsyncExitStack, request: UpstreamRequest, access: Access) -> Response:
        shown = await self.logins.before(request.url, access)
        response = await self._showing(stack, request, shown)
        if response.status == 401 and _is_registrys(response, request.url):
            second = await self.logins.after(request.url, access, shown, _challenges(response))
            if second is not None:
                response.release()
                response = await self._showing(stack, request, second)
                if response.status == 401 and _is_registrys(response, request.url):
                    self.logins.refused(request.url, second)
        return response

    async def _counted(self, stack: AsyncExitStack, request: UpstreamRequest, caller: Caller) -> Response:
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

    async def _showing(self, stack: AsyncExitStack, request: UpstreamRequest, shown: Shown) -> Response:
        if shown.header is not None:
            headers = (*request.headers, ("Authorization", shown.header))
            opened_by = OpenedBy.NOBODY if shown.credential is None else OpenedBy.OPERATOR
            request = replace(request, headers=headers, opened_by=opened_by)
        response = await self._counted(stack, request, self.callers.of_operator(shown.credential))
        response.credential = shown.credential
        return response

    async def _own_first(self, stack: AsyncExitStack, request: UpstreamRequest, access: Access) -> Response:
        """Show the client's own Authorization, and the proxy's if the registry refuses that (contract A2)."""
        was_refused = request in self._refused
        if was_refused:
            ours = await self._opened_by_ours(stack, request, access)
            if ours is not None:
                return ours
        response = await self._counted(stack, request, self._caller_of(request))
        if was_refused or response.status not in FALLBACK_STATUSES or not _is_registrys(response, request.url):
            return response
        if response.status == 401:
            self.logins.learn(request.url, _challenges(response))
        # Without a login of the operator there is an anonymous token, for which this client's quota is ours.
        is_expired_anonymous = request.is_anonymous and response.status == 401
        if is_expired_anonymous or await self.logins.has_login(request.url, access.name):
            ours = await self._opened_by_ours(stack, request, access)
            if ours is not None:
                self._refused.add(request)
                response.release()
                return ours
        return response

    async def _opened_by_ours(self, stack: AsyncExitStack, request: UpstreamRequest, access: Access) -> Response | None:
        """Return the answer to the proxy's own login; None if it opens nothing: the client gets what its own got."""
        headers = tuple(pair for pair in request.headers if pair[0].lower() != "authorization")
        ours = replace(request, headers=headers, access=access, fallback=None, opened_by=OpenedBy.NOBODY)
        try:
            response = await self._logged_in(stack, ours, access)
        except UpstreamUnavailable:
            return None
        if response.status < 400:
            return response
        response.release()
        return None


def _is_registrys(response: Response, registry: Url) -> bool:
    """Whether the registry itself answered: what a host says that it redirected to is nobody's challenge."""
    return str(response.url.origin()) == registry.origin


def _challenges(response: Response) -> list[str]:
    return response.headers.getall("WWW-Authenticate", [])
