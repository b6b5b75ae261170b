"""`GET /v2/`: the first request of every pull, answered here when the registry cannot (contract rule A3).

Without it a warm cache is useless in an outage: clients ask `/v2/` first and give up. A client without credentials gets
what the registry answered last, for `docker login` would take a 200 in the place of a challenge for a success; 200 if
nothing is known, or if the challenge names a token server that is not intercepted, whose answers nobody here can give.
A token is no password and gets 200; a password only if the registry or its token server took it a while ago.

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
from regproxy.oci.names import Registry
from regproxy.origin.errors import Answer, AnswerTooLarge, UpstreamUnavailable
from regproxy.origin.patience import within
from regproxy.policy.breaker import Need
from regproxy.policy.credentials import Credential
from regproxy.policy.freshness import Status, stale_allowed
from regproxy.policy.identities import token_of_header
from regproxy.policy.interception import is_intercepted
from regproxy.stack.answers import answer, relay, status_for, unavailable
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, unanswered
from regproxy.stack.manifests import REVALIDATION_LIMIT_S
from regproxy.stack.upstream_requests import ping_request, url

_WELCOME = answer(200, {"Content-Type": "application/json", "Docker-Distribution-Api-Version": "registry/2.0"}, b"{}")

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
        lifetime_s = 0.0 if not _is_lasting(upstream) else KNOWN_S if opener is None else OPENED_S
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
            last = None if exchange.client_has_credentials else self._last(exchange)
            flow.response = _WELCOME.copy() if last is None else relay(last, head=flow.request.method == "HEAD")

    async def _ask(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Set the registry's answer, or say in the exchange why there is none."""
        has_credentials = exchange.client_has_credentials
        may_stand_in = not has_credentials or self._is_accepted(exchange)
        try:
            async with within(REVALIDATION_LIMIT_S, Need.OPTIONAL) if may_stand_in else nullcontext():
                upstream, opener = await self._registrys_answer(flow, exchange)
        except TimeoutError:
            exchange.error = f"{exchange.registry} did not answer in {REVALIDATION_LIMIT_S:g} s"
        except (UpstreamUnavailable, AnswerTooLarge) as error:
            exchange.error = str(error)
            if not may_stand_in:
                flow.response = _not_checked(error)
        else:
            if has_credentials:
                self._learn(exchange, upstream)
            elif flow.request.method == "GET" and upstream.status in (200, 401):
                self._remember(exchange.registry, upstream, opener)
            if not may_stand_in or not stale_allowed(Status(upstream.status)):
                flow.response = relay(upstream, head=flow.request.method == "HEAD")
            else:
                exchange.error = f"{exchange.registry} answered {upstream.status}"

    def _is_accepted(self, exchange: Exchange) -> bool:
        """Whether credentials of a client's own are known to be good, as far as an outage allows."""
        if token_of_header(exchange.authorization or "") is not None:
            return True
        hosts, realm = [exchange.registry], self._core.upstream.logins.realm_of(url(exchange, "/v2/"))
        if realm is not None:
            hosts.append(Registry(realm.url.host, realm.url.port))
        return any(self._core.accepted_logins.is_accepted(host, exchange.client) for host in hosts)

    def _learn(self, exchange: Exchange, upstream: Answer) -> None:
        """Remember whether the registry took a client's password."""
        if upstream.status == 200:
            self._core.accepted_logins.accepted(exchange.registry, exchange.client)
        elif upstream.status == 401:
            self._core.accepted_logins.refused(exchange.registry, exchange.client)

    def _last(self, exchange: Exchange) -> Answer | None:
        """Return what the registry answered last, however long ago, if a client can go on from it in an outage."""
        known = self._known.get(exchange.registry)
        if known is None or known.answer.status == 200:
            return None
        realm = self._core.upstream.logins.realm_of(url(exchange, "/v2/"))
        challenge = known.answer.headers.get("WWW-Authenticate", "").lower()
        if not challenge.startswith("bearer"):
            return known.answer
        is_answerable = realm is not None and is_intercepted(
            realm.url.host, realm.url.port, self._core.settings.registries
        )
        return known.answer if is_answerable else None

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


def _not_checked(error: UpstreamUnavailable | AnswerTooLarge) -> http.Response:
    reason = f"{error}: the credentials cannot be checked now"
    if isinstance(error, AnswerTooLarge):
        return unavailable(503, reason)
    return unavailable(status_for(error.failure, 503), reason, error.retry_at_s)


def _is_lasting(upstream: Answer) -> bool:
    """Whether an answer to a ping stands for the next ones: a password that was refused may be another one by then."""
    challenge = upstream.headers.get("WWW-Authenticate", "").lower()
    return upstream.status == 200 or (upstream.status == 401 and challenge.startswith("bearer"))
