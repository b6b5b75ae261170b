"""The one shared SQLite index: a diskcache.Cache with its culling turned off and five statements of our own.

diskcache removes ten entries at a time or overshoots, and makes every hit a write, so eviction and access times are
ours (eviction.Room). The narrow seam into its table `Cache(key, raw, access_time, tag, size, mode, filename)` is in
this file only and pinned by its tests. Used by one thread: the store's index thread opens, uses and closes it.

Not decided here: when to evict, and what is stored.
"""

import os.path
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import batched
from pathlib import Path

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW

from regproxy.store.access_table import AccessTable
from regproxy.store.disk import AdoptedFile, ContentDisk
from regproxy.store.errors import StoreError
from regproxy.store.records import CONTENT_PREFIX, tag_key_prefix

LOCK_TIMEOUT_S = 10.0
"""How long another process may hold the write lock before we say so."""

MAX_ACCEPT_VARIANTS = 32
"""Records kept per tag: clients send a handful of Accept lists, an attacker any number."""

_WAL_PAGES = 256
"""SQLite folds its write-ahead log back at 1 MiB, not at its usual 4, to keep what lies outside the cap small."""

_CACHE_PAGES = 1024
_MAPPED_BYTES = 8 * 1024 * 1024
"""4 MiB of pages and 8 MiB of the file in memory. diskcache's 32 and 64 made the process 75 MiB larger at 200,000
entries, and a look-up was not faster (the kernel has the file in its own cache)."""

_DISCARDED_AT_A_TIME = 64
_ACCESSES_AT_A_TIME = 200
"""Keys in one transaction: each may touch three pages, and all of them are in the log until it ends."""


