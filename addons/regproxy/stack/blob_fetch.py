"""How one client's download of a blob is filled: from the bucket, if that knows the blob, else from its registry."""

from dataclasses import dataclass
from functools import partial

from regproxy.oci.endpoint import Blob
from regproxy.origin.blobs import Connections, fill
from regproxy.origin.request import UpstreamRequest
from regproxy.shared.records import About
from regproxy.stack.access_questions import Reader
from regproxy.stack.core import Core
from regproxy.stack.exchange import CacheStatus, Exchange, trace_of
from regproxy.store.ingest import Ingest


@dataclass(slots=True)
class BlobFetch:
    """What `Store.join_or_start` calls when nobody else downloads this blob."""

    core: Core
    exchange: Exchange
    blob: Blob
    request: UpstreamRequest
    about: About | None
    """What the bucket says of the blob, for a client that may have it from there."""
    writes: int
    """What `NotFound.writes` was before."""
    has_begun: bool = False
    """Whether this is the client's own download, and not one that it has joined."""

    @property
    def reader(self) -> Reader:
        """Who is to have it, of which repository."""
        return Reader.of(self.exchange, self.blob.name)

    async def __call__(self, ingest: Ingest) -> None:
        """Fill the ingest. Raises UpstreamRefused, UpstreamUnavailable, StoreError."""
        self.has_begun = True
        if not await self._from_bucket(ingest):
            await self._from_registry(ingest)

    async def _from_bucket(self, ingest: Ingest) -> bool:
        if self.about is None or self.core.shared is None:
            return False
        if await self.core.shared.content.fill(ingest, self.about):
            return True
        self.exchange.cache_status, trace_of(self.exchange).from_bucket = CacheStatus.MISS, False
        return False

    async def _from_registry(self, ingest: Ingest) -> None:
        settings, upstream, shared = self.core.settings, self.core.upstream, self.core.shared
        connections = Connections(settings.download_connections, settings.download_part_bytes)
        arrival = await self.core.access.arrival(self.reader, self.blob.digest)
        await arrival.watch(ingest, partial(fill, ingest, self.request, upstream, connections))
        if shared is not None:
            shared.uploads.add(self.blob.digest, "")
