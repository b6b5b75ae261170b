"""The store as other rooms see it: content by digest, tag records, and one ingest per digest that is missing.

A hit is one `open` of a path derived from the digest, on the caller's thread, without SQL; that it happened is written
to the index later. Everything else runs in the store's threads. Every error is a StoreError, and a caller goes on
without the cache.

Not decided here: who may read what, whether a tag is fresh, and how content is fetched.
"""

import logging
import os
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.store.access_book import AccessBook
from regproxy.store.activity import Activity
from regproxy.store.directory import StoreDirectory
from regproxy.store.errors import StoreError, translated
from regproxy.store.eviction import Usage
from regproxy.store.flights import Fetch
from regproxy.store.hot import StoredManifest
from regproxy.store.ingest import Ingest
from regproxy.store.inventory import Inventory
from regproxy.store.layout import file_id
from regproxy.store.pulls import pull_key
from regproxy.store.records import TagKey, TagRecord, content_key, read_tag_record
from regproxy.store.recovery import Reconciled
from regproxy.store.stored_content import StoredContent
from regproxy.store.tag_history import TagChange, TagEvent, history_key

_logger = logging.getLogger(__name__)

HOUSEKEEPING_INTERVAL_S = 10.0
"""How long access times stay in memory, and how late unused content may go."""

ACCESS_TIDY_INTERVAL_S = 3600.0
"""How often is looked for records of what is not stored: two seconds' work for a million contents."""


