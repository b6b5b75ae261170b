"""The file of an ingest as the event loop sees it: claim space, write at offsets, hash what has arrived, put it down.

Two rules. A byte is written once: bytes that are there or on their way are never overwritten, so what was hashed is
what stays. And the hash follows the prefix that has arrived, read back from the page cache in the store's own threads
while the network goes on; so it covers a resumed prefix with no code of its own.

All state is touched on the event loop only; the blocking work is partial.PartialFile's. Who may read what, and what an
error means, is decided by ingest.Ingest.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Protocol

from regproxy.oci.digest import Digest
from regproxy.store.errors import StoreError, StoreFull
from regproxy.store.intervals import Intervals
from regproxy.store.layout import Layout
from regproxy.store.leftovers import remove_leftover
from regproxy.store.partial import PartialFile, Progress

HOLD_BACK_BYTES = 16 * 1024
"""Withheld from readers until verified; small against any layer, and the whole of a small blob."""

SIDECAR_EVERY_BYTES = 16 * 1024 * 1024
"""How much progress a killed process may lose."""

SMALLEST_STEP_BYTES = 64 * 1024
LARGEST_STEP_BYTES = 64 * 1024 * 1024
"""While the size is unknown the reservation doubles, in steps of at least and at most so many bytes."""

_HASH_STEP_BYTES = 4 * 1024 * 1024
"""Hashed per visit to a thread: tens of milliseconds, so that ingests share few threads fairly."""


class Home(Protocol):
    """What an ingest needs of its store."""

    @property
    def layout(self) -> Layout:
        """Where files lie."""

    @property
    def write_pool(self) -> Executor:
        """The threads that write."""

    @property
    def hash_pool(self) -> Executor:
        """The threads that hash."""

    def reserve(self, digest: Digest, total_bytes: int) -> Awaitable[None]:
        """Make room so that the partial file may take so many bytes in all; StoreFull when that cannot be."""

    def commit(self, digest: Digest, partial: PartialFile) -> Awaitable[None]:
        """Make the verified file content; StoreError when it cannot be stored."""


class GrowingFile:
    """The bytes of one digest. Methods raise StoreError; an error outside of a call goes to `on_error`."""

    def __init__(
        self, digest: Digest, home: Home, on_growth: Callable[[], None], on_error: Callable[[Exception], None]
    ) -> None:
        self.filled = Intervals()
        self.claimed = Intervals()
        self._digest, self._home = digest, home
        self._on_growth, self._on_error = on_growth, on_error
        self._file: PartialFile | None = None
        self._in_flight: set[asyncio.Future[None]] = set()
        self._running = digest.new_hash()
        self._verifier: asyncio.Task[None] | None = None
        self._grown = asyncio.Event()
        self._claiming = asyncio.Lock()
        self._claimed_space_bytes = self._saved_bytes = 0
        self._complete = self._saving = False

    @property
    def file(self) -> PartialFile:
        """The open file; StoreError before there is one."""
        if self._file is None:
            raise StoreError(f"{self._digest}: nothing has arrived yet, wait for size() first")
        return self._file

    async def resume(self) -> Progress | None:
        """Take over what an earlier ingest left on disk, if it can be believed."""
        reopened = await self._in_writer(PartialFile.reopen, self._home.layout, self._digest)
        if reopened is None:
            await self._in_writer(_remove_quietly, self._home.layout, self._digest)
            return None
        self._file, progress = reopened
        self.filled = progress.intervals
        if progress.size_bytes in {None, self.filled.prefix_bytes()}:
            # It may be all there. Leave something to ask for: an empty range is refused, and the upstream has its say.
            self.filled = Intervals().add(0, max(0, self.filled.prefix_bytes() - HOLD_BACK_BYTES))
        self.claimed = self.filled
        self._saved_bytes = self.filled.total_bytes()
        return progress

    async def claim_space(self, total_bytes: int) -> None:
        """Reserve under the cap and allocate on disk; StoreFull."""
        async with self._claiming:
            if self._file is not None and total_bytes <= self._claimed_space_bytes:
                return
            await self._home.reserve(self._digest, total_bytes)
            if self._file is None:
                self._file = await self._in_writer(PartialFile, self._home.layout, self._digest, create=True)
            await self._in_writer(self._file.allocate, total_bytes)
            self._claimed_space_bytes = total_bytes

    async def claim_up_to(self, end: int) -> None:
        """Claim space in steps for content whose size is not known; StoreFull."""
        if end <= self._claimed_space_bytes:
            return
        try:
            await self.claim_space(end + min(max(end, SMALLEST_STEP_BYTES), LARGEST_STEP_BYTES))
        except StoreFull:
            await self.claim_space(end)

    async def write_at(self, offset: int, chunks: Sequence[bytes | memoryview]) -> None:
        """Write what is neither there nor on its way; returns when it is in the file."""
        end = offset + sum(map(len, chunks))
        holes = self.claimed.missing(offset, end)
        self.claimed = self.claimed.add(offset, end)
        writes = [
            self._start_write(
                start, stop, chunks if (start, stop) == (offset, end) else _cut(chunks, start - offset, stop - offset)
            )
            for start, stop in holes
        ]
        for write in writes:
            # A writer that is cancelled leaves a thread that writes on: the bytes count all the same.
            await asyncio.shield(write)

    async def save_if_due(self, size_bytes: int | None, etag: str | None) -> None:
        """Rewrite the sidecar every so many bytes."""
        total_bytes = self.filled.total_bytes()
        if self._saving or total_bytes - self._saved_bytes < SIDECAR_EVERY_BYTES:
            return
        self._saving = True
        try:
            await self._in_writer(self.file.save, Progress(size_bytes, etag, self.filled))
            self._saved_bytes = total_bytes
        finally:
            self._saving = False

    def start_verifier(self) -> None:
        """Begin to hash what is there and what comes."""
        if self._verifier is None:
            self._verifier = asyncio.get_running_loop().create_task(self._verify(self.file))

    async def digest_of_all(self) -> Digest:
        """Wait until everything that has arrived is hashed, and return the digest of it."""
        self._complete = True
        self._wake()
        if self._verifier is not None:
            await self._verifier
        return Digest(self._digest.algorithm, self._running.hexdigest())

    async def forget(self) -> None:
        """Start over with an empty file."""
        await self.stop()
        self.filled = self.claimed = Intervals()
        self._claimed_space_bytes = self._saved_bytes = 0
        self._running = self._digest.new_hash()
        if self._file is not None:
            await self._in_writer(self._file.forget_progress)
            await self._in_writer(self._file.truncate, 0)

    async def commit(self, size_bytes: int) -> None:
        """Hand the verified file over to the store; once begun it is not undone by a cancellation."""

        async def commit() -> None:
            # An ingest that was killed may have allocated more than this one knows of.
            await self._in_writer(self.file.truncate, size_bytes)
            await self._home.commit(self._digest, self.file)

        committing = asyncio.ensure_future(commit())
        self._in_flight.add(committing)
        committing.add_done_callback(self._in_flight.discard)
        await asyncio.shield(committing)

    async def delete(self) -> None:
        """Remove the file; nothing of it is kept."""
        await self.stop()
        self.filled = Intervals()
        try:
            await self._in_writer(self.file.delete)
        finally:
            self.file.close()

    async def stop(self) -> None:
        """Let nothing run any more: hashing is given up, writes and a commit end."""
        verifier = self.cancel_verifier()
        if verifier is not None:
            await asyncio.wait([verifier])
        if self._in_flight:
            await asyncio.wait(self._in_flight)

    def cancel_verifier(self) -> asyncio.Task[None] | None:
        """Give up hashing, without waiting."""
        verifier, self._verifier = self._verifier, None
        if verifier is not None:
            verifier.cancel()
        return verifier

    def put_down(self, size_bytes: int | None, etag: str | None, *, readable: bool) -> int:
        """Keep for the next time what arrived, and close; returns the bytes that stay in `partial/`. Blocks.

        To be called when nothing runs any more. `readable`: readers may still open the file through this object.
        """
        # The callbacks are the ingest's: with them the file would stay open until the garbage collector finds the ring.
        self._on_growth, self._on_error = _nothing, _nothing
        if self._file is None or self._file.closed:
            return 0
        try:
            if not self.filled.spans:
                self._file.delete()
                return 0
            self._file.truncate(self.filled.end())
            self._file.save(Progress(size_bytes, etag, self.filled))
            return self.filled.end()
        finally:
            self._file.close(readable=readable)

    def _start_write(self, start: int, stop: int, chunks: Sequence[bytes | memoryview]) -> asyncio.Future[None]:
        write = submit(self._home.write_pool, self.file.write, start, chunks)
        self._in_flight.add(write)
        write.add_done_callback(lambda done: self._written(done, start, stop))
        return write

    def _written(self, write: asyncio.Future[None], start: int, stop: int) -> None:
        self._in_flight.discard(write)
        if write.cancelled():
            return
        error = write.exception()
        if error is None:
            self.filled = self.filled.add(start, stop)
            self._wake()
            self._on_growth()
        elif isinstance(error, Exception):
            self._on_error(error)

    def _wake(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    async def _verify(self, file: PartialFile) -> None:
        hashed = 0
        while not (self._complete and hashed == self.filled.prefix_bytes()):
            prefix_bytes = self.filled.prefix_bytes()
            if hashed == prefix_bytes:
                await self._grown.wait()
                continue
            end = min(prefix_bytes, hashed + _HASH_STEP_BYTES)
            hashing = submit(self._home.hash_pool, file.hash_into, self._running, hashed, end)
            self._in_flight.add(hashing)
            hashing.add_done_callback(self._in_flight.discard)
            try:
                # A thread that hashes on has the file open, and nobody else gets that before `stop` has waited for it.
                await asyncio.shield(hashing)
            except StoreError as error:
                self._on_error(error)
                return
            hashed = end

    async def _in_writer[**P, T](self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await submit(self._home.write_pool, call, *args, **kwargs)


def _nothing(*_: object) -> None:
    """Do nothing, for callbacks of an ingest that has ended."""


def _remove_quietly(layout: Layout, digest: Digest) -> None:
    with contextlib.suppress(OSError):
        remove_leftover(layout, digest)


def submit[**P, T](pool: Executor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """Run a blocking call in a pool; StoreError when the pool is shut down."""
    try:
        return asyncio.get_running_loop().run_in_executor(pool, lambda: call(*args, **kwargs))
    except RuntimeError as error:
        raise StoreError("the store is closed") from error


def _cut(chunks: Sequence[bytes | memoryview], start: int, stop: int) -> list[memoryview]:
    """Return the bytes start..stop-1 of the chunks, without a copy."""
    cut: list[memoryview] = []
    position = 0
    for chunk in chunks:
        view = memoryview(chunk)[max(0, start - position) : max(0, stop - position)]
        if len(view):
            cut.append(view)
        position += len(chunk)
    return cut
