"""One ingest: the growing file of one blob, filled by one fetch, read by everyone who asks while it grows.

The store makes an Ingest and runs the fetch as its own task; a client that leaves stops nothing. The fetch calls
`begin`, then `write` or `write_at`, then `finish`, or `fail`. Readers call `size`, `open` and `released`.

The last HOLD_BACK_BYTES are withheld until the whole content hashed to its digest, so nobody completes a bad blob, and
every reader learns the same outcome: the size, or one and the same exception. All of it runs on the event loop; the
bytes themselves are growing.GrowingFile's.
"""

import asyncio
import contextlib
import enum
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Never

from regproxy.oci.digest import Digest
from regproxy.store.activity import Outcome
from regproxy.store.errors import DigestMismatch, IngestFailed, StoreError
from regproxy.store.growing import HOLD_BACK_BYTES, GrowingFile, Home

type Chunk = bytes | memoryview


class IngestState(enum.Enum):
    """Where an ingest stands."""

    WAITING = "waiting"
    """The upstream has not accepted the request yet."""

    FILLING = "filling"
    """Bytes arrive."""

    VERIFIED = "verified"
    """All bytes are there and hash to the digest."""

    FAILED = "failed"
    """Final; readers get the reason."""


class Ingest:
    """The content of one digest while it arrives."""

    def __init__(self, digest: Digest, home: Home) -> None:
        self.digest = digest
        self.path: Path = home.layout.partial(digest)
        self.size_bytes: int | None = None
        """Known from the upstream's answer or from a resumed file."""
        self.etag: str | None = None
        """The upstream's entity tag that belongs to the bytes that are there, for `If-Range`."""
        self.state = IngestState.WAITING
        self.error: Exception | None = None
        """Why it failed."""
        self.resumed_bytes = 0
        """What an earlier ingest had left."""
        self._growing = GrowingFile(digest, home, self._wake, self.fail)
        self._when_verified: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()
        self._finishing = False
        self._exposed = False
        self._stored = False

    @property
    def contiguous_bytes(self) -> int:
        """Bytes from offset 0 on that have arrived without a hole."""
        return self._growing.filled.prefix_bytes()

    @property
    def arrived_bytes(self) -> int:
        """Bytes that are there, with holes between them or not."""
        return self._growing.filled.total_bytes()

    @property
    def outcome(self) -> Outcome:
        """How it ended; FAILED while it has not."""
        if self.state is IngestState.VERIFIED:
            return Outcome.STORED if self._stored else Outcome.NOT_STORED
        return Outcome.WRONG_DIGEST if isinstance(self.error, DigestMismatch) else Outcome.FAILED

    @property
    def ended(self) -> bool:
        """Whether the outcome is known."""
        return self.state in {IngestState.VERIFIED, IngestState.FAILED}

    @property
    def was_promised(self) -> bool:
        """Whether a reader knows the size, and so was promised the content."""
        return self._exposed

    # For the fetch.

    def when_verified(self, told: Callable[[], None]) -> None:
        """Have `told` called once the content is right, before a reader knows and before it is content of the store."""
        self._when_verified = told

    def missing_from(self) -> int:
        """Return the first offset to ask the upstream for; not 0 when an earlier ingest left a prefix.

        When a fetch starts it is less than the size (unless that is 0), so `Range: bytes=<this>-` can be satisfied.
        """
        return self.contiguous_bytes

    def missing(self) -> tuple[tuple[int, int], ...]:
        """Return the holes (start, end) that nobody is writing, up to the known size."""
        claimed = self._growing.claimed
        return claimed.missing(0, claimed.end() if self.size_bytes is None else self.size_bytes)

    async def begin(self, size_bytes: int | None, etag: str | None) -> None:
        """Announce what the upstream promised, and claim the disk space for it.

        To be called after each answer of the upstream. StoreFull: no room; on the first call nothing was promised to a
        reader yet. A size that contradicts an earlier one starts from nothing, or fails when readers know the old one.
        """
        self._require_unfinished()
        if size_bytes is not None and self.size_bytes not in {None, size_bytes}:
            if self._exposed:
                await self._discard(
                    IngestFailed(f"{self.digest}: the upstream said {self.size_bytes} bytes, now {size_bytes}")
                )
            await self._growing.forget()
        self.size_bytes = self.size_bytes if size_bytes is None else size_bytes
        self.etag = etag
        await self._start_filling()

    async def write(self, chunks: Sequence[Chunk]) -> None:
        """Append at the prefix, for one writer; returns when the bytes are in the file, and so slows the network."""
        await self.write_at(self.contiguous_bytes, chunks)

    async def write_at(self, offset: int, chunks: Sequence[Chunk]) -> None:
        """Write at an offset in bytes, for several writers.

        Bytes that are there or on their way are passed over: an upstream that ignores `Range` is written at 0.
        """
        self._require_filling()
        if self.size_bytes is None:
            await self._or_fail(self._growing.claim_up_to(offset + sum(map(len, chunks))))
            self._require_filling()
        elif offset + sum(map(len, chunks)) > self.size_bytes:
            self._fail_here(IngestFailed(f"{self.digest}: upstream sent more than the {self.size_bytes} bytes it said"))
        await self._growing.write_at(offset, chunks)
        await self._growing.save_if_due(self.size_bytes, self.etag)

    async def finish(self) -> None:
        """Verify and commit. DigestMismatch: the file is removed. IngestFailed: bytes are missing, the file is kept.

        StoreError while the state is VERIFIED: readers get everything, but it could not be stored.
        """
        self._require_filling()
        arrived_bytes = self.contiguous_bytes
        if self._growing.claimed.total_bytes() != arrived_bytes or self.size_bytes not in {None, arrived_bytes}:
            said = "unknown" if self.size_bytes is None else self.size_bytes
            self._fail_here(IngestFailed(f"{self.digest}: upstream ended after {arrived_bytes} of {said} bytes"))
        self._finishing = True
        actual = await self._growing.digest_of_all()
        self._raise_if_failed()
        if actual != self.digest:
            await self._discard(DigestMismatch(self.digest, actual))
        self.size_bytes, self.state = arrived_bytes, IngestState.VERIFIED
        self._when_verified()
        self._wake()
        await self._growing.commit(arrived_bytes)
        self._stored = True

    def fail(self, error: Exception) -> None:
        """End it: every reader gets this very exception. What has arrived is kept for the next time."""
        if not self.ended:
            self.error, self.state = error, IngestState.FAILED
            self._wake()

    # For readers.

    async def size(self) -> int:
        """Wait until the upstream accepted and the size is known, in bytes; raises the reason of a failure.

        When the upstream announces no size, that is when everything has arrived and is verified. The same is true
        when all of it is held back until then: who was promised nothing yet can still be told in words what is wrong.
        """
        while not self.ended and (
            self.state is IngestState.WAITING or self.size_bytes is None or self.size_bytes <= HOLD_BACK_BYTES
        ):
            await self._changed.wait()
        self._raise_if_failed()
        self._exposed = True
        assert self.size_bytes is not None
        return self.size_bytes

    async def begun(self) -> None:
        """Wait until there is a place for the content, for whoever fills it; raises the reason of a failure."""
        while self.state is IngestState.WAITING:
            await self._changed.wait()
        self._raise_if_failed()

    async def released(self, position: int) -> int:
        """Wait until more than `position` bytes may be sent; returns how many may be, counted from offset 0.

        Returns the size as soon as the content is verified, whatever the position. Raises the reason of a failure,
        also when some bytes could still be sent: the reader cuts the connection.
        """
        while not self.ended and self._releasable_bytes() <= position:
            await self._changed.wait()
        self._raise_if_failed()
        self._exposed = True
        return self._releasable_bytes()

    async def verified(self) -> None:
        """Wait for the outcome; raises the reason of a failure."""
        while not self.ended:
            await self._changed.wait()
        self._raise_if_failed()

    def open(self) -> int:
        """Return a new read-only descriptor of the growing file, for the caller to close; valid after `size`.

        It outlives commit and eviction. Descriptors share one file position: read with pread or sendfile and offsets.
        """
        self._raise_if_failed()
        return os.dup(self._read_fd())

    # For the store.

    async def resume(self) -> None:
        """Take over what an earlier ingest of this digest left on disk."""
        progress = await self._growing.resume()
        if progress is not None:
            self.size_bytes, self.etag = progress.size_bytes, progress.etag
        self.resumed_bytes = self.arrived_bytes

    async def stop(self) -> None:
        """Wait until nothing runs any more, so that `put_down` may be called in any thread."""
        await self._growing.stop()

    def abandon(self, error: Exception) -> None:
        """Fail and stop without waiting: the store is closing."""
        self.fail(error)
        self._growing.cancel_verifier()

    def put_down(self) -> int:
        """Keep what arrived and close the file; returns the bytes that stay in `partial/`. Blocks."""
        return self._growing.put_down(self.size_bytes, self.etag, readable=self.state is IngestState.VERIFIED)

    def _read_fd(self) -> int:
        return self._growing.file.read_fd

    def _releasable_bytes(self) -> int:
        match self.state:
            case IngestState.VERIFIED:
                return self.size_bytes or 0
            case IngestState.FILLING if self.size_bytes is not None:
                return min(self.contiguous_bytes, max(0, self.size_bytes - HOLD_BACK_BYTES))
            case _:
                return 0

    async def _start_filling(self) -> None:
        await self._or_fail(
            self._growing.claim_up_to(self._growing.filled.end() + 1)
            if self.size_bytes is None
            else self._growing.claim_space(self.size_bytes)
        )
        self._raise_if_failed()
        self.state = IngestState.FILLING
        self._growing.start_verifier()
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _raise_if_failed(self) -> None:
        if self.error is not None:
            # One exception object for all readers: without this its traceback would grow with each of them.
            raise self.error.with_traceback(None)

    def _require_unfinished(self) -> None:
        self._raise_if_failed()
        if self._finishing:
            raise StoreError(f"{self.digest}: the ingest is finished")

    def _require_filling(self) -> None:
        self._require_unfinished()
        if self.state is not IngestState.FILLING:
            raise StoreError(f"{self.digest}: the ingest has not begun")

    def _fail_here(self, error: Exception) -> Never:
        self.fail(error)
        raise self.error or error

    async def _or_fail(self, step: Coroutine[Any, Any, None]) -> None:
        try:
            await step
        except StoreError as error:
            self._fail_here(error)

    async def _discard(self, error: Exception) -> Never:
        """Remove the file, then fail."""
        with contextlib.suppress(StoreError):  # the error that matters is the one we are here for
            await self._growing.delete()
        self._fail_here(error)
