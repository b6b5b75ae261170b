"""Manifests: by digest for good, by tag for as long as the tag's tier says (contract section 1.4).

The adapter between a flow and `manifests.ManifestSource`, which knows when to ask the registry.
"""

from mitmproxy import http

from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import Manifest
from regproxy.oci.media_types import accepted_manifest_types
from regproxy.policy.tiers import tag_lifetime_s
from regproxy.stack.access_questions import Reader
from regproxy.stack.answers import answer, relay, unavailable
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, unanswered
from regproxy.stack.manifest_answers import Pull, Served, Unobtainable, Wanted, Withheld
from regproxy.stack.manifests import ManifestSource
from regproxy.stack.reads import Read
from regproxy.stack.upstream_requests import content_request, fingerprint

STALE_WARNING = '299 - "registry-proxy: the registry gave no new answer, this is the last good one"'
"""distribution-spec, "Warnings": a registry may say so, and clients may show it."""


class ManifestCache:
    """Answers GET and HEAD of manifests."""

    name = "registry-manifest-cache"

    def __init__(self, core: Core) -> None:
        self._core = core
        self._source = ManifestSource(core)

    async def request(self, flow: http.HTTPFlow) -> None:
        """Answer from the store or the registry, whichever is right now."""
        exchange = unanswered(flow)
        if exchange is None or exchange.cache_status is CacheStatus.BYPASS:
            return
        match exchange.endpoint:
            case Manifest() as manifest if flow.request.method in ("GET", "HEAD"):
                try:
                    served = await self._source.serve(self._pull(flow, exchange, manifest))
                except Withheld as error:
                    exchange.error = error.refused.reason
                    flow.response = relay(error.refused.answer, head=flow.request.method == "HEAD")
                    return
                except Unobtainable as error:
                    exchange.error = str(error)
                    flow.response = unavailable(error.status, str(error), error.retry_at_s)
                    return
                respond(flow, exchange, served)
            case _:
                pass

    def warm(self, exchange: Exchange, manifest: Manifest, read: Read) -> Served | None:
        """Return an answer that is in memory, if there is one. Raises StoreError."""
        return self._source.serve_warm(self._wanted(exchange, manifest, read))

    def _pull(self, flow: http.HTTPFlow, exchange: Exchange, manifest: Manifest) -> Pull:
        return Pull.of(
            self._wanted(exchange, manifest, Read.of_request(flow.request)),
            get_request=content_request("GET", flow, exchange, manifest),
            head_request=content_request("HEAD", flow, exchange, manifest),
            forgotten_tags=self._core.store.forgotten_tags,
            fingerprint=fingerprint(self._core.upstream.callers, exchange),
            writes=self._core.not_found.writes,
        )

    def _wanted(self, exchange: Exchange, manifest: Manifest, read: Read) -> Wanted:
        settings = self._core.settings
        insists = "no-cache" in read.cache_control.lower()
        lifetime_s = (
            float("inf")
            if isinstance(manifest.reference, Digest)
            else tag_lifetime_s(manifest.reference, settings.tiers, caching_enabled=settings.enable_manifest_cache)
        )
        return Wanted(
            registry=exchange.registry,
            manifest=manifest,
            accepted=accepted_manifest_types(read.accept),
            head=read.is_head,
            lifetime_s=0.0 if insists else lifetime_s,
            insists=insists,
            reader=Reader.of(exchange, manifest.name),
        )


def respond(flow: http.HTTPFlow, exchange: Exchange, served: Served) -> None:
    """Write an answer to the flow, and how it came about to the exchange."""
    exchange.cache_status, exchange.error = served.cache_status, served.reason
    is_stale = served.cache_status is CacheStatus.STALE
    fields = {**served.fields, "Warning": STALE_WARNING} if is_stale else served.fields
    flow.response = answer(served.status, fields, served.body, length_bytes=served.length_bytes)
