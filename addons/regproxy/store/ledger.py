"""Everything that is done with the index, on its one thread.

SQLite wants a connection per thread, each closed by its own; and room under the cap is only made correctly one request
after the other. So there is one thread, it owns the Index and the Room, and the methods of the Ledger are the ways to
it. All errors are StoreError. An index that is damaged or gone, at the start or while the store is open, is replaced
by an empty one; recovery finds the content again.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.store.accesses import Accesses
from regproxy.store.errors import StoreFull, is_damage, translated
from regproxy.store.eviction import Room, Usage
from regproxy.store.growing import submit
from regproxy.store.index import MAX_ACCEPT_VARIANTS, Index
from regproxy.store.index_file import IndexFile
from regproxy.store.layout import Layout, on_disk_bytes
from regproxy.store.leftovers import collect_leftovers
from regproxy.store.partial import PartialFile, write_scratch
from regproxy.store.records import TagKey, content_key, digest_of_key

_REMEDY = "check the disk and the owner of the cache directory, or remove cache.db to have it rebuilt"


class Ledger:
    """The index, the accounts and the access times of one open store. The constructor opens it and blocks."""

    def __init__(
        self, layout: Layout, *, cap_bytes: int, min_free_bytes: int, oldest_s: float, clock: Callable[[], float]
    ) -> None:
        self.accesses = Accesses()
        self.usage = Usage()
        """As of the last change."""
        self._layout, self._clock = layout, clock
        self._file = IndexFile(layout)
        self._unindexed: dict[Digest, float] = {}
        self._thread = ThreadPoolExecutor(1, "store-index")
        try:
            self._index = self._thread.submit(self._open).result()
            self._room = Room(layout, self._index, self.accesses, cap_bytes, min_free_bytes)
            self._thread.submit(self._step, "look for unfinished content", self._collect, oldest_s).result()
        except BaseException:
            self._thread.shutdown()
            raise

    @property
    def rebuilt(self) -> bool:
        """Whether the index was damaged or not there, and began empty."""
        return self._file.rebuilt

    def close(self) -> None:
        """Write the access times and close the index on its own thread; what was asked before is done first."""
        try:
            self._thread.submit(self._step, "close the cache index", self._flush_and_close).result()
        finally:
            self._thread.shutdown()

    def wait_until_idle(self) -> None:
        """Block until everything that was asked is done."""
        self._thread.submit(lambda: None).result()

    # Ingests.

    async def claim(self, digest: Digest) -> bool:
        """Protect the partial file of a starting ingest; returns whether there is one to resume."""
        return await self._read("resume content", lambda: self._room.claim(digest))

    async def reserve(self, digest: Digest, total_bytes: int) -> None:
        """Make room so that the partial file may take so many bytes in all; StoreFull."""
        await self._change("make room", lambda: self._room.reserve(digest, total_bytes))

    async def commit(self, digest: Digest, partial: PartialFile) -> None:
        """Make a verified partial file content."""

        def commit() -> None:
            try:
                self._take_in(digest, partial.path, "", self._clock())
            finally:
                if not partial.path.exists():  # also when only its row could not be written
                    self._room.settle(digest, 0, self._clock())
                    partial.close(readable=True)
                    partial.forget_progress()

        await self._change("store content", commit)

    async def settle(self, digest: Digest, kept_bytes: int) -> None:
        """Note that an ingest ended and so many bytes of its partial file stay."""
        await self._change("account for content", lambda: self._room.settle(digest, kept_bytes, self._clock()))

    # Content.

    async def put(self, digest: Digest, body: bytes, media_type: str, *, trust_stored: bool = True) -> None:
        """Store verified content from memory; StoreFull. Without `trust_stored` a file that is there is replaced."""

        def put() -> None:
            key, path, now_s = content_key(digest), self._layout.content(digest), self._clock()
            known = self._index.media_type(key)
            if trust_stored and known is not None and path.exists():
                # Stored once; a blob that turns out to be a manifest learns its media type.
                self._index.adopt(key, path, media_type, now_s)
                return
            self._room.make(on_disk_bytes(len(body)))
            scratch = self._layout.scratch(digest)
            try:
                write_scratch(scratch, body)
                self._take_in(digest, scratch, media_type, now_s)
            finally:
                scratch.unlink(missing_ok=True)

        await self._change("store content", put)

    async def set_aside(self, total_bytes: int) -> None:
        """Hold so many bytes for content of an old cache, 0 for none; StoreFull when something would have to go."""
        await self._change("make room", lambda: self._room.set_aside(total_bytes))

    async def adopt(
        self, digest: Digest, path: Path, media_type: str, used_at_s: float, *, trust_stored: bool = True
    ) -> None:
        """Make a verified file content, in the room that was set aside; content that is stored stays as it is."""

        def adopt() -> None:
            key = content_key(digest)
            known = self._index.media_type(key)
            if not trust_stored or known is None or not self._layout.content(digest).exists():
                self._take_in(digest, path, media_type, used_at_s)
            self._room.set_aside(0)

        await self._change("store content", adopt)

    async def media_type(self, digest: Digest) -> str | None:
        """Return the media type content was stored with, "" for a blob, None when it is not there."""
        return await self._read("look up content", lambda: self._index.media_type(content_key(digest)))

    async def expire(self, oldest_s: float) -> None:
        """Write the access times, then remove what was last used before this Unix time."""
        await self._change("remove unused content", lambda: self._room.expire(oldest_s))

    # Tag records.

    async def text(self, key: TagKey) -> str | None:
        """Return the text of a tag record."""
        return await self._read("look up a tag", lambda: self._index.text(key.text()))

    async def put_text(self, key: TagKey, text: str) -> None:
        """Store the text of a tag record."""

        def put_text() -> None:
            self._index.forget_tag(key.registry, key.name, key.tag, keep=MAX_ACCEPT_VARIANTS - 1)
            self._index.put_text(key.text(), text, self._clock())

        await self._change("remember a tag", put_text)

    async def forget_tag(self, registry: str, name: str, tag: str) -> None:
        """Remove all records of a tag."""
        await self._change("forget a tag", lambda: self._index.forget_tag(registry, name, tag))

    # Recovery.

    def known_content(self) -> set[str]:
        """Return the keys of all content. Blocks."""
        return self._thread.submit(self._step, "list the content", self._index.content_keys).result()

    def indexed_content(self) -> list[Digest]:
        """Return the digests of all content; keys that a damage left behind are removed. Blocks."""

        def indexed() -> list[Digest]:
            return self._digests_of(self._index.content_keys())

        return self._thread.submit(self._step, "list the content", indexed).result()

    def count_unindexed(self, found_bytes: dict[Digest, int]) -> None:
        """Hold files without a row against the cap until they are adopted or removed."""
        self._room.unindexed = found_bytes
        self._thread.submit(self._refresh).result()

    async def adopt_found(self, digest: Digest, used_at_s: float) -> None:
        """Give a hashed content file its row back."""

        def adopt_found() -> None:
            self._room.unindexed.pop(digest, None)
            if self._index.media_type(content_key(digest)) is None and self._layout.content(digest).exists():
                self._index.adopt(content_key(digest), self._layout.content(digest), "", used_at_s)

        await self._change("adopt content", adopt_found)

    def take_unindexed(self) -> dict[Digest, float]:
        """Return files that lost their row while the store was open, with their Unix times, and forget them."""
        taken, self._unindexed = self._unindexed, {}
        return taken

    async def look_after(self) -> None:
        """Make anew what somebody removed from below the open store: the index, the directories."""
        await self._change("look after the cache index", self._look_after)

    async def drop(self, digest: Digest, inode: int | None = None) -> None:
        """Remove content that is not what its name says; with `inode`, only if that is still its file."""

        def drop() -> None:
            path = self._layout.content(digest)
            if inode is not None and path.exists() and path.lstat().st_ino != inode:
                return
            self._room.unindexed.pop(digest, None)
            path.unlink(missing_ok=True)
            self._index.discard([content_key(digest)])

        await self._change("remove broken content", drop)

    # Hashing again what is stored.

    async def due_for_hashing(self, read_before_s: float, unread_before_s: float, most: int) -> list[Digest]:
        """Return content that last hashed to its digest before these Unix times; see Index.due_for_hashing."""

        def due() -> list[Digest]:
            self._room.flush()
            return self._digests_of(self._index.due_for_hashing(read_before_s, unread_before_s, most))

        return await self._read("choose content to verify", due)

    async def note_hashed(self, digest: Digest) -> None:
        """Remember that content hashed to its digest just now."""
        await self._change(
            "remember a verification", lambda: self._index.note_hashed(content_key(digest), self._clock())
        )

    async def shift_times(self, by_s: float) -> None:
        """Move all times by so many seconds, after the clock was set."""
        self.accesses.shift(by_s)
        await self._change("follow the clock", lambda: self._index.shift_times(by_s))

    async def drop_rows_without_file(self, digests: Iterable[Digest]) -> None:
        """Remove the rows of those digests whose file is gone."""

        def drop_rows() -> None:
            gone = [digest for digest in digests if not self._layout.content(digest).exists()]
            self._index.discard(map(content_key, gone))

        await self._change("clean the index", drop_rows)

    # On the index thread.

    def _open(self) -> Index:
        with translated("open the cache index", self._layout.database, _REMEDY):
            return self._file.open()

    def _look_after(self) -> None:
        if self._file.is_another():
            self._replace_index()

    def _replace_index(self, damaged_by: Exception | None = None) -> None:
        """Go on with another index than the one that is open, and count the content that it does not know."""
        self._index = self._file.replace(self._index, damaged_by)
        known = self._index.content_keys()
        found = {digest: status for digest, status in self._layout.stored() if content_key(digest) not in known}
        self._unindexed = {digest: status.st_mtime for digest, status in found.items()}
        self._room.change_index(
            self._index, {digest: on_disk_bytes(status.st_size) for digest, status in found.items()}
        )

    def _digests_of(self, keys: Iterable[str]) -> list[Digest]:
        """Return the digests of content keys, and remove keys that some damage has spoiled."""
        digests, spoiled = [], []
        for key in keys:
            try:
                digests.append(digest_of_key(key))
            except ValueError:
                spoiled.append(key)
        self._index.discard(spoiled)
        return digests

    def _take_in(self, digest: Digest, path: Path, media_type: str, now_s: float) -> None:
        """Make the file content. When its row cannot be written it is content all the same, and counted."""
        try:
            self._index.adopt(content_key(digest), path, media_type, now_s)
        except BaseException:
            stored = self._layout.content(digest)
            if not path.exists() and stored.exists():
                self._room.unindexed[digest] = on_disk_bytes(stored.stat().st_size)
                self._unindexed[digest] = now_s
            raise
        self._room.unindexed.pop(digest, None)

    def _collect(self, oldest_s: float) -> None:
        for leftover in collect_leftovers(self._layout, oldest_s):
            self._room.add_leftover(leftover)
        self._index.forget_the_future(self._clock())
        self._settle_down()

    def _flush_and_close(self) -> None:
        try:
            self._room.flush()
        finally:
            self._index.close()

    def _settle_down(self) -> None:
        # Rows take room too: look after each change, so that the growth between two looks stays small.
        with contextlib.suppress(StoreFull):
            self._room.make(0)
        self._refresh()

    def _refresh(self) -> None:
        self.usage = self._room.usage()

    def _step[T](self, action: str, step: Callable[..., T], *args: object) -> T:
        with translated(action, self._layout.database, _REMEDY):
            try:
                return step(*args)
            except sqlite3.DatabaseError as error:
                if is_damage(error):
                    self._replace_index(damaged_by=error)
                raise

    async def _read[T](self, action: str, step: Callable[[], T]) -> T:
        return await submit(self._thread, self._step, action, step)

    async def _change(self, action: str, step: Callable[[], None]) -> None:
        def change() -> None:
            try:
                step()
            finally:
                self._settle_down()

        await submit(self._thread, self._step, action, change)
