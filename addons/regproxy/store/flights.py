"""Single flight: at most one ingest per digest, run as a task that belongs to the store and not to a client."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from regproxy.oci.digest import Digest
from regproxy.store.activity import EndedIngest
from regproxy.store.errors import IngestFailed, StoreError
from regproxy.store.growing import submit
from regproxy.store.ingest import Ingest, IngestState
from regproxy.store.layout import Layout
from regproxy.store.ledger import Ledger
from regproxy.store.leftovers import remove_leftover
from regproxy.store.partial import PartialFile

_logger = logging.getLogger(__name__)

_WRITERS = 4
"""Threads that write: enough that one slow disk operation does not hold up every download."""

REST_S = 30.0
"""For so long no download is stored after the disk failed one that clients were reading: theirs was cut, and they are
to get the next one from the registry."""

type Fetch = Callable[[Ingest], Coroutine[Any, Any, None]]
"""Fills an ingest: begin, write, finish; whatever it raises fails the ingest and reaches every reader."""


@dataclass(eq=False, slots=True)
class _Flight:
    ingest: Ingest
    began_s: float
    """On the monotonic clock."""
    task: asyncio.Task[None] | None = None


class Flights:
    """The running ingests, and the threads that write and hash for them (the Home of an ingest)."""

    def __init__(self, layout: Layout, ledger: Ledger, on_stored: Callable[[Digest], None]) -> None:
        self.layout = layout
        self.write_pool = ThreadPoolExecutor(_WRITERS, "store-write")
        self.hash_pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), "store-hash")
        self._ledger, self._on_stored = ledger, on_stored
        self._current: dict[Digest, _Flight] = {}
        self._aloft: set[_Flight] = set()
        """Strong references: the event loop keeps only weak ones to tasks."""
        self._closed = False
        self._resting_until_s = 0.0
        self._fault: StoreError | None = None
        """What the disk said last, for as long as it rests."""

    def running(self, digest: Digest) -> Ingest | None:
        """Return the ingest that fills, or just filled, this digest."""
        flight = self._current.get(digest)
        return None if flight is None or flight.ingest.state is IngestState.FAILED else flight.ingest

    def join_or_start(self, digest: Digest, fetch: Fetch) -> Ingest:
        """Return the running ingest of the digest, or start one; StoreError when closed, or soon after a fault."""
        if self._closed:
            raise StoreError("the store is closed")
        running = self.running(digest)
        if running is not None:
            return running
        if self._fault is not None and time.monotonic() < self._resting_until_s:
            raise StoreError(f"nothing is stored for {REST_S:.0f} s after a fault: {self._fault}")
        failed = self._current.get(digest)
        flight = self._current[digest] = _Flight(self._new_ingest(digest), time.monotonic())
        self._aloft.add(flight)
        flight.task = asyncio.get_running_loop().create_task(
            self._fly(flight, fetch, None if failed is None else failed.task), name=f"ingest {digest}"
        )
        return flight.ingest

    async def landed(self, ingest: Ingest) -> None:
        """Wait until an ingest is over, however it ends, and out of the way of another one."""
        flight = self._current.get(ingest.digest)
        if flight is not None and flight.ingest is ingest and flight.task is not None:
            await asyncio.wait([flight.task])

    def aloft(self) -> tuple[Ingest, ...]:
        """Return the ingests that are under way."""
        return tuple(flight.ingest for flight in self._aloft if not flight.ingest.ended)

    def filled_here(self) -> int:
        """Return how many of them this process fills."""
        return len(self.aloft())

    def followed_elsewhere(self) -> int:
        """Return how many of these other processes have waited for."""
        return 0

    async def reserve(self, digest: Digest, total_bytes: int) -> None:
        """Make room so that the partial file may take so many bytes in all; StoreFull when that cannot be."""
        await self._ledger.reserve(digest, total_bytes)

    async def commit(self, digest: Digest, partial: PartialFile) -> None:
        """Make the verified file content; StoreError when it cannot be stored."""
        await self._ledger.commit(digest, partial)
        self._on_stored(digest)

    def close(self) -> None:
        """Fail and stop all ingests, and keep their progress. Blocks for the writes that run."""
        self._closed = True
        for flight in self._aloft:
            with contextlib.suppress(RuntimeError):  # the event loop may be closed already
                flight.ingest.abandon(StoreError("the store is closing"))
                if flight.task is not None:
                    flight.task.cancel()
        self.write_pool.shutdown(cancel_futures=True)
        self.hash_pool.shutdown(cancel_futures=True)
        self._ledger.wait_until_idle()
        for flight in self._aloft:
            try:
                flight.ingest.put_down()
            except StoreError as error:
                _logger.warning("progress of %s is lost: %s", flight.ingest.digest, error)

    async def _fly(self, flight: _Flight, fetch: Fetch, failed: asyncio.Task[None] | None) -> None:
        ingest = flight.ingest
        try:
            if failed is not None:
                await asyncio.wait([failed])  # it still has the file
            await self._fill(flight.ingest, fetch)
            ingest.fail(IngestFailed(f"{ingest.digest}: the download ended without an outcome"))
        except asyncio.CancelledError:
            ingest.fail(IngestFailed(f"{ingest.digest}: the download was stopped"))
            raise
        except Exception as error:  # noqa: BLE001 - the fetch is not ours, and every reader must learn why it ended
            if ingest.state is IngestState.VERIFIED:
                _logger.warning("%s was served but cannot be stored: %s", ingest.digest, error)
            elif ingest.was_promised and isinstance(error, StoreError) and not isinstance(error, IngestFailed):
                self._rest(error)
            ingest.fail(error)
        finally:
            self._note(ingest, flight.began_s)
            await self._land(flight)

    def _rest(self, fault: StoreError) -> None:
        self._fault, self._resting_until_s = fault, time.monotonic() + REST_S
        _logger.error("the disk failed a download that was being read, nothing is stored for %.0f s: %s", REST_S, fault)

    def _note(self, ingest: Ingest, began_s: float) -> None:
        written_bytes = max(0, ingest.arrived_bytes - ingest.resumed_bytes)
        duration_s = time.monotonic() - began_s
        ended = EndedIngest(ingest.digest, ingest.outcome, written_bytes, duration_s, ingest.resumed_bytes > 0)
        self._ledger.activity.ended.append(ended)

    def _new_ingest(self, digest: Digest) -> Ingest:
        return Ingest(digest, self)

    async def _fill(self, ingest: Ingest, fetch: Fetch) -> None:
        if await self._ledger.claim(ingest.digest):
            await ingest.resume()
        await fetch(ingest)

    async def _put_down(self, ingest: Ingest) -> None:
        await ingest.stop()
        try:
            kept_bytes = await submit(self.write_pool, ingest.put_down)
        except StoreError as error:
            _logger.warning("progress of %s is lost: %s", ingest.digest, error)
            kept_bytes = await submit(self.write_pool, _discard, self.layout, ingest.digest)
        await self._ledger.settle(ingest.digest, kept_bytes)

    async def _land(self, flight: _Flight) -> None:
        digest = flight.ingest.digest
        if self._closed:
            return
        try:
            await self._put_down(flight.ingest)
        except StoreError as error:
            _logger.warning("%s is not accounted for: %s", digest, error)
        finally:
            self._aloft.discard(flight)
            if self._current.get(digest) is flight:
                del self._current[digest]


def _discard(layout: Layout, digest: Digest) -> int:
    """Remove what cannot be resumed; returns the bytes it takes if it stays, on a disk that takes no change."""
    with contextlib.suppress(OSError):
        remove_leftover(layout, digest)
    with contextlib.suppress(OSError):
        return layout.partial(digest).stat().st_size
    return 0
