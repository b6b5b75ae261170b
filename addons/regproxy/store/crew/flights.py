"""Single flight among workers: one of them fetches a digest, and the others follow it; if it dies, one takes its place.

Each worker has an ingest of its own for its readers, and the flight of it first claims the digest. The one that is
granted the claim fetches; the others hear how far it has come, and read the file.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from regproxy.oci.digest import Digest
from regproxy.store.crew.access import CrewAccessBook
from regproxy.store.crew.ingest import CrewIngest
from regproxy.store.crew.sharing import Claim, Sharing, claim_name
from regproxy.store.crew.stamps import RESTING_UNTIL
from regproxy.store.errors import IngestFailed, StoreError
from regproxy.store.flights import REST_S, Fetch, Flights
from regproxy.store.growing import submit
from regproxy.store.ingest import Ingest, IngestState
from regproxy.store.layout import Layout
from regproxy.store.ledger import Ledger
from regproxy.store.leftovers import remove_leftover
from regproxy.store.partial import PartialFile

_logger = logging.getLogger(__name__)

TOLD_INTERVAL_S = 0.02
"""How late other workers may hear of growth: a few hundred kilobytes on a fast line."""

ATTEMPTS = 5
"""How often a flight claims its digest again, when the one before ended without a result that is everybody's."""


class CrewFlights(Flights):
    """The flights of one worker."""

    def __init__(  # noqa: PLR0913, PLR0917 - as Flights, and what is shared
        self,
        layout: Layout,
        ledger: Ledger,
        on_stored: Callable[[Digest], None],
        sharing: Sharing,
        book: CrewAccessBook,
        is_stored: Callable[[Digest], bool],
    ) -> None:
        super().__init__(layout, ledger, on_stored)
        self._sharing, self._book, self._is_stored = sharing, book, is_stored
        self._leads: dict[Ingest, _Lead] = {}

    def join_or_start(self, digest: Digest, fetch: Fetch) -> Ingest:
        """As `Flights.join_or_start`; the disk's fault at another worker is one here."""
        resting_ms = self._sharing.stamps.word(RESTING_UNTIL) - time.monotonic_ns() // 1_000_000
        if resting_ms > 0 and self.running(digest) is None:
            raise StoreError(
                f"nothing is stored for {resting_ms / 1000:.0f} s more, for the disk has failed a download"
            )
        return super().join_or_start(digest, fetch)

    def filled_here(self) -> int:
        """Return how many downloads this worker holds."""
        return sum(not ingest.ended for ingest in self._leads)

    def followed_elsewhere(self) -> int:
        """Return how many of these other workers follow, or have followed."""
        return sum(lead.is_followed and not ingest.ended for ingest, lead in self._leads.items())

    async def commit(self, digest: Digest, partial: PartialFile) -> None:
        """Make the verified file content, when other workers can know whose it is."""
        await self._book.flush()
        await super().commit(digest, partial)

    def _new_ingest(self, digest: Digest) -> Ingest:
        # What is stored is fetched all the same, when only that shows whether a client may have it.
        return CrewIngest(digest, self, self._tell, is_stored=self._is_stored(digest))

    async def _fill(self, ingest: Ingest, fetch: Fetch) -> None:
        assert isinstance(ingest, CrewIngest)
        for _ in range(ATTEMPTS):
            claim = self._sharing.claim(claim_name(ingest.digest))
            try:
                if await self._followed_to_the_end(ingest, claim):
                    return
                if claim.is_granted:
                    self._leads[ingest] = _Lead(claim, self._book, ingest)
                    await self._lead(ingest, claim, fetch)
                    return
            finally:
                self._book.hear_arrivals(ingest.digest, [])
                if ingest not in self._leads:
                    claim.release()
        raise IngestFailed(f"{ingest.digest}: {ATTEMPTS} downloads of other workers ended without a result")

    async def _followed_to_the_end(self, ingest: CrewIngest, claim: Claim) -> bool:
        """Follow another worker; True when that is the end, False when it is this one's turn, or the next try's."""
        while not claim.is_granted and not claim.is_over:
            await claim.next_word()
            if claim.said is not None and not claim.is_granted:
                self._follow(ingest, claim.said)
        if claim.is_granted:
            return ingest.ended  # verified, or failed with its readers: what is left is for the next time
        if ingest.ended:
            return True
        error = self._error_told(claim.said)
        if error is not None:
            raise error
        return False

    def _follow(self, ingest: CrewIngest, said: dict[str, Any]) -> None:
        told = said.get("told")
        if told is None:
            return
        self._book.hear_arrivals(ingest.digest, said["arrivals"])
        try:
            ingest.follow(told)
        except StoreError as error:
            if ingest.state is not IngestState.WAITING:
                raise
            _logger.debug("%s: %s", ingest.digest, error)  # it has ended meanwhile: the next word tells how

    def _error_told(self, said: Any) -> Exception | None:
        told = said.get("error") if isinstance(said, dict) else None
        return None if told is None else self._sharing.words.heard(told)

    async def _lead(self, ingest: CrewIngest, claim: Claim, fetch: Fetch) -> None:
        if not ingest.was_stored and self._is_stored(ingest.digest):
            await self._ledger.adopt_found(ingest.digest, time.time())
            ingest.found()
            await submit(self.write_pool, remove_leftover, self.layout, ingest.digest)
            return
        said = claim.said
        if await self._ledger.claim(ingest.digest) or ingest.is_following:
            await ingest.take_over(None if said is None else said.get("told"))
        await fetch(ingest)

    def _rest(self, fault: StoreError) -> None:
        stamps, now_ms = self._sharing.stamps, time.monotonic_ns() // 1_000_000
        if stamps.word(RESTING_UNTIL) <= now_ms:  # else it has been said
            super()._rest(fault)
        stamps.set_word(RESTING_UNTIL, now_ms + int(REST_S * 1000))

    def _note(self, ingest: Ingest, began_s: float) -> None:
        if ingest in self._leads:
            super()._note(ingest, began_s)

    async def _put_down(self, ingest: Ingest) -> None:
        lead = self._leads.pop(ingest, None)
        if lead is None:
            return  # the file is another worker's
        try:
            await super()._put_down(ingest)
        finally:
            if not self._closed:  # else it passes on when this process has ended, as if it had died
                lead.end(self._sharing)

    def _tell(self, ingest: CrewIngest) -> None:
        lead = self._leads.get(ingest)
        if lead is not None:
            lead.changed()


