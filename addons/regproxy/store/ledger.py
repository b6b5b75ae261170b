"""Everything that is asked of the index, in one method each; `index_thread` does it, one after the other."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Openness, Repository
from regproxy.store.access_table import AccessChanges
from regproxy.store.eviction import Room
from regproxy.store.hot import ALONE
from regproxy.store.index import MAX_ACCEPT_VARIANTS, Index
from regproxy.store.index_thread import IndexThread
from regproxy.store.layout import FileId, on_disk_bytes
from regproxy.store.partial import PartialFile, write_scratch
from regproxy.store.records import TagKey, content_key
from regproxy.store.tag_history import TagChange, history_from_json, history_to_json

_logger = logging.getLogger(__name__)


class Ledger(IndexThread):
    """The index of one open store. Raises StoreError."""

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

    async def oldest_access_s(self) -> float | None:
        """Return when the content that is evicted next was last used (Unix time)."""
        return await self._read("look for the oldest content", self._index.oldest_access_s)

    async def expire(self, oldest_s: float) -> int:
        """Write the access times, then remove what was last used before this Unix time; return how many rows went."""
        return await self._change("remove unused content", lambda: self._room.expire(oldest_s))

    # Tag records.

    async def text(self, key: TagKey) -> str | None:
        """Return the text of a tag record."""
        return await self._read("look up a tag", lambda: self._index.text(key.text()))

    async def texts_of_tag(self, registry: str, name: str, tag: str) -> dict[str, str]:
        """Return the texts of all records of a tag by their keys."""
        return await self._read("look up a tag", lambda: self._index.texts_of_tag(registry, name, tag))

    async def put_text(self, key: TagKey, text: str) -> int | None:
        """Store the text of a tag record; returns with what stamp it may be kept in memory, None for not at all."""

        def put_text() -> int:
            self._index.forget_tag(key.registry, key.name, key.tag, keep=MAX_ACCEPT_VARIANTS - 1)
            self._index.put_text(key.text(), text, self._clock())
            return ALONE

        return await self._change("remember a tag", put_text)

    async def forget_tag(self, registry: str, name: str, tag: str) -> None:
        """Remove all records of a tag."""
        await self._change("forget a tag", lambda: self._index.forget_tag(registry, name, tag))

    # Who may read what.

    async def access(self, repository: Repository, identity: str, digest: Digest | None) -> tuple[Openness, int, float]:
        """Return how open a repository is, to whom it gave a content, and when it last let a client read."""

        def known() -> tuple[Openness, int, float]:
            table = self._index.access
            given = 0 if digest is None else table.given(repository, digest)
            return table.openness(repository), given, table.proven_at_s(repository, identity)

        return await self._read("look up who may read", known)

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

    async def note_tag_change(self, key: str, change: TagChange, known_at_s: float) -> bool:
        """Add a change to a tag's history, unless it is there; returns whether it was news."""

        def note() -> bool:
            history = self._history(key)
            if not change.is_news(history, known_at_s):
                return False
            self._index.put_text(key, history_to_json((*history, change)), self._clock())
            return True

        return await self._change("remember what became of a tag", note)

    async def tag_history(self, key: str) -> tuple[TagChange, ...]:
        """Return the changes of a tag, oldest first."""
        return await self._read("look up a tag's history", lambda: self._history(key))

    # What an operator asks for (inventory).

    async def inspect[T](self, action: str, step: Callable[[Index], T]) -> T:
        """Read the index; `action` says in an error what could not be done."""
        return await self._read(action, lambda: step(self._index))

    async def alter(self, action: str, step: Callable[[Index, Room], None]) -> None:
        """Change the index and the accounts."""
        await self._change(action, lambda: step(self._index, self._room))

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

    async def drop(self, digest: Digest, file: FileId | None) -> bool:
        """Remove content that was found broken in this file, None for no file; returns whether it did.

        Another one is there when somebody has stored the content anew since then: that stays.
        """

        def drop() -> bool:
            if self._layout.content_file(digest) not in {file, None}:
                return False
            self._room.unindexed.pop(digest, None)
            self._layout.content(digest).unlink(missing_ok=True)
            self._index.discard([content_key(digest)])
            return True

        return await self._change("remove broken content", drop)

    # Hashing again what is stored.

    async def due_for_hashing(self, read_before_s: float, unread_before_s: float, most: int) -> list[Digest]:
        """Return content that last hashed to its digest before these Unix times; see Index.due_for_hashing."""

        def due() -> list[Digest]:
            self._room.flush()
            return self._digests_of(self._index.due_for_hashing(read_before_s, unread_before_s, most))

        return await self._change("choose content to verify", due)

    async def note_hashed(self, digest: Digest) -> None:
        """Remember that content hashed to its digest just now, and make its size right."""

        def note_hashed() -> None:
            path = self._layout.content(digest)
            if path.exists():
                self._index.note_hashed(content_key(digest), on_disk_bytes(path.stat().st_size), self._clock())

        await self._change("remember a verification", note_hashed)

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

    def _write_access(self, changes: AccessChanges) -> None:
        with self._index.transact():
            self._index.access.write(changes)

    def _tidy_access(self, oldest_proof_s: float) -> None:
        with self._index.transact():
            self._index.access.tidy(oldest_proof_s)

    def _history(self, key: str) -> tuple[TagChange, ...]:
        text = self._index.text(key)
        try:
            return () if text is None else history_from_json(text)
        except ValueError as error:
            _logger.warning("ignoring the history %s: %s", key[:300], error)
            return ()
