"""Answers warm reads without mitmproxy's hooks: the same addons, called one after the other.

It does for a request what the hooks would do, in their order, as long as no step has to wait. What it cannot answer
takes the way of the hooks from the start. With a user interface (mitmweb) it is not used, so that every request is
seen there.
"""

from mitmproxy import http

from regproxy.oci.endpoint import Blob, Manifest
from regproxy.stack.access_log import AccessLog
from regproxy.stack.blob_cache import BlobCache
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, unanswered
from regproxy.stack.interception import Interception
from regproxy.stack.manifest_cache import ManifestCache
from regproxy.stack.push_bypass import PushBypass
from regproxy.store.errors import StoreError


class WarmShortcut:
    """`engine.http_layer.Shortcut` over the addons of the stack."""

    def __init__(  # noqa: PLR0913, PLR0917 - the addons that it stands in for
        self,
        core: Core,
        interception: Interception,
        push_bypass: PushBypass,
        manifests: ManifestCache,
        blobs: BlobCache,
        access_log: AccessLog,
    ) -> None:
        self._core = core
        self._interception = interception
        self._push_bypass = push_bypass
        self._manifests = manifests
        self._blobs = blobs
        self._access_log = access_log

    def answer(self, flow: http.HTTPFlow) -> bool:
        """Answer a GET or HEAD of stored content."""
        if flow.request.method not in ("GET", "HEAD") or not self._core.ready:
            return False
        self._interception.requestheaders(flow)
        self._push_bypass.requestheaders(flow)
        try:
            answered = self._answer_content(flow)
        except StoreError:
            return False  # the hooks meet the same error, and say it
        if answered:
            self._access_log.responseheaders(flow)
        return answered

    def sent(self, flow: http.HTTPFlow, sent_bytes: int, error: str | None) -> None:
        """Log the answer."""
        self._access_log.log(flow, sent_bytes, error)

    def _answer_content(self, flow: http.HTTPFlow) -> bool:
        exchange = unanswered(flow)
        if exchange is None or exchange.cache_status is CacheStatus.BYPASS:
            return False
        match exchange.endpoint:
            case Blob() as blob:
                return self._blobs.answer_stored(flow, exchange, blob)
            case Manifest() as manifest:
                return self._manifests.answer_warm(flow, exchange, manifest)
            case _:
                return False
