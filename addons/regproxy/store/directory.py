"""A cache directory and what is open of it: its parts from the start of the proxy to its end, in their order."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Never

from regproxy.store.access_book import AccessBook
from regproxy.store.errors import StoreError
from regproxy.store.flights import Flights
from regproxy.store.hot import HotRecords
from regproxy.store.identity_key import read_or_make
from regproxy.store.layout import Layout
from regproxy.store.ledger import Ledger
from regproxy.store.recovery import Doubts, beat, beat_no_more, find_doubts
from regproxy.store.scrub import Pace
from regproxy.store.upkeep import Upkeep

_logger = logging.getLogger(__name__)

MIN_FREE_BYTES = 1024**3
"""Disk space left to others; 1 GiB, as the predecessor's forks do (CACHE_MIN_FREE)."""

PARTIAL_LIFETIME_S = 7 * 24 * 3600.0
"""A download that nobody resumed for a week is not resumed any more."""


class StoreDirectory:
    """One cache directory. `open` before the event loop serves, `close` at the end."""

    def __init__(
        self,
        directory: Path,
        cap_bytes: int,
        inactive_s: float,
        min_free_bytes: int = MIN_FREE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._layout = Layout(directory.absolute())
        self._content_prefix = f"{self._layout.directory}/content/"
        self._cap_bytes, self._min_free_bytes = cap_bytes, min_free_bytes
        self._inactive_s, self._clock = inactive_s, clock
        self._ledger: Ledger | None = None
        self._access: AccessBook | None = None
        self._access_tidied_at_s = 0.0
        self._flights: Flights | None = None
        self._upkeep: Upkeep | None = None
        self._doubts = Doubts()
        self._hot = HotRecords()
        self.pace = Pace()
        """How fast stored content is hashed again while `housekeeping` runs."""
        self.identity_key = b""
        """With which clients' logins are hashed; there when the store is open."""
        self._forgotten_tags = 0

    @property
    def forgotten_tags(self) -> int:
        """Another number after every tag that is forgotten, so that an answer from before is not recorded after."""
        return self._forgotten_tags

    @property
    def directory(self) -> Path:
        """Where everything lies."""
        return self._layout.directory

    def open(self) -> None:
        """Make or check the directory and open the index. Blocks; StoreError says what to do about it."""
        self._layout.prepare()
        self.identity_key = read_or_make(self._layout.identity_key)
        now_s = self._clock()
        self._ledger = ledger = self._new_ledger(now_s - min(self._inactive_s, PARTIAL_LIFETIME_S))
        try:
            self._doubts = self._find_doubts(ledger)
            beat(self._layout)
        except StoreError:
            ledger.close()
            self._ledger = None
            raise
        self._access = access = self._new_book(ledger)
        self._flights = flights = self._new_flights(ledger)
        self._upkeep = Upkeep(
            self._layout, ledger, access, self._doubts, flights.hash_pool, self._clock, is_keeper=self._is_keeper
        )

    def close(self) -> None:
        """Stop the ingests and keep their progress, close the index. Blocks, under a second."""
        flights, ledger, access = self._flights, self._ledger, self._access
        self._flights = self._ledger = self._access = self._upkeep = None
        if flights is None or ledger is None or access is None:
            return
        try:
            flights.close()
            try:
                access.close()
            finally:
                ledger.close()
            self._doubts.find(ledger.take_unindexed())
            self._beat_no_more()
        except StoreError as error:
            _logger.warning("the cache could not be closed cleanly, the next start verifies it: %s", error)

    @property
    def is_open(self) -> bool:
        """Whether it was opened and not yet closed; for any thread."""
        return self._ledger is not None

    # What is another thing where several workers share the directory (crew.store).

    def _new_ledger(self, oldest_s: float) -> Ledger:
        return Ledger(
            self._layout,
            cap_bytes=self._cap_bytes,
            min_free_bytes=self._min_free_bytes,
            oldest_s=oldest_s,
            clock=self._clock,
        )

    def _new_book(self, ledger: Ledger) -> AccessBook:
        return AccessBook(ledger)

    def _new_flights(self, ledger: Ledger) -> Flights:
        return Flights(self._layout, ledger, self._doubts.settle)

    def _find_doubts(self, ledger: Ledger) -> Doubts:
        return find_doubts(self._layout, ledger)

    def _beat_no_more(self) -> None:
        if not self._doubts:
            beat_no_more(self._layout)

    def _is_keeper(self) -> bool:
        return True

    def _open_upkeep(self) -> Upkeep:
        return self._upkeep or self._closed()

    def _open_ledger(self) -> Ledger:
        return self._ledger or self._closed()

    def _closed(self) -> Never:
        raise StoreError(f"the cache in {self._layout.directory} is not open")
