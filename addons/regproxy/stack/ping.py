"""`GET /v2/`: the first request of every pull, answered here when the registry cannot (contract rule A3).

Without it a warm cache is useless in an outage: clients ask `/v2/` first and give up. A ping that carries the
client's own credentials is never answered here: `docker login` checks a password with it.
"""

import asyncio

from mitmproxy import http

from regproxy.oci.endpoint import Ping
from regproxy.oci.errors import ErrorCode
from regproxy.origin.errors import AnswerTooLarge, UpstreamUnavailable
from regproxy.policy.freshness import Status, stale_allowed
from regproxy.stack.answers import answer, oci_error, relay
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, unanswered
from regproxy.stack.manifests import REVALIDATION_LIMIT_S
from regproxy.stack.upstream_requests import ping_request

BODY_LIMIT_BYTES = 64 * 1024


class RegistryPing:
    """Passes the ping on, and stands in for a registry that does not answer."""

    name = "registry-ping"

    def __init__(self, core: Core) -> None:
        self._core = core

    async def request(self, flow: http.HTTPFlow) -> None:
        """Answer a ping."""
        exchange = unanswered(flow)
        if exchange is None or not isinstance(exchange.endpoint, Ping) or flow.request.method not in ("GET", "HEAD"):
            return
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
            if has_credentials or not stale_allowed(Status(upstream.status)):
                flow.response = relay(upstream, head=flow.request.method == "HEAD")
            else:
                exchange.error = f"{exchange.registry} answered {upstream.status}"
        if flow.response is None:
            exchange.cache_status = CacheStatus.STALE
            flow.response = answer(
                200, {"Content-Type": "application/json", "Docker-Distribution-Api-Version": "registry/2.0"}, b"{}"
            )
