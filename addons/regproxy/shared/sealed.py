"""Records in the bucket: sealed when they are written, believed only if the seal is ours."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from regproxy.policy.seal import Seal
from regproxy.shared.bucket import Bucket
from regproxy.shared.link import Link

_logger = logging.getLogger(__name__)

RECORD_LIMIT_S = 2.0
"""To read a record of some hundred bytes: a client waits for it, and could go on without."""

WRITE_LIMIT_S = 10.0
"""To write one: nobody waits, and an upload may be in the way."""

_LISTED = 64


@dataclass(frozen=True, slots=True)
class Found[Record]:
    """An object that is there."""

    record: Record | None
    """None for one that is not ours."""
    etag: str | None
    """What its next version replaces."""


class SealedRecords:
    """The records of one bucket. Everything raises BucketDown."""

    def __init__(self, bucket: Bucket, reading: Link, writing: Link, seal: Seal) -> None:
        self._bucket, self._reading, self._writing, self._seal = bucket, reading, writing, seal
        self._said = False

    async def read[Record](self, path: str, parse: Callable[[str], Record]) -> Found[Record] | None:
        """Return a record; None when there is no such object."""
        stored = await self._reading.ask(lambda: self._bucket.get(path), RECORD_LIMIT_S)
        if stored is None:
            return None
        try:
            return Found(parse(self._seal.open(path, stored.body)), stored.etag)
        except ValueError as error:
            if not self._said:
                self._said = True
                _logger.warning("the shared store has a record that is not believed: %s; more are not told", error)
            return Found(None, stored.etag)

    async def write(self, path: str, text: str, *, replaces: str | None = None, only_new: bool = False) -> str | None:
        """Write a record and return its entity tag. Raises ConditionFailed."""
        body = self._seal.close(path, text)
        return await self._writing.ask(
            lambda: self._bucket.put(path, body, replaces=replaces, only_new=only_new), WRITE_LIMIT_S
        )

    async def replace[Record](self, path: str, text: str, found: Found[Record] | None) -> str | None:
        """Write a record in the place of what was found there. Raises ConditionFailed when that has changed."""
        etag = None if found is None else found.etag
        return await self.write(path, text, replaces=etag, only_new=found is None)

    async def below(self, prefix: str) -> list[str]:
        """Return the names of some records below a prefix."""
        return await self._reading.ask(lambda: self._bucket.names_below(prefix, _LISTED), RECORD_LIMIT_S)

    async def remove(self, paths: list[str]) -> None:
        """Remove objects."""
        if paths:
            await self._writing.ask(lambda: self._bucket.delete(paths), WRITE_LIMIT_S)

    async def remove_below(self, prefix: str) -> None:
        """Remove all objects below a prefix. How long that may take, others writing there, is the caller's to say."""
        while found := await self.below(prefix):
            await self.remove(found)
