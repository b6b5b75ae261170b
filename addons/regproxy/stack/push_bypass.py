"""Writes: refused by default, otherwise streamed through untouched and never cached (contract section 1.6)."""

import logging

from mitmproxy import http

from regproxy.oci.endpoint import V1, Blob, Manifest, Other
from regproxy.stack.answers import first_value, plain_text
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, exchange_of, unanswered
from regproxy.store.errors import StoreError

logger = logging.getLogger(__name__)

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class PushBypass:
    """Stands before the caches, so that they see reads only."""

    name = "registry-push-bypass"

    def __init__(self, core: Core) -> None:
        self._core = core

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Refuse a write, or let its body through as it arrives."""
        exchange = unanswered(flow)
        if exchange is None:
            return
        if isinstance(exchange.endpoint, V1):
            flow.response = plain_text(
                405, f"registry-proxy: the registry API v1 is gone; {_V1_CAUSES.format(exchange.registry)}"
            )
        elif flow.request.method not in WRITES:
            self._leave_reads_of_a_push_alone(flow, exchange)
        elif self._may_push(flow.request) or _is_token_request(flow.request, exchange):
            exchange.cache_status = CacheStatus.BYPASS
            flow.request.stream = True
        else:
            flow.response = plain_text(405, f"{flow.request.method} method is not allowed")

    def _leave_reads_of_a_push_alone(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Ask the registry itself which blobs a push may skip: a cached yes would make a broken image."""
        if flow.request.method == "HEAD" and isinstance(exchange.endpoint, Blob) and self._may_push(flow.request):
            exchange.cache_status = CacheStatus.BYPASS

    def _may_push(self, request: http.Request) -> bool:
        """Whether writes of this client are allowed; asked before the operator's credentials are added."""
        settings = self._core.settings
        return settings.allow_push or (
            settings.allow_push_with_own_auth and first_value(request.headers, "authorization") is not None
        )

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Forget a tag that was pushed or deleted, before the client hears of it and asks for it."""
        exchange = exchange_of(flow)
        if exchange is None or flow.response is None or flow.request.method not in {"PUT", "DELETE"}:
            return
        match exchange.endpoint:
            case Manifest(name, str() as tag) if 200 <= flow.response.status_code < 300:
                try:
                    await self._core.store.forget_tag(str(exchange.registry), name, tag)
                except StoreError as error:
                    self._core.store_failed(error)
            case _:
                pass


_V1_CAUSES = "either the image does not exist at {0}, or the proxy needs credentials for it (AUTH_REGISTRIES)"


def _is_token_request(request: http.Request, exchange: Exchange) -> bool:
    """Whether a POST asks for a token (OAuth2 form): part of a pull, at a path that is no registry endpoint."""
    return request.method == "POST" and isinstance(exchange.endpoint, Other)
