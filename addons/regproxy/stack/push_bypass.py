"""Writes: refused by default, otherwise streamed through untouched and never cached (contract section 1.6)."""

from mitmproxy import http

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import V1, Blob, BlobUpload, Endpoint, Manifest, Other
from regproxy.policy.access import Repository
from regproxy.settings import Settings
from regproxy.stack.answers import first_value, plain_text
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, exchange_of, unanswered
from regproxy.stack.shared_manifests import SharedManifests
from regproxy.store.errors import StoreError

READS = frozenset({"GET", "HEAD", "OPTIONS"})
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""No registry needs another method, and some would do harm: TRACE shows the client the login that it was sent with."""


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
        elif asks_what_to_push(flow.request.method, exchange.endpoint) and self._may_push(flow.request):
            exchange.cache_status = CacheStatus.BYPASS
        elif flow.request.method in READS:
            return
        elif flow.request.method in WRITES and self._may_write(flow.request, exchange):
            exchange.cache_status = CacheStatus.BYPASS
            flow.request.stream = True
        else:
            flow.response = plain_text(405, f"{flow.request.method} method is not allowed")

    def _may_write(self, request: http.Request, exchange: Exchange) -> bool:
        return self._may_push(request) or _is_token_request(request, exchange)

    def _may_push(self, request: http.Request) -> bool:
        """Whether writes of this client are allowed; asked before the operator's credentials are added."""
        return may_push(self._core.settings, first_value(request.headers, "authorization"))

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Forget what was pushed or deleted, before the client hears of it and asks for it."""
        exchange = exchange_of(flow)
        if exchange is None or flow.response is None or flow.request.method not in WRITES:
            return
        if not 200 <= flow.response.status_code < 300:
            return
        match exchange.endpoint:
            case Blob(name) | BlobUpload(name) | Manifest(name):
                self._core.not_found.written(exchange.registry, name)
            case _:
                return
        match exchange.endpoint, flow.request.method:
            case Manifest(name, str() as tag), "PUT" | "DELETE":
                try:
                    await self._core.store.forget_tag(str(exchange.registry), name, tag)
                except StoreError as error:
                    self._core.store_failed(error)
                await SharedManifests(self._core).forget(str(exchange.registry), name, tag)
            case ((Manifest(name, Digest() as digest) | Blob(name, digest)), "DELETE"):
                await self._core.access.deleted(Repository(exchange.registry, name), digest)
            case _:
                pass


def may_push(settings: Settings, own_authorization: str | None) -> bool:
    """Whether a client's writes are allowed; the second argument is what it sent itself, None for nothing."""
    return settings.allow_push or (settings.allow_push_with_own_auth and own_authorization is not None)


def asks_what_to_push(method: str, endpoint: Endpoint) -> bool:
    """Whether a read may be a push's question which blobs it may skip: a cached yes would make a broken image."""
    return method == "HEAD" and isinstance(endpoint, Blob)


_V1_CAUSES = "either the image does not exist at {0}, or the proxy needs credentials for it (AUTH_REGISTRIES)"


def _is_token_request(request: http.Request, exchange: Exchange) -> bool:
    """Whether a POST asks for a token (OAuth2 form): part of a pull, at a path that is no registry endpoint."""
    return request.method == "POST" and isinstance(exchange.endpoint, Other)
