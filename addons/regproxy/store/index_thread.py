"""The one thread of the index, and what is done there whatever it is asked for.

SQLite wants a connection per thread, each closed by its own; and room under the cap is only made correctly one request
after the other. So there is one thread, and it owns the Index and the Room; `ledger.Ledger` has the ways to it. All
errors are StoreError. An index that is damaged or gone, at the start or while the store is open, is replaced by an
empty one; recovery finds the content again.
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
from regproxy.store.index import Index
from regproxy.store.index_file import IndexFile
from regproxy.store.layout import Layout, on_disk_bytes
from regproxy.store.leftovers import collect_leftovers
from regproxy.store.records import content_key, digest_of_key

_REMEDY = "check the disk and the owner of the cache directory, or remove cache.db to have it rebuilt"


class IndexThread:
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
            self.activity, self.pulls = self._room.activity, self._room.pulls
            self._thread.submit(self._step, "read the pins", self._room.read_pins).result()
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

    async def _read[T](self, action: str, step: Callable[[], T]) -> T:
        return await submit(self._thread, self._step, action, step)

    async def _change[T](self, action: str, step: Callable[[], T]) -> T:
        return await submit(self._thread, self._step, action, self._changing, step)

    # On the index thread.

    def _open(self) -> Index:
        with translated("open the cache index", self._layout.database, _REMEDY):
            return self._file.open()

    def _changing[T](self, step: Callable[[], T]) -> T:
        try:
            return step()
        finally:
            self._settle_down()

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
