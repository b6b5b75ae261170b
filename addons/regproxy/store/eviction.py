"""Room under the cap: what counts, what goes first, and when the answer is that there is none.

What counts is everything that grows: SQLite's pages, content in whole disk blocks, and partial files at the size they
are allocated. The sum stays at or below the cap at all times, because room is made before anything is written. First to
go are partial files nobody is filling, oldest first, then content, least recently accessed first (policy.eviction).
Pinned content counts and stays (pins).

Not counted, and bounded by OUTSIDE_THE_CAP_BYTES: SQLite's write-ahead log, directories, sidecars.
Runs on the index thread only.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from regproxy.oci.digest import Digest
from regproxy.policy.eviction import choose_victims
from regproxy.store.accesses import Accesses
from regproxy.store.activity import Activity, Reason
from regproxy.store.errors import StoreFull
from regproxy.store.index import Index
from regproxy.store.layout import Layout, on_disk_bytes
from regproxy.store.leftovers import Leftover, remove_leftover
from regproxy.store.pins import PIN_PREFIX, Spared, read_pins
from regproxy.store.records import CONTENT_PREFIX, content_key
from regproxy.store.sources import SOURCE_PREFIX, content_key_of_source

INDEX_GROWTH_BYTES = 64 * 1024
"""Kept free under the cap: what SQLite may grow by between two looks, a few split pages in each of its six trees."""

OUTSIDE_THE_CAP_BYTES = 4 * 1024 * 1024
"""The most that `du` shows above the counted bytes: 1 MiB of log and one transaction, 2 * 257 directories, sidecars."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What the store takes, in bytes."""

    content_bytes: int = 0
    partial_bytes: int = 0
    index_bytes: int = 0
    entries: int = 0
    """Number of rows: content and tag records."""

    @property
    def used_bytes(self) -> int:
        """The sum that is held against the cap."""
        return self.content_bytes + self.partial_bytes + self.index_bytes


