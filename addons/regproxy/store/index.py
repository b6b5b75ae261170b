"""The one shared SQLite index: a diskcache.Cache with its culling turned off and a few statements of our own.

diskcache removes ten entries at a time or overshoots, and makes every hit a write, so eviction and access times are
ours (eviction.Room). The narrow seam into its table `Cache(key, raw, store_time, access_time, tag, size, mode,
filename)` is in this file only and pinned by its tests; `store_time` says here when the content last hashed to its
digest. Used by one thread: the store's index thread opens, uses and closes it.

Not decided here: when to evict, and what is stored.
"""

import contextlib
import os.path
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import batched
from pathlib import Path
from typing import Any

import diskcache
from diskcache.core import MODE_BINARY, MODE_RAW

from regproxy.store.access_table import AccessTable
from regproxy.store.disk import AdoptedFile, ContentDisk
from regproxy.store.errors import StoreError, damage
from regproxy.store.layout import BLOCK_BYTES, Layout
from regproxy.store.records import CONTENT_PREFIX, digest_of_key, tag_key_prefix

LOCK_TIMEOUT_S = 10.0
"""How long another process may hold the write lock before we say so."""

MAX_ACCEPT_VARIANTS = 32
"""Records kept per tag: clients send a handful of Accept lists, an attacker any number."""

_WAL_PAGES = 256
"""SQLite folds its write-ahead log back at 1 MiB, not at its usual 4, to keep what lies outside the cap small."""

_CACHE_PAGES = 1024
"""4 MiB of pages in memory. diskcache's 32 MiB made the process larger, and a look-up was not faster."""

