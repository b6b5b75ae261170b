"""The store as one worker among several has it: one directory, the same promises.

The first to open the directory recovers it; the last to close it says that it was closed cleanly. One worker keeps
house (it holds the claim), the others write what they know. docs/workers.md tells which state is shared how.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.store.access_book import AccessBook
from regproxy.store.content import HOUSEKEEPING_INTERVAL_S, Store
from regproxy.store.crew.access import CrewAccessBook
from regproxy.store.crew.flights import CrewFlights
from regproxy.store.crew.hot import CrewHotRecords
from regproxy.store.crew.ledger import CrewLedger
from regproxy.store.crew.sharing import LockFile, Sharing
from regproxy.store.crew.stamps import DOUBTED_FROM, DOUBTED_UNTIL, FORGOTTEN_TAGS, LOOKED_AT_EPOCH, LOST
from regproxy.store.directory import MIN_FREE_BYTES
from regproxy.store.errors import translated
from regproxy.store.eviction import Usage
from regproxy.store.flights import Flights
from regproxy.store.layout import on_disk_bytes
from regproxy.store.ledger import Ledger
from regproxy.store.records import content_key
from regproxy.store.recovery import UNSETTLED_S, Doubts, beat_no_more, find_doubts, last_seen_alive_s

_logger = logging.getLogger(__name__)

FIRST_WORD_S = 1.0
"""For so long the first worker waits to hear that it keeps house, so that its first round is a whole one."""

HOUSEKEEPING = "housekeeping"
"""The claim of the worker that keeps house."""


class CrewStore(Store):
    """One cache directory, for one of several workers."""

    def __init__(  # noqa: PLR0913 - as Store, and what is shared
        self,
        directory: Path,
        cap_bytes: int,
        inactive_s: float,
        min_free_bytes: int = MIN_FREE_BYTES,
        clock: Callable[[], float] = time.time,
        *,
        sharing: Sharing,
    ) -> None:
        super().__init__(directory, cap_bytes, inactive_s, min_free_bytes, clock)
        self._sharing, self._stamps = sharing, sharing.stamps
        self._hot = CrewHotRecords(self._stamps)
        self._is_first = self._keeps_house = self._is_settled = False
        self._opening: LockFile | None = None
        self._users: LockFile | None = None

    def open(self) -> None:
        """Open as `Store.open`; the first worker makes and recovers what is there. Blocks."""
        self._layout.prepare()
        self._opening = opening = LockFile(self._layout.directory / "opening.lock")
        with opening.alone():
            self._users = users = LockFile(self._layout.directory / "users.lock")
            self._is_first = users.is_last()
            try:
                super().open()
            except BaseException:
                users.close()
                raise
            users.join()

    def close(self) -> None:
        """Close as `Store.close`; what could not be closed cleanly, those who stay look for."""
        if self._opening is None or self._users is None:
            return
        self._is_settled = False
        try:
            super().close()
        finally:
            if not self._is_settled:
                self._stamps.change(LOST)
            for lock in (self._users, self._opening):
                lock.close()
            self._opening = self._users = None

    @property
    def forgotten_tags(self) -> int:
        """Another number after every tag that a worker forgets."""
        return self._stamps.current(FORGOTTEN_TAGS)

    async def forget_tag(self, registry: str, name: str, tag: str) -> None:
        """Forget a tag, for all kinds of clients and all workers."""
        self._stamps.change(FORGOTTEN_TAGS)
        await super().forget_tag(registry, name, tag)

    async def tidy(self) -> None:
        """One round of housekeeping; of what is this worker's own business, if another one keeps house."""
        ledger = self._open_ledger()
        assert isinstance(ledger, CrewLedger)
        await ledger.take_orphans()
        if not self._keeps_house:
            await self.access.flush()
            if ledger.take_unindexed():
                self._stamps.change(LOST)
            if not self._stamps.word(DOUBTED_FROM):
                self._doubts.unverified.clear()
            return
        lost = self._stamps.current(LOST)
        if not self._has_looked():
            await asyncio.to_thread(self._look_for_lost_rows)
            outcome = await self.reconcile()
            if outcome.right or outcome.removed:
                _logger.info(
                    "a worker died, or the cache lost rows of its index: %d contents are right, %d were removed",
                    outcome.right,
                    outcome.removed,
                )
        await super().tidy()
        self._stamps.set_word(LOOKED_AT_EPOCH, lost)
        self._stamps.set_word(DOUBTED_FROM, 0)

    async def housekeeping(self, interval_s: float = HOUSEKEEPING_INTERVAL_S) -> None:
        """Keep house until cancelled or closed: all of it from the moment on that no other worker does."""
        claim = self._sharing.claim(HOUSEKEEPING)

        async def wait_for_turn() -> None:
            while not claim.is_granted:
                await claim.next_word()
            self._keeps_house = True
            self.worker_gone()

        waiting = asyncio.get_running_loop().create_task(wait_for_turn())
        try:
            await asyncio.wait([waiting], timeout=FIRST_WORD_S)
            if self.is_open:
                await super().housekeeping(interval_s)
        finally:
            waiting.cancel()

    def worker_gone(self) -> None:
        """Look soon for what a worker has left that has died: until then the cache cannot be closed cleanly."""
        if self._upkeep is not None and self._keeps_house and not self._has_looked():
            self._upkeep.early.set()

    def _has_looked(self) -> bool:
        return self._stamps.current(LOST) == self._stamps.word(LOOKED_AT_EPOCH)

    async def look_at_usage(self) -> Usage:
        """Return what the store takes now, whoever changed it last."""
        ledger = self._open_ledger()
        assert isinstance(ledger, CrewLedger)
        return await ledger.look_at_usage()

    def _is_keeper(self) -> bool:
        return self._keeps_house

    def _new_ledger(self, oldest_s: float) -> Ledger:
        return CrewLedger(
            self._layout,
            cap_bytes=self._cap_bytes,
            min_free_bytes=self._min_free_bytes,
            oldest_s=oldest_s,
            clock=self._clock,
            stamps=self._stamps,
            is_first=self._is_first,
        )

    def _new_book(self, ledger: Ledger) -> AccessBook:
        return CrewAccessBook(ledger, self._stamps)

    def _new_flights(self, ledger: Ledger) -> Flights:
        assert isinstance(self._access, CrewAccessBook)
        return CrewFlights(self._layout, ledger, self._doubts.settle, self._sharing, self._access, self.holds)

    def _find_doubts(self, ledger: Ledger) -> Doubts:
        """Doubt what the first worker doubts."""
        if not self._is_first:
            return Doubts(unverified=self._doubted())
        with translated("look for the end of the last run in", self._layout.directory, "check the disk"):
            alive_until_s = last_seen_alive_s(self._layout)
        doubts = find_doubts(self._layout, ledger)
        if alive_until_s is not None and doubts:
            self._stamps.set_word(DOUBTED_UNTIL, int(self._clock()) + 1)
            self._stamps.set_word(DOUBTED_FROM, max(1, int(alive_until_s - UNSETTLED_S)))
        self._stamps.set_word(LOOKED_AT_EPOCH, self._stamps.current(LOST))
        return doubts

    def _doubted(self) -> set[Digest]:
        from_s, until_s = self._stamps.word(DOUBTED_FROM), self._stamps.word(DOUBTED_UNTIL)
        if not from_s:
            return set()
        return {digest for digest, status in self._layout.stored() if from_s <= status.st_mtime <= until_s}

    def _look_for_lost_rows(self) -> None:
        """Doubt files without a row, and rows without a file: a worker that died may have been between the two."""
        ledger = self._open_ledger()
        known = ledger.known_content()
        lost = {digest: status for digest, status in self._layout.stored() if content_key(digest) not in known}
        ledger.count_unindexed({digest: on_disk_bytes(status.st_size) for digest, status in lost.items()})
        self._doubts.unindexed.update({digest: status.st_mtime for digest, status in lost.items()})
        self._doubts.check_rows = True

    def _beat_no_more(self) -> None:
        """Say that the store was closed cleanly, if this was the last worker and none has left anything to look for."""
        assert self._opening is not None
        assert self._users is not None
        if self._doubts.unindexed or self._doubts.check_rows:
            return
        self._is_settled = True
        with self._opening.alone():
            self._users.leave()
            is_sure = not self._doubts and not self._stamps.word(DOUBTED_FROM)
            if is_sure and self._users.is_last() and self._has_looked():
                beat_no_more(self._layout)
