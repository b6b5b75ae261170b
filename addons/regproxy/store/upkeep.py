"""What an open store does by itself: settle the doubts of a crash, let go of what is unused, verify what is stored.

One round every few seconds; verification (scrub.Scrub) runs beside it at its own pace.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from regproxy.store.access_book import AccessBook
from regproxy.store.clock_jumps import ClockJumps
from regproxy.store.errors import StoreError
from regproxy.store.growing import submit
from regproxy.store.layout import Layout
from regproxy.store.ledger import Ledger
from regproxy.store.recovery import UNSETTLED_S, Doubts, Reconciled, beat, reconcile
from regproxy.store.scrub import Pace, Scrub

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Upkeep:
    """The upkeep of one open store."""

    layout: Layout
    ledger: Ledger
    access: AccessBook
    doubts: Doubts
    hash_pool: Executor
    clock: Callable[[], float]
    """The Unix time, in seconds."""
    silent_until_s: float = 0.0
    """By the event loop's clock: no heartbeat before."""
    is_keeper: Callable[[], bool] = lambda: True
    """Whether what is to be done once is done here: another worker may keep house."""
    early: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the next round is not to wait for its time."""

    async def reconcile(self) -> Reconciled:
        """Hash what is in doubt, adopt what is right, remove what is not."""
        return await reconcile(self.doubts, self.layout, self.ledger, self.hash_pool)

    async def settle(self) -> None:
        """Find what was lost from below the open store, and settle all doubts. Raises StoreError."""
        await self.ledger.look_after()
        self.doubts.find(self.ledger.take_unindexed())
        if self.doubts:
            outcome = await self.reconcile()
            _logger.info(
                "the cache was not closed cleanly or lost rows of its index: %d contents are right, %d were removed",
                outcome.right,
                outcome.removed,
            )

    async def beat(self) -> None:
        """Say that the store is alive. Raises StoreError."""
        if asyncio.get_running_loop().time() >= self.silent_until_s:
            await submit(self.hash_pool, beat, self.layout)

    async def run(
        self, tidy: Callable[[], Awaitable[None]], interval_s: float, is_open: Callable[[], bool], pace: Pace
    ) -> None:
        """Verify content at its pace, tidy every so many seconds until the store is closed; an error is said once."""
        loop = asyncio.get_running_loop()
        scrub = Scrub(self.layout, self.ledger, self.hash_pool, self.clock, pace)
        scrubbing = loop.create_task(scrub.run(is_open, self.is_keeper), name="verify stored content")
        jumps = ClockJumps(self.clock, loop.time)
        said = ""
        try:
            while is_open():
                try:
                    await self.follow_the_clock(jumps.since_last_look_s())
                    await tidy()
                    said = ""
                except StoreError as error:
                    if is_open() and str(error) != said:
                        _logger.error("cache housekeeping: %s", error)  # noqa: TRY400 - the message is complete
                        said = str(error)
                await self._next_round(interval_s)
        finally:
            scrubbing.cancel()

    async def _next_round(self, interval_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.early.wait(), interval_s)
        self.early.clear()

    async def follow_the_clock(self, jump_s: float) -> None:
        """Keep all ages when the clock was set by so many seconds."""
        if not jump_s:
            return
        if self.is_keeper():
            _logger.warning("the clock was set by %+.0f s: the cache counts all ages on from what they were", jump_s)
        if jump_s > 0:
            # A heartbeat by the new clock would vouch for files that were written a moment ago, by the old one.
            self.silent_until_s = asyncio.get_running_loop().time() + UNSETTLED_S
        if jump_s < 0:
            self.access.clock_set_back(-jump_s)
        await self.ledger.shift_times(jump_s)