class Store(StoreDirectory):
    """One cache directory. `open` before the event loop serves, `close` at the end; methods in between."""

    # Content.

    def open_content(self, digest: Digest) -> StoredContent | None:
        """Open content; None when it is not there. Cheap enough for the event loop."""
        ledger = self._ledger or self._closed()
        if self._doubts.unverified and digest in self._doubts.unverified:
            return None
        try:
            fd = os.open(
                f"{self._content_prefix}{digest.algorithm}/{digest.hex[:2]}/{digest.hex}", os.O_RDONLY | os.O_NOFOLLOW
            )
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"cannot open {self._layout.content(digest)}: {error.strerror}") from error
        ledger.accesses.note(content_key(digest), self._clock())
        return StoredContent(fd, os.fstat(fd).st_size)

    async def put_content(self, digest: Digest, body: bytes, media_type: str) -> None:
        """Store content that is in memory (manifests). ValueError when it does not hash to its digest; StoreFull."""
        actual = Digest.of(body, digest.algorithm)
        if actual != digest:
            raise ValueError(f"content of {len(body)} bytes hashes to {actual}, not to {digest}")
        in_doubt = digest in self._doubts.unverified
        await self._open_ledger().put(digest, body, media_type, trust_stored=not in_doubt)
        self._doubts.settle(digest)

    def holds(self, digest: Digest) -> bool:
        """Whether content is stored and may be served; asking is not an access."""
        return digest not in self._doubts.unverified and self._layout.content(digest).exists()

    async def set_aside(self, total_bytes: int) -> None:
        """Hold room for one content of an old cache, 0 lets go; StoreFull when other content would have to go."""
        await self._open_ledger().set_aside(total_bytes)

    async def adopt(self, digest: Digest, path: Path, media_type: str, used_at_s: float) -> None:
        """Store a file whose content was verified, by rename, as last used at that Unix time; ends `set_aside`.

        Nothing is known of where the content came from.
        """
        in_doubt = digest in self._doubts.unverified
        await self._open_ledger().adopt(digest, path, media_type, used_at_s, trust_stored=not in_doubt)
        self._doubts.settle(digest)

    async def media_type(self, digest: Digest) -> str | None:
        """Return the media type content was stored with, "" for a blob, None when the content is not known."""
        return await self._open_ledger().media_type(digest)

    def recall_manifest(self, digest: Digest) -> StoredManifest | None:
        """Return a manifest that is in memory, without waiting; None says nothing about the disk."""
        manifest = self._hot.manifest(digest)
        if manifest is not None:
            self._open_ledger().accesses.note(content_key(digest), self._clock())
        return manifest

    async def manifest(self, digest: Digest) -> StoredManifest | None:
        """Return a manifest with its media type; None when it is not there, or only as a blob."""
        manifest = self.recall_manifest(digest)
        if manifest is not None:
            return manifest
        stamp = self._hot.manifest_stamp(digest)
        media_type = await self.media_type(digest)
        stored = self.open_content(digest) if media_type else None
        if stored is None or not media_type:
            return None
        with stored, translated("read", self._layout.content(digest), "check the disk"):
            manifest = StoredManifest(media_type, os.pread(stored.fileno(), stored.size_bytes, 0))
            file = file_id(os.fstat(stored.fileno()))
        if Digest.of(manifest.body, digest.algorithm) != digest:
            if await self._open_ledger().drop(digest, file):
                _logger.error("stored manifest %s is broken: removed, the next pull fetches it anew", digest)
            return None
        self._hot.keep_manifest(digest, manifest, stamp)
        return manifest

    def join_or_start(self, digest: Digest, fetch: Fetch) -> Ingest:
        """Return the running ingest of this digest, or start one that `fetch` fills; see ingest.Ingest.

        Try `open_content` right before, without an await in between: content that is stored is not looked for here.
        """
        return (self._flights or self._closed()).join_or_start(digest, fetch)

    def running(self, digest: Digest) -> Ingest | None:
        """Return the running ingest of this digest, if there is one."""
        return (self._flights or self._closed()).running(digest)

    @property
    def access(self) -> AccessBook:
        """What is known of who may read what. Raises StoreError."""
        return self._access or self._closed()

    async def landed(self, ingest: Ingest) -> None:
        """Wait until an ingest is over, however it ends, and another one of its digest may start."""
        if self._flights is not None:
            await self._flights.landed(ingest)

    # Tag records.

    def recall_tag(self, key: TagKey) -> TagRecord | None:
        """Return a tag record that is in memory, without waiting; None says nothing about the disk."""
        record = self._hot.tag(key)
        if record is not None:
            self._open_ledger().accesses.note(key.text(), self._clock())
        return record

    async def tag_record(self, key: TagKey) -> TagRecord | None:
        """Return what a tag meant when it was last checked; a record that cannot be read is as good as none."""
        ledger = self._open_ledger()
        hot = self.recall_tag(key)
        if hot is not None:
            return hot
        stamp = self._hot.tag_stamp(key)
        text = await ledger.text(key)
        record = None if text is None else read_tag_record(key.text(), text)
        if record is None:
            return None
        ledger.accesses.note(key.text(), self._clock())
        self._hot.keep_tag(key, record, stamp)
        return record

    async def tag_records(self, registry: str, name: str, tag: str) -> list[TagRecord]:
        """Return what a tag meant for all kinds of clients, the one that was checked last first."""
        texts = await self._open_ledger().texts_of_tag(registry, name, tag)
        records = [record for key, text in texts.items() if (record := read_tag_record(key, text)) is not None]
        return sorted(records, key=lambda record: record.checked_at_s, reverse=True)

    async def put_tag_record(self, key: TagKey, record: TagRecord) -> None:
        """Remember what a tag means for one kind of client."""
        ledger = self._open_ledger()
        ledger.accesses.note(history_key(key.registry, key.name, key.tag), self._clock())
        stamp = await ledger.put_text(key, record.to_json())
        if stamp is not None:
            self._hot.keep_tag(key, record, stamp)

    async def forget_tag(self, registry: str, name: str, tag: str) -> None:
        """Forget a tag, for all kinds of clients."""
        self._forgotten_tags += 1
        self._hot.drop_tag(registry, name, tag)
        await self._open_ledger().forget_tag(registry, name, tag)
        self._hot.drop_tag(registry, name, tag)  # a reader may have brought it back meanwhile

    def note_pull(self, registry: str, name: str, reference: str) -> None:
        """Note that a client got a manifest by this tag or digest; cheap."""
        self._open_ledger().pulls.note(pull_key(registry, name, reference), self._clock())

    async def note_tag_change(self, event: TagEvent, known_at_s: float) -> bool:
        """Add what became of a tag to its history and to `activity`, unless it is there; returns whether it was news.

        `known_at_s` is the Unix time at which whoever saw the change had last seen the tag before it.
        """
        ledger = self._open_ledger()
        key = history_key(event.registry, event.name, event.tag)
        is_news = await ledger.note_tag_change(key, event.change, known_at_s)
        if is_news:
            ledger.activity.note_tag_event(event)
        return is_news

    async def tag_history(self, registry: str, name: str, tag: str) -> tuple[TagChange, ...]:
        """Return what became of a tag, the newest change first; it goes when the tag is not used for long."""
        return (await self._open_ledger().tag_history(history_key(registry, name, tag)))[::-1]

    # Upkeep.

    @property
    def usage(self) -> Usage:
        """What the store takes, as of the last change."""
        return self._open_ledger().usage

    @property
    def activity(self) -> Activity:
        """What was done since the store was opened."""
        return self._open_ledger().activity

    @property
    def inventory(self) -> Inventory:
        """What is stored, for operators, and what they may do with it."""
        ledger, flights = self._open_ledger(), self._flights or self._closed()
        return Inventory(self._layout, ledger, self._hot, self._doubts, flights.hash_pool)

    def running_ingests(self) -> tuple[Ingest, ...]:
        """Return the ingests that are under way."""
        return (self._flights or self._closed()).aloft()

    def filled_here(self) -> int:
        """Return how many ingests this process fills."""
        return (self._flights or self._closed()).filled_here()

    def followed_elsewhere(self) -> int:
        """Return how many of these other processes have waited for."""
        return 0 if self._flights is None else self._flights.followed_elsewhere()

    async def look_at_usage(self) -> Usage:
        """Return what the store takes now."""
        return self.usage

    async def oldest_access_s(self) -> float | None:
        """Return when the content that is evicted next was last used (Unix time); None for an empty store."""
        return await self._open_ledger().oldest_access_s()

    async def evict_inactive(self) -> None:
        """Write the access times; remove what was not used for the inactive time, partial files after a week."""
        if await self._open_ledger().expire(self._clock() - self._inactive_s):
            self._hot.clear()

    async def reconcile(self) -> Reconciled:
        """After a crash: hash what is in doubt, adopt what is right, remove what is not."""
        return await self._open_upkeep().reconcile()

    async def tidy(self) -> None:
        """One round of housekeeping."""
        upkeep = self._open_upkeep()
        await upkeep.settle()
        await self.evict_inactive()
        await self.access.flush()
        if not 0 <= self._clock() - self._access_tidied_at_s < ACCESS_TIDY_INTERVAL_S:
            self._access_tidied_at_s = self._clock()
            await self._open_ledger().tidy_access(self._clock() - self._inactive_s)
        await upkeep.beat()

    async def housekeeping(self, interval_s: float = HOUSEKEEPING_INTERVAL_S) -> None:
        """Keep house, and verify what is stored, until cancelled or closed; an error is said once, not every round."""
        await self._open_upkeep().run(self.tidy, interval_s, lambda: self.is_open, self.pace)
