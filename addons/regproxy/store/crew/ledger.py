"""The index when several workers use it: one changes it at a time, and what they remember is stamped.

Reads need no lock (SQLite's write-ahead log gives each a state of its own). A change holds the store's lock from its
first look at the accounts to its last write, and changes the stamps of what it changed before it returns.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from regproxy.oci.digest import Digest
from regproxy.policy.access import CLOSED, NEVER_S, Given, Repository
from regproxy.store.access_table import AccessChanges
from regproxy.store.clock_jumps import LEAST_JUMP_S
from regproxy.store.crew.hot import tag_parts
from regproxy.store.crew.room import CrewRoom
from regproxy.store.crew.sharing import LockFile
from regproxy.store.crew.stamps import CLOCK_OFFSET, FORGOTTEN_TAGS, INDEX_DEVICE, INDEX_INODE, LOST, Stamps
from regproxy.store.eviction import Room, Usage
from regproxy.store.index import MAX_ACCEPT_VARIANTS, Index
from regproxy.store.layout import Layout
from regproxy.store.ledger import Ledger
from regproxy.store.records import TagKey

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LearntChanges(AccessChanges):
    """What was learnt of who may read what, and when."""

    learnt_at: dict[Repository, int] = field(default_factory=dict)
    """The stamp of a repository when something was first learnt of it."""
    refused: set[Repository] = field(default_factory=set)
    """Where somebody was refused."""

    def __bool__(self) -> bool:
        return bool(self.refused) or super(LearntChanges, self).__bool__()

    def set_back(self, by_s: float) -> "LearntChanges":
        """Return them by a clock that was set back by so many seconds."""
        times = super(LearntChanges, self).set_back(by_s)
        return LearntChanges(
            times.repositories, times.bindings, times.proofs, times.challenges, dict(self.learnt_at), set(self.refused)
        )


class CrewLedger(Ledger):
    """The ledger of one worker. `is_first`: no other worker has the store open."""

    def __init__(  # noqa: PLR0913 - as Ledger, and what is shared
        self,
        layout: Layout,
        *,
        cap_bytes: int,
        min_free_bytes: int,
        oldest_s: float,
        clock: Callable[[], float],
        stamps: Stamps,
        is_first: bool,
    ) -> None:
        self._stamps, self._is_first = stamps, is_first
        self._offset_ms = 0
        self._jumped_s = 0.0
        """By how many seconds the clock was set between this worker's last change and the one under way."""
        self._lock = LockFile(layout.directory / "workers.lock")
        try:
            super().__init__(layout, cap_bytes=cap_bytes, min_free_bytes=min_free_bytes, oldest_s=oldest_s, clock=clock)
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Write the access times and close the index."""
        try:
            super().close()
        finally:
            self._lock.close()

    async def claim(self, digest: Digest) -> bool:
        """Protect the partial file of a starting ingest; returns whether there may be one to resume."""
        return await self._change("resume content", lambda: self._room.claim(digest))

    async def put_text(self, key: TagKey, text: str) -> int | None:
        """Store the text of a tag record, unless a tag was forgotten since this was asked for.

        Returns with what stamp it may be kept in memory, None for not at all.
        """
        asked_at = self._stamps.current(FORGOTTEN_TAGS)
        number = self._stamps.number(*tag_parts(key.registry, key.name, key.tag))

        def put_text() -> int | None:
            if self._stamps.current(FORGOTTEN_TAGS) != asked_at:
                return None
            self._index.forget_tag(key.registry, key.name, key.tag, keep=MAX_ACCEPT_VARIANTS - 1)
            self._index.put_text(key.text(), text, self._clock())
            self._stamps.change(number)
            return self._stamps.current(number)

        return await self._change("remember a tag", put_text)

    async def forget_tag(self, registry: str, name: str, tag: str) -> None:
        """Remove all records of a tag."""

        def forget_tag() -> None:
            self._index.forget_tag(registry, name, tag)
            self._stamps.change(self._stamps.number(*tag_parts(registry, name, tag)))

        await self._change("forget a tag", forget_tag)

    async def write_access(self, changes: AccessChanges) -> None:
        """Write what was learnt of who may read what, but nothing from before another worker learnt of a refusal."""
        await self._change("remember who may read", lambda: self._write_learnt(changes))

    def write_access_now(self, changes: AccessChanges) -> None:
        """Write as `write_access`. Blocks."""
        self._alone_now("remember who may read", lambda: self._write_learnt(changes))

    def count_unindexed(self, found_bytes: dict[Digest, int]) -> None:
        """Hold files without a row against the cap until they are adopted or removed."""

        def count_unindexed() -> None:
            self._room.unindexed = found_bytes

        self._alone_now("account for content", count_unindexed)

    async def take_orphans(self) -> None:
        """Give back the partial files of workers that have died, and write the access times."""

        def take_orphans() -> None:
            self._crew_room().take_orphans(self._clock())
            self._room.flush()

        await self._change("account for content", take_orphans)

    async def look_at_usage(self) -> Usage:
        """Return what the store takes now, whoever changed it last."""
        await self._change("look at the cache", lambda: None)
        return self.usage

    async def shift_times(self, by_s: float) -> None:
        """Follow the clock, which was set by so many seconds; the first worker that notices moves the index's times."""
        del by_s  # each change finds it out, for the workers do not notice at the same moment
        await self._change("follow the clock", lambda: None)

    # On the index thread.

    def _open(self) -> Index:
        with self._lock.alone():
            index = super()._open()
            is_new = self._file.rebuilt and not self._is_first
            if is_new:  # by a worker that has just been started, so the others will not notice
                _logger.warning(
                    "the cache index %s was removed or replaced: rebuilding it from the content files",
                    self._layout.database,
                )
            self._agree(is_new=is_new)
        return index

    def _agree(self, *, is_new: bool) -> None:
        """Let the file that is open be everybody's index; what is not in a new one, the housekeeper looks for."""
        for number, part in zip((INDEX_DEVICE, INDEX_INODE), self._file.identity, strict=True):
            self._stamps.set_word(number, part)
        if is_new:
            self._stamps.change(LOST)

    def _is_agreed(self) -> bool:
        return self._file.identity == (self._stamps.word(INDEX_DEVICE), self._stamps.word(INDEX_INODE))

    def _replace_index(self, damaged_by: Exception | None = None) -> None:
        """Replace the index for all workers, if no other one has done it meanwhile."""
        with self._lock.alone():
            if not self._is_agreed():
                self._follow_index()
                return
            super()._replace_index(damaged_by)
            self._agree(is_new=True)
            self._crew_room().end()

    def _follow_index(self) -> None:
        """Open the index that another worker has put in the place of the one that is open here."""
        if self._is_agreed():
            return
        with contextlib.suppress(sqlite3.Error):
            self._index.close()  # SQLite leaves the log alone when the file is not that of the name any more
        self._layout.prepare()
        self._index = self._file.open()
        self._crew_room().follow_index(self._index)
        self._agree(is_new=self._file.rebuilt)

    def _follow_clock(self) -> None:
        """Move all times along when the clock was set (`clock_jumps`): the index's once, what is here at each worker.

        Raises what SQLite raises.
        """
        offset_ms = int((self._clock() - time.monotonic()) * 1000)
        since_written_s = (offset_ms - (self._stamps.word(CLOCK_OFFSET) or offset_ms)) / 1000
        if abs(since_written_s) >= LEAST_JUMP_S:
            self._index.shift_times(since_written_s)
            self._crew_room().shift_times(since_written_s)
        self._stamps.set_word(CLOCK_OFFSET, max(0, offset_ms))
        own_s = (offset_ms - (self._offset_ms or offset_ms)) / 1000
        self._jumped_s = own_s if abs(own_s) >= LEAST_JUMP_S else 0.0
        if self._jumped_s:
            self.accesses.shift(self._jumped_s)
            self.pulls.shift(self._jumped_s)
        self._offset_ms = offset_ms

    def _new_room(self, cap_bytes: int, min_free_bytes: int) -> Room:
        return CrewRoom(self._layout, self._index, self.accesses, cap_bytes, min_free_bytes, self._stamps)

    def _collect(self, oldest_s: float) -> None:
        if self._is_first:
            self._stamps.set_word(CLOCK_OFFSET, 0)
            self._crew_room().begin_anew()
            super()._collect(oldest_s)
            self._crew_room().end()
        else:
            self._crew_room().begin()
            self._refresh()

    def _changing[T](self, step: Callable[[], T]) -> T:
        with self._alone():
            return super()._changing(step)

    def _alone_now(self, action: str, step: Callable[[], None]) -> None:
        self._thread.submit(self._step, action, self._changing, step).result()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        room = self._crew_room()
        with self._lock.alone():
            self._follow_index()
            self._follow_clock()
            self._index.on_discarded = self._discarded
            room.begin()
            try:
                yield
            finally:
                room.end()

    def _discarded(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._stamps.change(self._stamps.number(key))

    def _write_learnt(self, changes: AccessChanges) -> None:
        if self._jumped_s < 0:
            changes = changes.set_back(-self._jumped_s)  # learnt by the clock as it was
        if isinstance(changes, LearntChanges):
            overtaken = {
                repository
                for repository, stamp in changes.learnt_at.items()
                if self._stamps.current(self._stamps.number(*repository_parts(repository))) != stamp
            }
            self._write_access(without_rights(changes, overtaken) if overtaken else changes)
            for repository in changes.refused:
                self._stamps.change(self._stamps.number(*repository_parts(repository)))
        else:
            self._write_access(changes)

    def _crew_room(self) -> CrewRoom:
        assert isinstance(self._room, CrewRoom)
        return self._room


def repository_parts(repository: Repository) -> tuple[str, ...]:
    """Return the parts of the key by which a repository's rights are stamped."""
    return "repository", str(repository.registry), repository.name


def without_rights(changes: LearntChanges, overtaken: set[Repository]) -> AccessChanges:
    """Leave out what would let somebody read, where a refusal may be newer.

    Content stays bound, for nobody: without any binding it would be of unknown origin, which anybody may claim.
    """
    return replace(
        changes,
        repositories={
            repository: CLOSED if repository in overtaken else openness
            for repository, openness in changes.repositories.items()
            if repository not in overtaken or repository in changes.refused
        },
        bindings={
            (repository, digest): Given.NOWHERE if repository in overtaken else given
            for (repository, digest), given in changes.bindings.items()
        },
        proofs={
            (repository, client): at_s
            for (repository, client), at_s in changes.proofs.items()
            if repository not in overtaken or at_s == NEVER_S
        },
    )
