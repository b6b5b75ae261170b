"""Everything that is done with the index, on its one thread.

SQLite wants a connection per thread, each closed by its own; and room under the cap is only made correctly one request
after the other. So there is one thread, it owns the Index and the Room, and the methods of the Ledger are the ways to
it. All errors are StoreError. A damaged index is moved aside and starts empty; recovery finds the content again.
"""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Openness, Repository
from regproxy.store.access_table import AccessChanges
from regproxy.store.accesses import Accesses
from regproxy.store.errors import StoreFull, is_damage, translated
from regproxy.store.eviction import Room, Usage
from regproxy.store.growing import submit
from regproxy.store.index import MAX_ACCEPT_VARIANTS, Index, open_index
from regproxy.store.layout import Layout, on_disk_bytes
from regproxy.store.leftovers import collect_leftovers
from regproxy.store.partial import PartialFile, write_scratch
from regproxy.store.records import TagKey, content_key

_logger = logging.getLogger(__name__)

_REMEDY = "check the disk and the owner of the cache directory, or remove cache.db to have it rebuilt"


class Ledger:
    """The index, the accounts and the access times of one open store. The constructor opens it and blocks."""

    def __init__(
        self, layout: Layout, *, cap_bytes: int, min_free_bytes: int, oldest_s: float, clock: Callable[[], float]
    ) -> None:
        self.accesses = Accesses()
        self.usage = Usage()
        """As of the last change."""
        self.rebuilt = False
        """Whether the index was damaged and starts empty."""
        self._layout, self._clock = layout, clock
        self._thread = ThreadPoolExecutor(1, "store-index")
        try:
            self._index = self._thread.submit(self._step, "open the cache index", self._open_index).result()
            self._room = self._thread.submit(self._new_room, cap_bytes, min_free_bytes).result()
            self._thread.submit(self._step, "look for unfinished content", self._collect, oldest_s).result()
        except BaseException:
            self._thread.shutdown()
            raise

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
            self._index.adopt(content_key(digest), partial.path, "", self._clock())
            self._room.settle(digest, 0, self._clock())
            self._room.unindexed.pop(digest, None)
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
                self._index.adopt(key, scratch, media_type, now_s)
                self._room.unindexed.pop(digest, None)
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
                self._index.adopt(key, path, media_type, used_at_s)
                self._room.unindexed.pop(digest, None)
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

    async def texts_of_tag(self, registry: str, name: str, tag: str) -> dict[str, str]:
        """Return the texts of all records of a tag by their keys."""
        return await self._read("look up a tag", lambda: self._index.texts_of_tag(registry, name, tag))

    async def put_text(self, key: TagKey, text: str) -> None:
        """Store the text of a tag record."""

        def put_text() -> None:
            self._index.forget_tag(key.registry, key.name, key.tag, keep=MAX_ACCEPT_VARIANTS - 1)
            self._index.put_text(key.text(), text, self._clock())

        await self._change("remember a tag", put_text)

    async def forget_tag(self, registry: str, name: str, tag: str) -> None:
        """Remove all records of a tag."""
        await self._change("forget a tag", lambda: self._index.forget_tag(registry, name, tag))

    # Who may read what.

    async def access(self, repository: Repository, identity: str, digest: Digest | None) -> tuple[Openness, int, float]:
        """Return how open a repository is, to whom it gave a content, and when it last let a client read."""
        table = self._index.access
        return await self._read(
            "look up who may read",
            lambda: (
                table.openness(repository),
                0 if digest is None else table.given(repository, digest),
                table.proven_at_s(repository, identity),
            ),
        )

    async def holders(self, digest: Digest) -> list[tuple[Repository, int]]:
        """Return the repositories that are known to have a content."""
        return await self._read("look up who has content", lambda: self._index.access.holders(digest))

    async def challenge(self, registry: Registry) -> str | None:
        """Return what a registry asked for when it last refused."""
        return await self._read("look up a challenge", lambda: self._index.access.challenge(registry))

    async def write_access(self, changes: AccessChanges) -> None:
        """Write what was learnt of who may read what."""
        await self._change("remember who may read", lambda: self._write_access(changes))

    def write_access_now(self, changes: AccessChanges) -> None:
        """Write what was learnt of who may read what. Blocks."""
        self._thread.submit(self._step, "remember who may read", self._write_access, changes).result()

    async def tidy_access(self, oldest_proof_s: float) -> None:
        """Remove what is of no use: proofs from before this Unix time, and what is said of content that is gone."""
        await self._change("tidy who may read", lambda: self._tidy_access(oldest_proof_s))

    # Recovery.

    def known_content(self) -> set[str]:
        """Return the keys of all content. Blocks."""
        return self._thread.submit(self._step, "list the content", self._index.content_keys).result()

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

    async def drop(self, digest: Digest) -> None:
        """Remove content that is not what its name says."""

        def drop() -> None:
            self._room.unindexed.pop(digest, None)
            self._index.discard([content_key(digest)])
            self._layout.content(digest).unlink(missing_ok=True)

        await self._change("remove broken content", drop)

    async def drop_rows_without_file(self, digests: Iterable[Digest]) -> None:
        """Remove the rows of those digests whose file is gone."""

        def drop_rows() -> None:
            gone = [digest for digest in digests if not self._layout.content(digest).exists()]
            self._index.discard(map(content_key, gone))

        await self._change("clean the index", drop_rows)

    # On the index thread.

    def _write_access(self, changes: AccessChanges) -> None:
        with self._index.transact():
            self._index.access.write(changes)

    def _tidy_access(self, oldest_proof_s: float) -> None:
        with self._index.transact():
            self._index.access.tidy(oldest_proof_s)

    def _open_index(self) -> Index:
        try:
            return open_index(self._layout.directory)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            aside = self._layout.database.with_name("cache.db.damaged")
            _logger.error(  # noqa: TRY400 - the traceback would say no more than the reason
                "the cache index %s is damaged (%s): moved to %s, rebuilding it from the content files",
                self._layout.database,
                error,
                aside.name,
            )
        self._layout.database.replace(aside)
        for suffix in ("-wal", "-shm"):
            self._layout.database.with_name(f"cache.db{suffix}").unlink(missing_ok=True)
        self._layout.prepare()
        self.rebuilt = True
        return open_index(self._layout.directory)

    def _new_room(self, cap_bytes: int, min_free_bytes: int) -> Room:
        return Room(self._layout, self._index, self.accesses, cap_bytes, min_free_bytes)

    def _collect(self, oldest_s: float) -> None:
        for leftover in collect_leftovers(self._layout, oldest_s):
            self._room.add_leftover(leftover)
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
            return step(*args)

    async def _read[T](self, action: str, step: Callable[[], T]) -> T:
        return await submit(self._thread, self._step, action, step)

    async def _change(self, action: str, step: Callable[[], None]) -> None:
        await submit(self._thread, self._step, action, self._changing, step)

    def _changing(self, step: Callable[[], None]) -> None:
        try:
            step()
        finally:
            self._settle_down()
