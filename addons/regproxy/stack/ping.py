"""`GET /v2/`: the first request of every pull, answered here when the registry cannot (contract rule A3).

Without it a warm cache is useless in an outage: clients ask `/v2/` first and give up. A ping that carries the
client's own credentials is never answered here: `docker login` checks a password with it.

Docker and skopeo send their login only if this answer is a 401 with a challenge, and then need a token of their own for
every pull. So the registry's challenge is passed on wherever a client without a login can live with it: the operator
has no login for the registry (then only the client's may open what is private), or he has one for its token server too,
so that this proxy adds it to the clients' token requests (Docker Hub, and every registry that is its own token server).
Where he has none for the token server, a client without a login would get a token that opens nothing, or none: there
the answer is the registry's 200 to the operator's login, and clients with a login of their own pull by the operator's.
With ALLOW_PUSH a push needs the client's own login: the challenge is always passed on.
"""

import time
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass

from mitmproxy import http

from regproxy.oci.endpoint import Ping
from regproxy.oci.errors import ErrorCode
from regproxy.oci.names import Registry
from regproxy.origin.errors import Answer, AnswerTooLarge, UpstreamUnavailable
from regproxy.origin.patience import within
from regproxy.policy.breaker import Need
from regproxy.policy.credentials import Credential
from regproxy.policy.freshness import Status, stale_allowed
from regproxy.stack.answers import answer, oci_error, relay
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, unanswered
from regproxy.stack.manifests import REVALIDATION_LIMIT_S
from regproxy.stack.upstream_requests import ping_request, url

BODY_LIMIT_BYTES = 64 * 1024


KNOWN_S = 60.0
"""How long a registry's answer stands for the next clients': every pull begins with the same question."""

OPENED_S = 3600.0
"""How long the answer to the operator's login stands: it says no more than that clients need none."""

KNOWN_REGISTRIES = 1000
"""Wildcards could otherwise make a client fill the memory with names."""


@dataclass(frozen=True, slots=True)
class _Known:
    answer: Answer
    until_s: float
    """By the monotonic clock."""
    opener: Credential | None
    """The operator's login that opened the registry, if that is why the answer is 200."""


class RegistryPing:
    """Passes the ping on, and stands in for a registry that does not answer."""

    name = "registry-ping"

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: OrderedDict[Registry, _Known] = OrderedDict()

    def warm(self, registry: Registry) -> Answer | None:
        """Return what the registry answered a moment ago to a ping without the client's credentials."""
        known = self._known.get(registry)
        if known is None or time.monotonic() >= known.until_s:
            return None
        if known.opener is not None and self._core.upstream.logins.is_resting(known.opener):
            return None
        return known.answer

    def _remember(self, registry: Registry, upstream: Answer, opener: Credential | None) -> None:
        lifetime_s = KNOWN_S if opener is None else OPENED_S
        self._known[registry] = _Known(upstream, time.monotonic() + lifetime_s, opener)
        self._known.move_to_end(registry)
        if len(self._known) > KNOWN_REGISTRIES:
            self._known.popitem(last=False)

    async def request(self, flow: http.HTTPFlow) -> None:
        """Answer a ping."""
        exchange = unanswered(flow)
        if exchange is None or not isinstance(exchange.endpoint, Ping) or flow.request.method not in ("GET", "HEAD"):
            return
        await self._ask(flow, exchange)
        if flow.response is None:
            exchange.cache_status = CacheStatus.STALE
            flow.response = answer(
                200, {"Content-Type": "application/json", "Docker-Distribution-Api-Version": "registry/2.0"}, b"{}"
            )

    async def _ask(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Set the registry's answer, or say in the exchange why there is none."""
        has_credentials = exchange.client_has_credentials
        try:
            async with nullcontext() if has_credentials else within(REVALIDATION_LIMIT_S, Need.OPTIONAL):
                upstream, opener = await self._registrys_answer(flow, exchange)
        except TimeoutError:
            exchange.error = f"{exchange.registry} did not answer in {REVALIDATION_LIMIT_S:g} s"
        except (UpstreamUnavailable, AnswerTooLarge) as error:
            exchange.error = str(error)
            if has_credentials:
                flow.response = oci_error(503, ErrorCode.UNAVAILABLE, f"{error}: the credentials cannot be checked now")
        else:
            self._core.access.challenged(exchange.registry, upstream)
            if not has_credentials and flow.request.method == "GET" and _is_lasting(upstream):
                self._remember(exchange.registry, upstream, opener)
            if has_credentials or not stale_allowed(Status(upstream.status)):
                flow.response = relay(upstream, head=flow.request.method == "HEAD")
            else:
                exchange.error = f"{exchange.registry} answered {upstream.status}"

    async def _registrys_answer(self, flow: http.HTTPFlow, exchange: Exchange) -> tuple[Answer, Credential | None]:
        """Return what the registry says to the client, or to the operator's login if that one opens it."""
        opener, challenge = await self._opener(exchange), None
        if opener is None:
            challenge = await self._send(flow, exchange, takes_tokens=False)
            opener = await self._opener(exchange) if challenge.status == 401 else None
            if opener is None:
                return challenge, None
        opened = await self._send(flow, exchange, takes_tokens=True)
        # A login that was refused on the way opens nothing, though `/v2/` may take an anonymous token.
        if opened.status == 200 and not self._core.upstream.logins.is_resting(opener):
            return opened, opener
        return challenge or await self._send(flow, exchange, takes_tokens=False), None

    async def _opener(self, exchange: Exchange) -> Credential | None:
        """Return the login with which the proxy goes on by itself where a client without one could not."""
        settings, logins = self._core.settings, self._core.upstream.logins
        registry = url(exchange, "/v2/")
        realm = logins.realm_of(registry)
        may_push = settings.allow_push or settings.allow_push_with_own_auth
        if exchange.client_has_credentials or may_push or realm is None:
            return None
        if realm.url.host == registry.host or await logins.credential_of(realm.url, None) is not None:
            return None
        credential = await logins.credential_of(registry, None)
        # A login for some repositories would be shown to clients as one for all.
        return None if credential is None or credential.path else credential

    async def _send(self, flow: http.HTTPFlow, exchange: Exchange, *, takes_tokens: bool) -> Answer:
        request = ping_request(flow, exchange, takes_tokens=takes_tokens)
        return await self._core.upstream.ask(request, BODY_LIMIT_BYTES)


def _is_lasting(upstream: Answer) -> bool:
    """Whether an answer to a ping stands for the next ones: a password that was refused may be another one by then."""
    challenge = upstream.headers.get("WWW-Authenticate", "").lower()
    return upstream.status == 200 or (upstream.status == 401 and challenge.startswith("bearer"))
