"""What shows whether the bucket answers: an object that is written, and read as a whole.

It has bytes, which an engine keeps elsewhere than its list of names, and others each time, so that no cache between
can answer for it. All replicas write to one name: that the bytes are whole can be seen, not whose they are.
"""

import asyncio
import hashlib
import secrets
from contextlib import suppress

from regproxy.shared.bucket import Bucket, BucketError
from regproxy.shared.paths import PROBE

PROBE_BYTES = 1024
_SEED_BYTES = 32

_WRITE_LIMIT_S = 0.5
"""Before it is read. A bucket that takes nothing can be read all the same."""


class Probe:
    """The probe of one bucket. Raises BucketError."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def write(self) -> None:
        """See whether the bucket takes something."""
        await self._bucket.put(PROBE, _grown(secrets.token_bytes(_SEED_BYTES)))

    async def read(self) -> None:
        """See whether the bucket gives back what it has taken; that it has nothing is an answer."""
        with suppress(BucketError, TimeoutError):
            async with asyncio.timeout(_WRITE_LIMIT_S):
                await self.write()
        stored = await self._bucket.get(PROBE)
        if stored is not None and stored.body != _grown(stored.body[:_SEED_BYTES]):
            raise BucketError("it gives back other bytes than it has taken")


def _grown(seed: bytes) -> bytes:
    return seed + hashlib.shake_256(seed).digest(PROBE_BYTES - _SEED_BYTES)
