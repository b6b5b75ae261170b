"""Hashes stored content again in the background, because disks forget and people err.

A stored blob is served as it lies on the disk: hashing it before each read would cost what the cache saves. So it is
hashed afterwards, at a bounded rate: soon after it was read, if that was not done lately, and all of it once a month.
What is not what its name says is removed, said, and fetched anew by the next pull; a client that got it finds out by
the digest and tries again. Manifests are hashed whenever they are read from the disk (content.Store.manifest).
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from regproxy.oci.digest import Digest
from regproxy.store.errors import StoreError
from regproxy.store.growing import submit
from regproxy.store.hashing import Unreadable, hash_some
from regproxy.store.layout import Layout
from regproxy.store.ledger import Ledger

_logger = logging.getLogger(__name__)

BYTES_PER_S = 16 * 1024 * 1024
"""A tenth of a hard disk's rate and of a slow core's SHA-256: a terabyte takes 18 hours."""

READ_AGAIN_S = 3600.0
"""What was read is hashed again if it was not for an hour: a client that retries a broken blob is helped."""

ALL_AGAIN_S = 30 * 24 * 3600.0
"""Content that nobody reads is hashed once a month."""

LOOK_EVERY_S = 30.0
"""How often it is looked for content that is due."""

_STEP_BYTES = 1024 * 1024
_AT_A_TIME = 32


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of the disk's and the processor's time may go into it."""

    bytes_per_s: float = BYTES_PER_S
    read_again_s: float = READ_AGAIN_S
    all_again_s: float = ALL_AGAIN_S
    look_every_s: float = LOOK_EVERY_S


class Scrub:
    """Verifies one open store's content. Nothing is verified twice at a time."""

    def __init__(
        self,
        layout: Layout,
        ledger: Ledger,
        hash_pool: Executor,
        clock: Callable[[], float],
        pace: Pace,
    ) -> None:
        self._layout, self._ledger, self._hash_pool = layout, ledger, hash_pool
        self._clock, self._pace = clock, pace

    async def run(self, is_open: Callable[[], bool], is_keeper: Callable[[], bool] = lambda: True) -> None:
        """Verify what is due until the store is closed, if this is to do it; an error is said once, not every round."""
        said = ""
        while is_open():
            try:
                while is_keeper() and await self.round():
                    pass
                said = ""
            except StoreError as error:
                if is_open() and str(error) != said:
                    _logger.error("verifying the cache: %s", error)  # noqa: TRY400 - the message is complete
                    said = str(error)
            await asyncio.sleep(self._pace.look_every_s)

    async def round(self) -> int:
        """Verify some of what is due; returns how many contents that were. Raises StoreError."""
        now_s = self._clock()
        due = await self._ledger.due_for_hashing(
            now_s - self._pace.read_again_s, now_s - self._pace.all_again_s, _AT_A_TIME
        )
        for digest in due:
            await self._verify(digest)
        return len(due)

    async def _verify(self, digest: Digest) -> None:
        file = await submit(self._hash_pool, self._layout.content_file, digest)
        if file is None:
            await self._ledger.drop(digest, None)
            return
        try:
            reason = None if await self._hash(digest) == digest.hex else "it hashes to something else"
        except Unreadable as error:
            reason = str(error)
        if reason is None:
            await self._ledger.note_hashed(digest)
            return
        if await self._ledger.drop(digest, file):
            _logger.error("stored content %s is broken (%s): removed, the next pull fetches it anew", digest, reason)

    async def _hash(self, digest: Digest) -> str:
        loop = asyncio.get_running_loop()
        running, hashed_bytes = digest.new_hash(), 0
        while True:
            began_s = loop.time()
            step_bytes = await submit(
                self._hash_pool, hash_some, self._layout.content(digest), running, hashed_bytes, _STEP_BYTES, 1
            )
            if not step_bytes:
                return running.hexdigest()
            hashed_bytes += step_bytes
            await asyncio.sleep(step_bytes / self._pace.bytes_per_s - (loop.time() - began_s))