_MAPPED_BYTES = 0
"""Nothing of the file is mapped: a bad sector, or somebody who cuts the file, would end the process by SIGBUS."""

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
        self._layout = Layout(directory)
        self._removed: list[str | None] | None = None
        """Files that the transaction under way leaves to be removed; None when there is none."""
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
        ((problem,),) = self._sql("PRAGMA quick_check(1)").fetchall()
        if problem != "ok":
            raise damage(str(problem))
        ((false,),) = self._sql(
            "SELECT EXISTS (SELECT 1 FROM Cache WHERE typeof(size) != 'integer' OR size < 0 OR size % ? != 0)",
            (BLOCK_BYTES,),
        ).fetchall()
        if false:
            raise damage("a size that no file has")
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
        self._recount()

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
            self._sql("UPDATE Cache SET access_time = ?, store_time = ? WHERE key = ? AND raw = 1", (now_s, now_s, key))

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

    def oldest_access_s(self) -> float | None:
        """Return the Unix time at which the content that is evicted next was last used; None when there is none."""
        for (access_s,) in self._sql(
            "SELECT access_time FROM Cache WHERE mode = ? ORDER BY access_time LIMIT 1", (MODE_BINARY,)
        ):
            return float(access_s)
        return None

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
            # The files first: on a full disk the rows can only be written when there is room again.
            for key in batch:
                self._remove_file(key)
            with self.transact():
                self._con.executemany("DELETE FROM Cache WHERE key = ? AND raw = 1", [(key,) for key in batch])
                for key in batch:
                    self.access.forget_content(key)
            self.on_discarded(batch)

    def due_for_hashing(self, read_before_s: float, unread_before_s: float, most: int) -> list[str]:
        """Return keys of content that last hashed to its digest too long ago (Unix times), the most pressing first.

        `read_before_s` is the limit for what was read since, most recently read first; `unread_before_s` for the rest.
        """
        read = self._sql(
            "SELECT key FROM Cache WHERE mode = ? AND store_time < ? AND access_time > store_time"
            " ORDER BY access_time DESC LIMIT ?",
            (MODE_BINARY, read_before_s, most),
        ).fetchall()
        rows = read or self._sql(
            "SELECT key FROM Cache WHERE mode = ? AND store_time < ? ORDER BY store_time LIMIT ?",
            (MODE_BINARY, unread_before_s, most),
        )
        return [key for (key,) in rows]

    def note_hashed(self, key: str, size_bytes: int, now_s: float) -> None:
        """Remember that content, which takes so much of the disk, hashed to its digest at this Unix time."""
        self._sql("UPDATE Cache SET store_time = ?, size = ? WHERE key = ? AND raw = 1", (now_s, size_bytes, key))

    def shift_times(self, by_s: float) -> None:
        """Move all times by so many seconds: the clock was set, and ages are to stay what they were.

        Not forward for who may read: if it was the clock that was wrong before, they are as old as they look.
        """
        with self.transact():
            self._sql("UPDATE Cache SET access_time = access_time + ?, store_time = store_time + ?", (by_s, by_s))
            if by_s < 0:
                self.access.shift_back(-by_s)

    def forget_tag(self, registry: str, name: str, tag: str, keep: int = 0) -> None:
        """Remove all records of a tag but the `keep` that were used last."""
        self._sql(
            "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM Cache WHERE key >= ? AND key < ? AND raw = 1"
            " ORDER BY access_time DESC LIMIT -1 OFFSET ?)",
            (*_between(tag_key_prefix(registry, name, tag)), keep),
        )

    def texts(self, prefix: str) -> dict[str, str]:
        """Return all text records whose keys start so."""
        rows = self._sql(
            "SELECT key, value FROM Cache WHERE key >= ? AND key < ? AND mode = ?", (*_between(prefix), MODE_RAW)
        )
        return dict(rows.fetchall())

    def contents_after(self, rowid: int, limit: int) -> list[tuple[int, str, int, float, str]]:
        """Return rows of content behind a row: its number, key, size in bytes, last access, media type."""
        rows = self._sql(
            "SELECT rowid, key, size, access_time, tag FROM Cache WHERE rowid > ? AND mode = ? ORDER BY rowid LIMIT ?",
            (rowid, MODE_BINARY, limit),
        )
        return [(number, key, size, accessed_s, media_type or "") for number, key, size, accessed_s, media_type in rows]

    def size_bytes(self, key: str) -> int:
        """Return the size of content; 0 for what is not there."""
        for (size,) in self._sql("SELECT size FROM Cache WHERE key = ? AND raw = 1 AND mode = ?", (key, MODE_BINARY)):
            return int(size)
        return 0

    def accessed_at_s(self, key: str) -> float | None:
        """Return the Unix time at which a key was last used; None when it is not there."""
        for (accessed_s,) in self._sql("SELECT access_time FROM Cache WHERE key = ? AND raw = 1", (key,)):
            return float(accessed_s)
        return None

    def forget_the_future(self, now_s: float) -> None:
        """Bring times behind this Unix time back to it: a clock that was wrong then would keep content for years."""
        for column in ("access_time", "store_time"):
            self._sql(f"UPDATE Cache SET {column} = ? WHERE {column} > ?", (now_s, now_s))  # noqa: S608 - our own words
        self.access.forget_the_future(now_s)

    def content_bytes(self) -> int:
        """Return the sum of the sizes of all content."""
        return int(self.reset("size"))

    def _recount(self) -> None:
        """Make diskcache's own sums true: a damaged one would lift the cap or empty the cache."""
        ((count, size_bytes),) = self._sql("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM Cache").fetchall()
        for key, value in (("count", count), ("size", size_bytes)):
            if self._sql("SELECT value FROM Settings WHERE key = ?", (key,)).fetchall() != [(value,)]:
                self._sql("INSERT OR REPLACE INTO Settings VALUES (?, ?)", (key, value))

    def _remove_file(self, key: str) -> None:
        with contextlib.suppress(ValueError):  # tag records, and the key of a damaged row: no file
            self.disk.remove(self._layout.content_name(digest_of_key(key)))

    @contextlib.contextmanager
    def _transact(
        self,
        retry: bool = False,  # noqa: ARG002 - diskcache's signature
        filename: str | None = None,  # noqa: ARG002
    ) -> Iterator[tuple[Callable[..., sqlite3.Cursor], Callable[[str | None], None]]]:
        """Run a transaction, or a part of the one that runs.

        diskcache's own leaves a transaction open when COMMIT fails (a full disk), so that every later one fails, too;
        and it takes each failure to begin for another process's lock.
        """
        if self._removed is not None:
            yield self._sql, self._removed.append
            return
        self._sql("BEGIN IMMEDIATE")
        removed: list[str | None] = []
        self._removed = removed
        try:
            yield self._sql, removed.append
            self._sql("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._removed = None
        for name in removed:
            if name is not None:
                self.disk.remove(name)

    def _roll_back(self) -> None:
        connection: Any = self._con
        if connection.in_transaction:  # SQLite has rolled back by itself after some errors
            with contextlib.suppress(sqlite3.Error):  # the error that matters is the one we are here for
                connection.execute("ROLLBACK")


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
