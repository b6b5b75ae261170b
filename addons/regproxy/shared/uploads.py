"""Content on its way to the bucket: once, in the background, verified while it is read.

What is to be written is a file in `shared/` of the cache directory until it is there, so that a process that was killed
goes on after its start. An object appears when all of it has arrived; the description that makes others use it is
written last. So whatever is cut off in the middle is nothing, and the next one does it anew.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.shared.access import SharedAccess
from regproxy.shared.bucket import Bucket, ConditionFailed
from regproxy.shared.content import SharedContent
from regproxy.shared.link import BucketDown, Link
from regproxy.shared.paths import about_path, content_path
from regproxy.shared.records import PIECE_BYTES, About, sum_of
from regproxy.shared.sealed import RECORD_LIMIT_S, SealedRecords
from regproxy.store.content import Store
from regproxy.store.crew.sharing import Claim
from regproxy.store.errors import StoreError
from regproxy.store.stored_content import StoredContent

_logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
_AT_ONCE = 2
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 3600.0
_MOST_DOUBLINGS = 12


class _Damaged(Exception):  # noqa: N818 - the state of the file
    """The file on the local disk does not hash to its digest."""


class _InDoubt(Exception):  # noqa: N818 - the state of the file
    """After a crash it is hashed first (`store.recovery`)."""


class Uploads:
    """The queue. `run` works on it until cancelled. For the event loop."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it reads from and writes to
        self,
        store: Store,
        bucket: Bucket,
        reading: Link,
        writing: Link,
        records: SealedRecords,
        access: SharedAccess,
        content: SharedContent,
        claim: Callable[[str], Claim] | None = None,
    ) -> None:
        self._claim = claim
        self._takes_up = claim is None
        self._store, self._bucket, self._records = store, bucket, records
        self._reading, self._writing = reading, writing
        self._access, self._content = access, content
        self._directory = store.directory / "shared"
        self._waiting: OrderedDict[Digest, str] = OrderedDict()
        self._active: dict[Digest, asyncio.Event] = {}
        self._failures: Counter[Digest] = Counter()
        self._not_before_s: dict[Digest, float] = {}
        self._added = asyncio.Event()

    @property
    def pending(self) -> int:
        """How many contents are to be written."""
        return len(self._waiting) + len(self._active)

    @property
    def due(self) -> int:
        """How many of them now: not what rests after a failure."""
        now_s = time.monotonic()
        return len(self._active) + sum(self._not_before_s.get(digest, 0.0) <= now_s for digest in self._waiting)

    @property
    def pending_of_all(self) -> int:
        """How many contents all workers of this proxy are to write. Lists a directory; 0 when that cannot be read."""
        if self._claim is None:
            return self.pending
        try:
            return len(os.listdir(self._directory))  # noqa: PTH208 - the names are enough
        except OSError:
            return 0

    def open(self) -> None:
        """Take up what an earlier run did not finish; of several workers, one does. Blocks; raises OSError."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        if self._takes_up:
            self._take_up()

    def take_up_later(self) -> None:
        """Take up what a worker has left that has died, if it is this one that does."""
        if self._takes_up:
            with contextlib.suppress(OSError):
                self._take_up()
            self._added.set()

    def _take_up(self) -> None:
        for path in sorted(self._directory.iterdir()):
            try:
                digest = Digest.parse(path.name.replace("-", ":", 1))
                if digest not in self._active:
                    self._waiting.setdefault(digest, path.read_text())
            except FileNotFoundError:
                continue  # another worker has just written it
            except ValueError:
                path.unlink(missing_ok=True)

    def add(self, digest: Digest, media_type: str) -> None:
        """Write a content that was stored; empty is the media type of a blob."""
        if len(self._waiting) >= MOST_WAITING:
            dropped, _ = self._waiting.popitem(last=False)
            self._forget(dropped)
        self._waiting[digest] = media_type
        with contextlib.suppress(OSError):  # without it, it is lost with the process, and the next one writes it
            self._marker(digest).write_text(media_type)
        self._added.set()

    async def run(self) -> None:
        """Write what waits, two at a time."""
        async with asyncio.TaskGroup() as workers:
            workers.create_task(self._wait_to_take_up())
            for _ in range(_AT_ONCE):
                workers.create_task(self._work())

    async def _wait_to_take_up(self) -> None:
        """Be the one that takes up what others leave, when nobody else is."""
        if self._claim is None:
            return
        claim = self._claim("uploads that are left")
        while not claim.is_granted:
            await claim.next_word()
        self._takes_up = True
        self.take_up_later()

    @contextlib.asynccontextmanager
    async def _alone(self, digest: Digest) -> AsyncIterator[None]:
        """Wait until no other worker of this proxy writes a content."""
        if self._claim is None:
            yield
            return
        claim = self._claim(f"upload {digest}")
        try:
            while not claim.is_granted and not claim.is_over:
                await claim.next_word()
            yield
        finally:
            claim.release()

    async def _work(self) -> None:
        while True:
            digest = self._next() if self._writing.is_up and self._reading.is_up else None
            if digest is None:
                await self._rest()
            else:
                await self._handle(digest)

    def _next(self) -> Digest | None:
        now_s = time.monotonic()
        due = (digest for digest in self._waiting if self._not_before_s.get(digest, 0.0) <= now_s)
        return next((digest for digest in due if digest not in self._active), None)

    async def hurry(self, digest: Digest) -> None:
        """Write a small content now, if it waits, or wait until somebody else has."""
        if digest in self._waiting and digest not in self._active:
            await self._handle(digest)
        ended = self._active.get(digest)
        if ended is not None:
            await ended.wait()

    async def drop(self, digest: Digest) -> None:
        """Do not write a content that is to go; wait for the end when it is being written."""
        while digest in self._waiting or digest in self._active:  # what fails waits again
            if self._waiting.pop(digest, None) is not None:
                self._forget(digest)
            ended = self._active.get(digest)
            if ended is not None:
                await ended.wait()

    async def _handle(self, digest: Digest) -> None:
        media_type = self._waiting.pop(digest)
        ended = self._active[digest] = asyncio.Event()
        try:
            async with self._alone(digest):
                await self._write(digest, media_type)
        except (BucketDown, ConditionFailed, _InDoubt):
            self._try_later(digest, media_type)
        except (_Damaged, StoreError, OSError) as error:
            if not self._store.is_open:
                return  # the next run goes on with it
            _logger.warning("%s is not written to the shared store: %s", digest, error)
            self._forget(digest)
        else:
            if digest not in self._waiting:
                self._forget(digest)
        finally:
            del self._active[digest]
            ended.set()

    def _try_later(self, digest: Digest, media_type: str) -> None:
        """Put it at the end, and leave it alone for a while that doubles: it may be too large for the engine."""
        self._content.counts.not_written += 1
        self._waiting.setdefault(digest, media_type)
        self._failures[digest] += 1
        pause_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** min(self._failures[digest], _MOST_DOUBLINGS))
        self._not_before_s[digest] = time.monotonic() + pause_s

    async def _rest(self) -> None:
        if self._waiting:
            await asyncio.sleep(_PAUSE_S)
            return
        self._added.clear()
        await self._added.wait()

    async def _write(self, digest: Digest, media_type: str) -> None:
        """Write one content and its description. Raises BucketDown, _Damaged, _InDoubt, StoreError, OSError."""
        if await self._is_there(digest, media_type):
            await self._access.write_holders(digest)
            return
        stored = self._store.open_content(digest)
        if stored is None:
            if await self._store.media_type(digest) is not None:
                raise _InDoubt
            return  # evicted meanwhile
        with stored:
            sums: list[bytes] = []
            await self._writing.ask(
                lambda: self._bucket.upload(content_path(digest), _verified(stored, digest, sums)), None
            )
            about = About(stored.size_bytes, media_type, b"".join(sums))
        await self._access.write_holders(digest)
        await self._records.write(about_path(digest), about.to_json())
        self._content.written(digest)
        self._content.counts.written += 1
        self._content.counts.written_bytes += stored.size_bytes

    async def _is_there(self, digest: Digest, media_type: str) -> bool:
        """Whether somebody has written it already."""
        described_bytes = await self._content.described_bytes(digest, media_type)
        if described_bytes is None:
            return False
        size_bytes = await self._reading.ask(lambda: self._bucket.size_of(content_path(digest)), RECORD_LIMIT_S)
        return size_bytes == described_bytes

    def _marker(self, digest: Digest) -> Path:
        return self._directory / f"{digest.algorithm}-{digest.hex}"

    def _forget(self, digest: Digest) -> None:
        del self._failures[digest]
        self._not_before_s.pop(digest, None)
        with contextlib.suppress(OSError):
            self._marker(digest).unlink(missing_ok=True)


async def _verified(stored: StoredContent, digest: Digest, sums: list[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces of a content and add their sums. Raises _Damaged before the end of what is not right."""
    running = digest.new_hash()

    def read(offset: int) -> bytes:
        piece = os.pread(stored.fileno(), PIECE_BYTES, offset)
        running.update(piece)
        sums.append(sum_of(piece))
        return piece

    last = b""
    for offset in range(0, stored.size_bytes, PIECE_BYTES):
        piece = await asyncio.to_thread(read, offset)
        if last:
            yield last
        last = piece
    if running.hexdigest() != digest.hex:
        raise _Damaged(f"the file of {digest} is not what its name says")
    yield last
