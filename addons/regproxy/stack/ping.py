"""`GET /v2/`: the first request of every pull, answered here when the registry cannot (contract rule A3).

Without it a warm cache is useless in an outage: clients ask `/v2/` first and give up. A ping that carries the
client's own credentials is never answered here: `docker login` checks a password with it.
"""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from mitmproxy import http

from regproxy.oci.endpoint import Ping
from regproxy.oci.errors import ErrorCode
from regproxy.oci.names import Registry
from regproxy.origin.errors import Answer, AnswerTooLarge, UpstreamUnavailable
from regproxy.policy.freshness import Status, stale_allowed
from regproxy.stack.answers import answer, oci_error, relay
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, unanswered
from regproxy.stack.manifests import REVALIDATION_LIMIT_S
from regproxy.stack.upstream_requests import ping_request

BODY_LIMIT_BYTES = 64 * 1024


KNOWN_S = 60.0
"""How long a registry's answer stands for the next clients': every pull begins with the same question."""

KNOWN_REGISTRIES = 1000
"""Wildcards could otherwise make a client fill the memory with names."""


@dataclass(frozen=True, slots=True)
class _Known:
    answer: Answer
    until_s: float
    """By the monotonic clock."""


class RegistryPing:
    """Passes the ping on, and stands in for a registry that does not answer."""

    name = "registry-ping"

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: OrderedDict[Registry, _Known] = OrderedDict()

    def warm(self, registry: Registry) -> Answer | None:
        """Return what the registry answered a moment ago to a ping without the client's credentials."""
        known = self._known.get(registry)
        return known.answer if known is not None and time.monotonic() < known.until_s else None

    def _remember(self, registry: Registry, upstream: Answer) -> None:
        if upstream.status not in (200, 401):
            return
        self._known[registry] = _Known(upstream, time.monotonic() + KNOWN_S)
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
            async with asyncio.timeout(None if has_credentials else REVALIDATION_LIMIT_S):
                upstream = await self._core.upstream.ask(ping_request(flow, exchange), BODY_LIMIT_BYTES)
        except TimeoutError:
            exchange.error = f"{exchange.registry} did not answer in {REVALIDATION_LIMIT_S:g} s"
        except (UpstreamUnavailable, AnswerTooLarge) as error:
            exchange.error = str(error)
            if has_credentials:
                flow.response = oci_error(503, ErrorCode.UNAVAILABLE, f"{error}: the credentials cannot be checked now")
        else:
            if not has_credentials and flow.request.method == "GET" and not _password_refused(exchange, upstream):
                self._remember(exchange.registry, upstream)
            if has_credentials or not stale_allowed(Status(upstream.status)):
                flow.response = relay(upstream, head=flow.request.method == "HEAD")
            else:
                exchange.error = f"{exchange.registry} answered {upstream.status}"


def _password_refused(exchange: Exchange, upstream: Answer) -> bool:
    """Whether the registry did not take the operator's password, which may be another one by the next ping."""
    wants_password = upstream.headers.get("WWW-Authenticate", "").lower().startswith("basic")
    return upstream.status == 401 and exchange.authorization is not None and wants_password