class Room:
    """The accounts of one open store."""

    def __init__(self, layout: Layout, index: Index, accesses: Accesses, cap_bytes: int, min_free_bytes: int) -> None:
        self.unindexed: dict[Digest, int] = {}
        """Content files whose row was lost, until they are hashed and adopted again: digest and bytes."""
        self._layout, self._index, self._accesses = layout, index, accesses
        self._cap_bytes, self._min_free_bytes = cap_bytes, min_free_bytes
        self._partials: dict[Digest, int] = {}
        self._idle_since: dict[Digest, float] = {}
        self._set_aside_bytes = 0
        self._pins: dict[str, str] = {}
        self._spared = Spared()
        self.activity = Activity()
        self.pulls = Accesses()
        """Rows of `store.pulls`, which are made by what is noted of them."""

    def read_pins(self) -> None:
        """Take over the pins of the index: what they name is not evicted from now on."""
        self._pins = self._index.texts(PIN_PREFIX)
        self._spared = Spared.by(read_pins(self._pins.values()))

    def purge(self, digests: Iterable[Digest]) -> None:
        """Remove content and what is left of downloads of it, pinned or not."""
        gone = list(digests)
        self._discard([content_key(digest) for digest in gone], Reason.PURGED)
        for digest in gone:
            self.unindexed.pop(digest, None)
            if digest in self._idle_since:
                self._drop_idle(digest)

    def change_index(self, index: Index, unindexed: dict[Digest, int]) -> None:
        """Go on with another index, which knows neither the pins nor these content files (digest and bytes)."""
        self._index, self.unindexed = index, unindexed
        for key, text in self._pins.items():
            index.put_text(key, text, 0.0)

    def add_leftover(self, leftover: Leftover) -> None:
        """Count a partial file that was found; oldest first."""
        self._partials[leftover.digest] = leftover.on_disk_bytes
        self._idle_since[leftover.digest] = leftover.modified_at_s

    def claim(self, digest: Digest) -> bool:
        """Protect the partial file of a starting ingest from eviction; returns whether there is one."""
        return self._idle_since.pop(digest, None) is not None

    def reserve(self, digest: Digest, total_bytes: int) -> None:
        """Make room so that the partial file may take so many bytes in all; StoreFull."""
        total_bytes = on_disk_bytes(total_bytes)
        self.make(total_bytes - self._partials.get(digest, 0))
        self._partials[digest] = total_bytes

    def set_aside(self, total_bytes: int) -> None:
        """Hold so many bytes for content of an old cache, 0 for none; StoreFull when something would have to go."""
        self._set_aside_bytes = 0
        total_bytes = on_disk_bytes(total_bytes)
        if total_bytes and self._shortage_bytes(total_bytes) > 0:
            raise self._full(total_bytes)
        self._set_aside_bytes = total_bytes

    def settle(self, digest: Digest, kept_bytes: int, now_s: float) -> None:
        """Note that an ingest ended and so many bytes of its partial file stay."""
        self._idle_since.pop(digest, None)
        if kept_bytes:
            self._partials[digest] = on_disk_bytes(kept_bytes)
            self._idle_since[digest] = now_s
        else:
            self._partials.pop(digest, None)

    def flush(self) -> None:
        """Write the access times that were noted."""
        accesses = self._accesses.take()
        if accesses:
            self._index.touch_accesses(accesses)
        for key, at_s in self.pulls.take().items():
            self._index.put_text(key, f"{at_s:.0f}", at_s)

    def make(self, incoming_bytes: int) -> None:
        """Evict until so many more bytes fit. StoreFull, with nothing evicted, when all of it would not do."""
        shortage_bytes = self._shortage_bytes(incoming_bytes)
        if shortage_bytes <= 0:
            return
        evictable_bytes = self._index.content_bytes() + sum(self._partials[digest] for digest in self._idle_since)
        evictable_bytes -= sum(map(self._index.size_bytes, self._spared.contents))
        if shortage_bytes > evictable_bytes:
            raise self._full(incoming_bytes)
        shortage_bytes -= self._evict_idle(shortage_bytes)
        if shortage_bytes > 0:
            self.flush()
            evictable = ((key, size) for key, size in self._index.content_by_access() if key not in self._spared)
            self._discard(choose_victims(evictable, shortage_bytes), Reason.ROOM)
        # One round by size: a file system that frees late, or a reader with the file open, must not empty the cache.
        if self._shortage_bytes(incoming_bytes) > 0:
            raise self._full(incoming_bytes)

    def expire(self, oldest_s: float) -> int:
        """Remove content, records and idle partial files last used before this Unix time; return how many rows went."""
        self.flush()
        unused = [key for key in self._index.unused_since(oldest_s) if not self._is_kept(key, oldest_s)]
        self._discard(unused, Reason.UNUSED)
        for digest, idle_since_s in list(self._idle_since.items()):
            if idle_since_s < oldest_s:
                self._drop_idle(digest)
        return len(unused)

    def _is_kept(self, key: str, oldest_s: float) -> bool:
        """Whether a row stays although nobody used it: it is pinned, or says where content in use came from."""
        if not key.startswith(SOURCE_PREFIX):
            return key in self._spared
        content = content_key_of_source(key)
        used_at_s = self._index.accessed_at_s(content)
        if used_at_s is None or (used_at_s < oldest_s and content not in self._spared):
            return False
        self._index.touch_accesses({key: used_at_s})
        return True

    def usage(self) -> Usage:
        """Return what is taken now."""
        content_bytes = self._index.content_bytes()
        return Usage(
            content_bytes=content_bytes + sum(self.unindexed.values()),
            partial_bytes=sum(self._partials.values()) + self._set_aside_bytes,
            index_bytes=self._index.volume() - content_bytes,
            entries=len(self._index),
        )

    def _shortage_bytes(self, incoming_bytes: int) -> int:
        over_cap_bytes = self.usage().used_bytes + incoming_bytes + INDEX_GROWTH_BYTES - self._cap_bytes
        if not self._min_free_bytes:
            return over_cap_bytes
        return max(over_cap_bytes, self._min_free_bytes + incoming_bytes - free_bytes(self._layout))

    def _full(self, incoming_bytes: int) -> StoreFull:
        return StoreFull(
            f"no room for {incoming_bytes} more bytes in {self._layout.directory}: {self.usage().used_bytes} of"
            f" {self._cap_bytes} bytes are used, {free_bytes(self._layout)} are free on the disk and"
            f" {self._min_free_bytes} must stay free; raise the cap or free the disk"
        )

    def _discard(self, keys: list[str], reason: Reason) -> None:
        before_bytes = self._index.content_bytes()
        self._index.discard(keys)
        contents = sum(key.startswith(CONTENT_PREFIX) for key in keys)
        self.activity.note_evicted(reason, contents, before_bytes - self._index.content_bytes())

    def _evict_idle(self, wanted_bytes: int) -> int:
        freed_bytes = 0
        for digest in list(self._idle_since):
            if freed_bytes >= wanted_bytes:
                break
            freed_bytes += self._drop_idle(digest)
        return freed_bytes

    def _drop_idle(self, digest: Digest) -> int:
        del self._idle_since[digest]
        taken_bytes = self._partials.pop(digest)
        if not remove_leftover(self._layout, digest):
            return 0
        self.activity.note_evicted(Reason.PARTIAL, 1, taken_bytes)
        return taken_bytes


def free_bytes(layout: Layout) -> int:
    """Return what an ordinary user may still write on the store's file system."""
    status = os.statvfs(layout.directory)
    return status.f_bavail * status.f_frsize