class Index(diskcache.Cache):  # type: ignore[misc] # diskcache has no types
    """Sizes, access times and media types of content, and tag records. Errors are sqlite3's and diskcache's own."""

    on_discarded: Callable[[Iterable[str]], None] = staticmethod(lambda _keys: None)
    """Called with keys that are gone."""

    def __init__(self, directory: Path) -> None:
        if os.path.expandvars(str(directory)) != str(directory):
            raise StoreError(f"the cache directory {directory} has a $variable in its name: choose another")
        try:
            super().__init__(
                str(directory),
                timeout=LOCK_TIMEOUT_S,
                disk=ContentDisk,
                eviction_policy="none",
                cull_limit=0,
                statistics=0,
                tag_index=0,
                sqlite_cache_size=_CACHE_PAGES,
                sqlite_mmap_size=_MAPPED_BYTES,
                sqlite_wal_autocheckpoint=_WAL_PAGES,
                sqlite_journal_size_limit=_WAL_PAGES * 4096,
            )
            self._sql("CREATE INDEX IF NOT EXISTS Cache_access_time ON Cache (access_time)")
            self.access = AccessTable(self.run)
        except BaseException:
            self.close()
            raise

    def run(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """Run a statement about tables that are not diskcache's."""
        cursor: sqlite3.Cursor = self._sql(statement, values)
        return cursor

    def check(self) -> None:
        """StoreError if anything in the table would have to be unpickled; sqlite3.DatabaseError if it is damaged."""
        self._sql("PRAGMA quick_check(1)").fetchall()
        ((strange,),) = self._sql(
            "SELECT EXISTS (SELECT 1 FROM Cache WHERE mode NOT IN (?, ?) OR raw != 1 OR typeof(key) != 'text'"
            " OR (mode = ? AND typeof(value) != 'text') OR (mode = ? AND filename IS NULL))",
            (MODE_RAW, MODE_BINARY, MODE_RAW, MODE_BINARY),
        ).fetchall()
        if strange:
            raise StoreError(
                f"the cache index {self.directory}/cache.db holds values that this proxy did not write (pickled values"
                " are never read): point CACHE_DIRECTORY elsewhere or remove cache.db"
            )

    def adopt(self, key: str, path: Path, media_type: str, now_s: float) -> None:
        """Make the finished file the content of the key. Content that is known keeps its row and first media type."""
        with self.transact():
            known = self.get(key, tag=True)[1] if key in self else None
            if known is None:
                self.set(key, AdoptedFile(path), tag=media_type)
            else:
                # Not through set(): it would delete "the old file", which has the same name.
                self.disk.store(AdoptedFile(path), read=False, key=key)
                self._sql("UPDATE Cache SET tag = ? WHERE key = ? AND raw = 1", (known or media_type, key))
            self._sql("UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1", (now_s, key))

    def put_text(self, key: str, text: str, now_s: float) -> None:
        """Store or replace a text record."""
        with self.transact():
            self.set(key, text)
            self._sql("UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1", (now_s, key))

    def text(self, key: str) -> str | None:
        """Return a text record."""
        found = self.get(key)
        return found if isinstance(found, str) else None

    def texts_of_tag(self, registry: str, name: str, tag: str) -> dict[str, str]:
        """Return all records of a tag by their keys, a handful."""
        rows = self._sql(
            "SELECT key FROM Cache WHERE key >= ? AND key < ?", _between(tag_key_prefix(registry, name, tag))
        )
        texts = {key: self.text(key) for key in [key for (key,) in rows]}
        return {key: text for key, text in texts.items() if text is not None}

    def media_type(self, key: str) -> str | None:
        """Return the media type of content, "" for a blob, None when the content is not known."""
        return self.get(key, tag=True)[1] if key in self else None

    def touch_accesses(self, accesses: Mapping[str, float]) -> None:
        """Move access times forward, many keys in a transaction; unknown keys are passed over."""
        for batch in batched(accesses.items(), _ACCESSES_AT_A_TIME):
            with self.transact():
                self._con.executemany(
                    "UPDATE Cache SET access_time = ? WHERE key = ? AND raw = 1 AND access_time < ?",
                    [(at_s, key, at_s) for key, at_s in batch],
                )

    def content_by_access(self) -> Iterator[tuple[str, int]]:
        """Yield key and size in bytes of content, least recently accessed first."""
        yield from self._sql("SELECT key, size FROM Cache WHERE mode = ? ORDER BY access_time, rowid", (MODE_BINARY,))

    def unused_since(self, before_s: float) -> list[str]:
        """Return the keys, content and records, that were last accessed before this Unix time."""
        rows = self._sql("SELECT key FROM Cache WHERE access_time < ? ORDER BY access_time", (before_s,))
        return [key for (key,) in rows]

    def content_keys(self) -> set[str]:
        """Return the keys of all content."""
        rows = self._sql("SELECT key FROM Cache WHERE key >= ? AND key < ?", _between(CONTENT_PREFIX))
        return {key for (key,) in rows}

    def discard(self, keys: Iterable[str]) -> None:
        """Remove keys with their files; unknown keys are passed over. A reader keeps the file it has open."""
        for batch in batched(keys, _DISCARDED_AT_A_TIME):
            with self.transact():
                for key in batch:
                    self.delete(key)
                    self.access.forget_content(key)
            self.on_discarded(batch)

    def forget_tag(self, registry: str, name: str, tag: str, keep: int = 0) -> None:
        """Remove all records of a tag but the `keep` that were used last."""
        self._sql(
            "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM Cache WHERE key >= ? AND key < ? AND raw = 1"
            " ORDER BY access_time DESC LIMIT -1 OFFSET ?)",
            (*_between(tag_key_prefix(registry, name, tag)), keep),
        )

    def content_bytes(self) -> int:
        """Return the sum of the sizes of all content."""
        return int(self.reset("size"))


def _between(prefix: str) -> tuple[str, str]:
    """Return the bounds of the keys that start with the prefix, which ends in an ASCII character."""
    return prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)


def open_index(directory: Path) -> Index:
    """Open and check the index; a connection never stays open behind an error."""
    index = Index(directory)
    try:
        index.check()
    except BaseException:
        index.close()
        raise
    return index
