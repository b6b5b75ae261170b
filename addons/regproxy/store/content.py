"""The store as other rooms see it: content by digest, tag records, and one ingest per digest that is missing.

A hit is one `open` of a path derived from the digest, on the caller's thread, without SQL; that it happened is written
to the index later. Everything else runs in the store's threads. Every error is a StoreError, and a caller goes on
without the cache.

Not decided here: who may read what, whether a tag is fresh, and how content is fetched.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Never

from regproxy.oci.digest import Digest
from regproxy.store.access_book import AccessBook
from regproxy.store.activity import Activity
from regproxy.store.errors import StoreError, translated
from regproxy.store.eviction import Usage
from regproxy.store.flights import Fetch, Flights
from regproxy.store.hot import HotRecords, StoredManifest
from regproxy.store.identity_key import read_or_make
from regproxy.store.ingest import Ingest
from regproxy.store.inventory import Inventory
from regproxy.store.layout import Layout
from regproxy.store.ledger import Ledger
from regproxy.store.pulls import pull_key
from regproxy.store.records import TagKey, TagRecord, content_key, read_tag_record
from regproxy.store.recovery import Doubts, Reconciled, beat, beat_no_more, find_doubts
from regproxy.store.scrub import Pace
from regproxy.store.stored_content import StoredContent
from regproxy.store.tag_history import TagChange, TagEvent, history_key
from regproxy.store.upkeep import Upkeep

_logger = logging.getLogger(__name__)

MIN_FREE_BYTES = 1024**3
"""Disk space left to others; 1 GiB, as the predecessor's forks do (CACHE_MIN_FREE)."""

HOUSEKEEPING_INTERVAL_S = 10.0
"""How long access times stay in memory, and how late unused content may go."""

ACCESS_TIDY_INTERVAL_S = 3600.0
"""How often is looked for records of what is not stored: two seconds' work for a million contents."""

PARTIAL_LIFETIME_S = 7 * 24 * 3600.0
"""A download that nobody resumed for a week is not resumed any more."""


class Store:
    """One cache directory. `open` before the event loop serves, `close` at the end; methods in between."""

    def __init__(
        self,
        directory: Path,
        cap_bytes: int,
        inactive_s: float,
        min_free_bytes: int = MIN_FREE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout = Layout(directory.absolute())
        self._content_prefix = f"{self._layout.directory}/content/"
        self._cap_bytes, self._min_free_bytes = cap_bytes, min_free_bytes
        self._inactive_s, self._clock = inactive_s, clock
        self._ledger: Ledger | None = None
        self._access: AccessBook | None = None
        self._access_tidied_at_s = 0.0
        self._flights: Flights | None = None
        self._upkeep: Upkeep | None = None
        self._doubts = Doubts()
        self._hot = HotRecords()
        self.pace = Pace()
        """How fast stored content is hashed again while `housekeeping` runs."""
        self.identity_key = b""
        """With which clients' logins are hashed; there when the store is open."""
        self.forgotten_tags = 0
        """Grows with every tag that is forgotten, so that an answer from before is not recorded after."""

    @property
    def directory(self) -> Path:
        """Where everything lies."""
        return self._layout.directory

    def open(self) -> None:
        """Make or check the directory and open the index. Blocks; StoreError says what to do about it."""
        self._layout.prepare()
        self.identity_key = read_or_make(self._layout.identity_key)
        now_s = self._clock()
        self._ledger = ledger = Ledger(
            self._layout,
            cap_bytes=self._cap_bytes,
            min_free_bytes=self._min_free_bytes,
            oldest_s=now_s - min(self._inactive_s, PARTIAL_LIFETIME_S),
            clock=self._clock,
        )
        try:
            self._doubts = find_doubts(self._layout, ledger)
            beat(self._layout)
        except StoreError:
            ledger.close()
            self._ledger = None
            raise
        self._flights = flights = Flights(self._layout, ledger, self._doubts.settle)
        self._access = access = AccessBook(ledger)
        self._upkeep = Upkeep(self._layout, ledger, access, self._doubts, flights.hash_pool, self._clock)

    def close(self) -> None:
        """Stop the ingests and keep their progress, close the index. Blocks, under a second."""
        flights, ledger, access = self._flights, self._ledger, self._access
        self._flights = self._ledger = self._access = self._upkeep = None
        if flights is None or ledger is None or access is None:
            return
        try:
            flights.close()
            try:
                access.close()
            finally:
                ledger.close()
            if not self._doubts:
                beat_no_more(self._layout)
        except StoreError as error:
            _logger.warning("the cache could not be closed cleanly, the next start verifies it: %s", error)

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not yet closed; for any thread."""
        return self._ledger is not None

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
        media_type = await self.media_type(digest)
        stored = self.open_content(digest) if media_type else None
        if stored is None or not media_type:
            return None
        with stored, translated("read", self._layout.content(digest), "check the disk"):
            manifest = StoredManifest(media_type, os.pread(stored.fileno(), stored.size_bytes, 0))
        if Digest.of(manifest.body, digest.algorithm) != digest:
            _logger.error("stored manifest %s is broken: removed, the next pull fetches it anew", digest)
            await self._open_ledger().drop(digest)
            return None
        self._hot.keep_manifest(digest, manifest)
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
        text = await ledger.text(key)
        record = None if text is None else read_tag_record(key.text(), text)
        if record is None:
            return None
        ledger.accesses.note(key.text(), self._clock())
        self._hot.keep_tag(key, record)
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
        await ledger.put_text(key, record.to_json())
        self._hot.keep_tag(key, record)

    async def forget_tag(self, registry: str, name: str, tag: str) -> None:
        """Forget a tag, for all kinds of clients."""
        self.forgotten_tags += 1
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

    def _open_upkeep(self) -> Upkeep:
        return self._upkeep or self._closed()

    def _open_ledger(self) -> Ledger:
        return self._ledger or self._closed()

    def _closed(self) -> Never:
        raise StoreError(f"the cache in {self._layout.directory} is not open")
