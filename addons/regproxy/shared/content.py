"""Content out of the bucket: into the growing file of an ingest, as a download from a registry goes there.

Every piece is checked against the sealed description before it is written, so that no byte of another content reaches
a client, not even one that reads a part and could not tell; and the ingest hashes the whole, as it always does. What
the bucket does not give (it fails, stalls, has wrong bytes) is left missing, and the registry is asked for just that.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from regproxy.oci.digest import Digest
from regproxy.oci.manifest_form import manifest_media_type
from regproxy.policy.access import Repository
from regproxy.policy.identities import NOBODY
from regproxy.shared.access import SharedAccess
from regproxy.shared.bucket import Bucket
from regproxy.shared.counts import Read, SharedCounts
from regproxy.shared.errands import Errands
from regproxy.shared.link import BucketDown, Link
from regproxy.shared.paths import about_path, content_path, holders_prefix
from regproxy.shared.records import PIECE_BYTES, About
from regproxy.shared.sealed import SealedRecords
from regproxy.store.content import Store
from regproxy.store.errors import DigestMismatch
from regproxy.store.hot import StoredManifest
from regproxy.store.ingest import Ingest

_logger = logging.getLogger(__name__)

FIRST_BYTE_LIMIT_S = 2.0
PIECE_LIMIT_S = 5.0
"""For one MiB: what is slower than 200 kB/s is left, and the registry is asked for the rest."""

MANIFEST_LIMIT_BYTES = 4 * 1024 * 1024


class _Wrong(Exception):  # noqa: N818 - the state of the object
    """The bucket has other bytes than it should."""


class SharedContent:
    """Reads content."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it reads from and writes to
        self,
        store: Store,
        bucket: Bucket,
        link: Link,
        records: SealedRecords,
        access: SharedAccess,
        errands: Errands,
    ) -> None:
        self._store, self._bucket, self._link, self._records = store, bucket, link, records
        self._access, self._errands = access, errands
        self.distrusted: set[Digest] = set()
        """What was found to be wrong and is to be written anew."""
        self.counts = SharedCounts()
        self.on_written: Callable[[Digest], None] = lambda _: None
        """Called when a content was written."""

    async def about(self, digest: Digest) -> About | None:
        """Return what the bucket says of a content that it has; None also when it does not answer."""
        found: About | Read | None = None if digest in self.distrusted else await self._about(digest)
        match found:
            case About():
                return found
            case Read():
                self.counts.reads[found] += 1
            case None:
                self.counts.reads[Read.MISSING] += 1
        return None

    async def described_bytes(self, digest: Digest, media_type: str) -> int | None:
        """Return the size that the bucket says a content of this type has, None when it does not, or not believably."""
        about = None if digest in self.distrusted else await self._about(digest)
        return about.size_bytes if isinstance(about, About) and about.media_type == media_type else None

    async def _about(self, digest: Digest) -> About | Read | None:
        try:
            found = await self._records.read(about_path(digest), About.from_json)
        except BucketDown:
            return Read.UNANSWERED
        return None if found is None else found.record

    async def fill(self, ingest: Ingest, about: About) -> bool:
        """Fill an ingest and finish it; False when something is missing and another source has to go on.

        Raises what the ingest raises.
        """
        pieces = _Pieces(self._bucket, self._link, ingest.digest, about)
        try:
            if about.size_bytes:
                # Nothing is promised to a reader before there is something to send.
                await pieces.read(min(ingest.missing_from(), about.size_bytes - 1) // PIECE_BYTES)
            await ingest.begin(about.size_bytes, None)
            for start, end in ingest.missing():
                for number in range(start // PIECE_BYTES, -(-end // PIECE_BYTES)):
                    piece = await pieces.read(number)
                    self.counts.read_bytes += len(piece)
                    await ingest.write_at(number * PIECE_BYTES, [piece])
        except BucketDown:
            self.counts.reads[Read.UNANSWERED] += 1
            return False
        except _Wrong as error:
            self._discard(ingest.digest, str(error))
            return False
        try:
            await ingest.finish()
        except DigestMismatch as error:
            self._discard(ingest.digest, str(error))
            raise
        self.counts.reads[Read.FOUND] += 1
        return True

    async def manifest(self, repository: Repository, digest: Digest) -> StoredManifest | None:
        """Bring a manifest into the store, for whom may have it there; None when the bucket has none.

        Raises StoreError.
        """
        about = await self.about(digest)
        if about is None or not about.media_type or about.size_bytes > MANIFEST_LIMIT_BYTES:
            return None
        await self._store.access.known(repository, NOBODY, digest)
        await self._access.learn(repository, digest)
        if not await self._access.is_held(digest):
            return None  # the store would take it for content of an old cache, which every registry may claim
        try:
            stored = await self._link.ask(lambda: self._bucket.get(content_path(digest)), PIECE_LIMIT_S)
        except BucketDown:
            stored = None
        if stored is None:
            self.counts.reads[Read.UNANSWERED] += 1
            return None
        self.counts.read_bytes += len(stored.body)
        try:
            manifest_media_type(stored.body, about.media_type)  # who wrote it may have been less strict
            await self._store.put_content(digest, stored.body, about.media_type)
        except ValueError as error:
            self._discard(digest, str(error))
            return None
        self.counts.reads[Read.FOUND] += 1
        return StoredManifest(about.media_type, stored.body)

    async def purge(self, digest: Digest) -> None:
        """Remove a content on an operator's word; it is not read until it has been written anew. Raises BucketDown."""
        self.distrust(digest)
        await self._records.remove([about_path(digest), content_path(digest)])
        await self._records.remove_below(holders_prefix(digest))

    def distrust(self, digest: Digest) -> None:
        """Do not read a content that an operator wants to be gone, until it is written anew."""
        self.distrusted.add(digest)
        self._access.forget(digest)

    def written(self, digest: Digest) -> None:
        """Note that this process has written a content: it is as it should be."""
        self.distrusted.discard(digest)
        self.on_written(digest)

    def _discard(self, digest: Digest, reason: str) -> None:
        """Remove what is wrong. It is written anew when it has come from its registry."""
        _logger.warning(
            "the shared store has something else as %s (%s): removed, it is fetched from its registry", digest, reason
        )
        self.counts.reads[Read.WRONG] += 1
        self.distrusted.add(digest)
        self._errands.add(f"remove {digest}", lambda: self._remove_wrong(digest))

    async def _remove_wrong(self, digest: Digest) -> None:
        with suppress(BucketDown):  # not later: it may have been written anew by then
            await self._records.remove([about_path(digest), content_path(digest)])


class _Pieces:
    """The pieces of one content, each checked; those that follow one another come over one connection."""

    def __init__(self, bucket: Bucket, link: Link, digest: Digest, about: About) -> None:
        self._bucket, self._link, self._digest, self._about = bucket, link, digest, about
        self._last = (-1, b"")
        self._coming: AsyncIterator[bytes] | None = None

    async def read(self, number: int) -> bytes:
        """Return one piece, counted from 0. Raises BucketDown, _Wrong."""
        last, piece = self._last
        if number == last:
            return piece
        if self._coming is None or number != last + 1:
            self._coming = await self._open(number)
        coming = self._coming
        piece = await self._link.go_on(lambda: anext(coming, b""), PIECE_LIMIT_S)
        if not await asyncio.to_thread(self._about.fits, number, piece):
            raise _Wrong(f"other bytes from {number * PIECE_BYTES} on")
        self._last = (number, piece)
        return piece

    async def _open(self, number: int) -> AsyncIterator[bytes]:
        download = await self._link.ask(
            lambda: self._bucket.download(content_path(self._digest), number * PIECE_BYTES), FIRST_BYTE_LIMIT_S
        )
        if download is None:
            raise BucketDown  # its lifecycle may have taken it
        if download.size_bytes != self._about.size_bytes:
            raise _Wrong(f"{download.size_bytes} bytes instead of {self._about.size_bytes}")
        return _in_pieces(download.chunks)


async def _in_pieces(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Put chunks together to pieces of one MiB; the last one is what is left."""
    piece = bytearray()
    async for chunk in chunks:
        piece += chunk
        while len(piece) >= PIECE_BYTES:
            yield bytes(piece[:PIECE_BYTES])
            del piece[:PIECE_BYTES]
    if piece:
        yield bytes(piece)
