"""A client's request for a token (`GET https://auth.docker.io/token?service=...`), answered in an outage (contract A3).

The registry's challenge has sent the client to its token server. While that does not answer, a client without a login
gets a token of our own: it opens nothing, is never sent to anybody, and makes the client ask for what is stored. A
client with a login gets one only if the token server took this very login a while ago: a password that nobody can check
is not confirmed.
"""

import json
import time
from datetime import UTC, datetime
from urllib.parse import parse_qs

from mitmproxy import http

from regproxy.oci.endpoint import Endpoint, Other
from regproxy.oci.errors import ErrorCode
from regproxy.origin.errors import Answer, AnswerTooLarge, UpstreamUnavailable
from regproxy.origin.patience import within
from regproxy.origin.request import UpstreamRequest, header_pairs
from regproxy.origin.token_answers import parse_token_answer
from regproxy.origin.tokens import TOKEN_ANSWER_LIMIT_BYTES, TOKEN_LIMIT_S
from regproxy.policy.breaker import Need
from regproxy.policy.freshness import Status, stale_allowed
from regproxy.stack.answers import answer, oci_error, relay
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, opened_by, trace_of, unanswered
from regproxy.stack.manifests import REVALIDATION_LIMIT_S
from regproxy.stack.stale_logins import may_go_on
from regproxy.stack.upstream_requests import sendable, url

OWN_TOKEN_LIFETIME_S = 60
"""What the token specification has for a server that says nothing: after an outage real tokens are soon asked for."""


class TokenRequests:
    """Passes requests for tokens on, and stands in for a token server that does not answer."""

    name = "registry-token-requests"

    def __init__(self, core: Core) -> None:
        self._core = core

    async def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Refuse a form while its server does not answer: whoever sends one asks by GET then, which is answered here.

        Containerd sends its logins so, in a body that passes through unread, and takes 405 for "no forms here".
        """
        exchange = unanswered(flow)
        if exchange is None or flow.request.method != "POST" or not isinstance(exchange.endpoint, Other):
            return
        target, is_drill = url(exchange, flow.request.path), exchange.drill is not None
        question = UpstreamRequest("GET", target, (), follow_redirects=False, is_drill=is_drill)
        try:
            async with within(REVALIDATION_LIMIT_S, Need.OPTIONAL):
                await self._core.upstream.ask(question, TOKEN_ANSWER_LIMIT_BYTES)
        except (UpstreamUnavailable, TimeoutError) as error:
            exchange.error = str(error) or f"{exchange.registry} did not answer in {REVALIDATION_LIMIT_S:g} s"
            flow.request.stream = False
            flow.response = oci_error(405, ErrorCode.UNSUPPORTED, f"{exchange.error}: ask for the token by GET")
        except AnswerTooLarge:
            pass  # it answers

    async def request(self, flow: http.HTTPFlow) -> None:
        """Answer a request for a token."""
        exchange = unanswered(flow)
        if exchange is None or not asks_for_token(flow.request.method, exchange.endpoint, flow.request.path):
            return
        accepted = self._core.accepted_logins
        may_stand_in = not exchange.client_has_credentials or accepted.is_accepted(exchange.registry, exchange.client)
        limit_s, need = (REVALIDATION_LIMIT_S, Need.OPTIONAL) if may_stand_in else (TOKEN_LIMIT_S, Need.REQUIRED)
        try:
            async with within(limit_s, need):
                upstream = await self._core.upstream.ask(_request(flow, exchange), TOKEN_ANSWER_LIMIT_BYTES)
        except (UpstreamUnavailable, AnswerTooLarge) as error:
            exchange.error = str(error)
        except TimeoutError:
            exchange.error = f"{exchange.registry} gave no token in {limit_s:g} s"
        else:
            self._learn(exchange, upstream)
            if upstream.status in (401, 403) and await may_go_on(self._core, flow.request, exchange):
                exchange.error = f"{exchange.registry} refuses this client's login; it goes on by the operator's"
                flow.response = self._own_token(exchange)
                return
            if not may_stand_in or not stale_allowed(Status(upstream.status)):
                flow.response = relay(upstream, head=False)
                return
            exchange.error = f"{exchange.registry} answered {upstream.status}"
        if may_stand_in:
            exchange.cache_status = CacheStatus.STALE
            flow.response = self._own_token(exchange)
        else:
            text = f"{exchange.error}: the credentials cannot be checked now"
            flow.response = oci_error(503, ErrorCode.UNAVAILABLE, text)

    def _learn(self, exchange: Exchange, upstream: Answer) -> None:
        """Remember whose token this is, and whether the login was right."""
        if upstream.status == 401:
            self._core.accepted_logins.refused(exchange.registry, exchange.client)
        if upstream.status != 200:
            return
        try:
            issued = parse_token_answer(upstream.body, time.time())
        except ValueError:
            return
        self._core.identities.given(issued.token, exchange.client)
        self._core.accepted_logins.accepted(exchange.registry, exchange.client)

    def _own_token(self, exchange: Exchange) -> http.Response:
        token = self._core.identities.give(exchange.client)
        body = {
            "token": token,
            "access_token": token,
            "expires_in": OWN_TOKEN_LIFETIME_S,
            "issued_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())


def asks_for_token(method: str, endpoint: Endpoint, target: str) -> bool:
    """Whether a request is one for a token: its query says for which service or what (token specification)."""
    if method != "GET" or not isinstance(endpoint, Other):
        return False
    fields = parse_qs(target.partition("?")[2], keep_blank_values=True)
    return "service" in fields or "scope" in fields


def _request(flow: http.HTTPFlow, exchange: Exchange) -> UpstreamRequest:
    fields: dict[str, str | None] = {
        "Accept": sendable(", ".join(flow.request.headers.get_all("accept"))),
        "Authorization": exchange.authorization,
        "User-Agent": sendable(flow.request.headers.get("user-agent", "")),
    }
    target = url(exchange, flow.request.path)
    return UpstreamRequest(
        "GET",
        target,
        header_pairs(fields),
        trace_of(exchange),
        opened_by=opened_by(exchange),
        follow_redirects=False,
        owner=exchange.credential,
        is_drill=exchange.drill is not None,
    )