class _Lead:
    """What is told of an ingest that this worker fills: nothing as long as nobody follows, then not too often."""

    def __init__(self, claim: Claim, book: CrewAccessBook, ingest: CrewIngest) -> None:
        self._claim, self._book, self._ingest = claim, book, ingest
        self._timer: asyncio.TimerHandle | None = None
        self._state = ingest.state
        claim.on_followed = self._tell

    @property
    def is_followed(self) -> bool:
        return self._claim.is_followed

    def changed(self) -> None:
        """Tell of a change: of state at once, of growth soon."""
        if not self._claim.is_followed:
            return
        if self._ingest.state is not self._state:
            self._state = self._ingest.state
            self._tell()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TOLD_INTERVAL_S, self._tell)

    def end(self, sharing: Sharing) -> None:
        """Let go, and say how it ended."""
        self._stop_timer()
        ingest = self._ingest
        if ingest.state is IngestState.VERIFIED:
            self._claim.release(self._said())
        else:
            error = ingest.error or IngestFailed(f"{ingest.digest}: the download ended without an outcome")
            self._claim.release({"error": sharing.words.told(error)})

    def _tell(self) -> None:
        self._stop_timer()
        said = self._said()
        if said is not None:
            self._claim.say(said)

    def _said(self) -> dict[str, Any] | None:
        told = self._ingest.told()
        return None if told is None else {"told": told, "arrivals": self._book.arrivals(self._ingest.digest)}

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
