"""The shared tier as other rooms see it: opened after the store, running beside it, closed before it."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.policy.access import Repository
from regproxy.policy.bucket_address import BucketAddress
from regproxy.policy.seal import Seal
from regproxy.shared.access import SharedAccess
from regproxy.shared.bucket import Bucket, BucketError, ExtraMissing
from regproxy.shared.content import SharedContent
from regproxy.shared.credentials import file_credentials, secret_access_key
from regproxy.shared.errands import Errands
from regproxy.shared.link import BucketDown, Link
from regproxy.shared.probe import Probe
from regproxy.shared.sealed import SealedRecords
from regproxy.shared.tags import SharedTags
from regproxy.shared.uploads import Uploads
from regproxy.store.content import Store
from regproxy.store.crew.sharing import Claim

PURGE_LIMIT_S = 20.0
"""For one content, with the end of an upload that is under way."""

_PURGED_AT_ONCE = 8


class TierError(Exception):
    """The shared tier cannot be set up: the message names the setting and the remedy."""


class SharedTier:
    """A bucket behind an open store."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it stands between
        self,
        store: Store,
        bucket: Bucket,
        seal: Seal,
        name: str,
        access_ttl_s: float,
        claim: Callable[[str], Claim] | None = None,
    ) -> None:
        self.store, self._claim = store, claim
        probe = Probe(bucket)
        self.reading = Link(
            f"the shared store {name} gives no answer, pulls go on without it",
            f"the shared store {name} answers",
            probe.read,
        )
        self.writing = Link(
            f"the shared store {name} takes nothing, what is pulled now is shared later",
            f"the shared store {name} takes what is pulled",
            probe.write,
        )
        self._errands = Errands(lambda: self.is_up)
        records = SealedRecords(bucket, self.reading, self.writing, seal)
        self.access = SharedAccess(store, records, self._errands, access_ttl_s)
        self.tags = SharedTags(store, records, self._errands, self._before_telling)
        self.content = SharedContent(store, bucket, self.reading, records, self.access, self._errands)
        self.uploads = Uploads(store, bucket, self.reading, self.writing, records, self.access, self.content, claim)

        self.let_go_elsewhere: Callable[[Digest], Awaitable[object]] = _nobody
        """Has the other workers `let_go` of a content."""

    @classmethod
    def open(  # noqa: PLR0913, PLR0917 - what it stands between
        cls,
        store: Store,
        address: BucketAddress,
        key: str,
        access_ttl_s: float,
        ca_file: Path | None,
        claim: Callable[[str], Claim] | None = None,
    ) -> "SharedTier":
        """Set it up; the bucket is not asked for anything. Blocks for 40 ms. Raises TierError.

        With `claim` other workers of this proxy use it, too: what one of them claims it does alone.
        """
        try:
            secret = key or secret_access_key(os.environ)
            bucket = Bucket.open(address, ca_file, file_credentials(os.environ))
        except (ExtraMissing, BucketError, ValueError, OSError) as error:
            raise TierError(f"STORE_URL={address}: {error}") from error
        if not secret:
            raise TierError(
                f"STORE_URL={address}: STORE_KEY is not set, and there is no lasting AWS_SECRET_ACCESS_KEY to take its "
                "place: set STORE_KEY to the same random text at all replicas (`openssl rand -hex 32`)"
            )
        tier = cls(store, bucket, Seal.of_secret(secret, str(address)), str(address), access_ttl_s, claim)
        try:
            tier.uploads.open()
        except OSError as error:
            raise TierError(f"{store.directory}/shared cannot be used: {error.strerror}") from error
        store.access.watcher = tier.access
        return tier

    async def run(self) -> None:
        """Look after the bucket, and write to it, until cancelled."""
        await self.writing.look()  # first: some engines make a bucket when something is written
        await self.reading.look()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.reading.keep_looking())
            tasks.create_task(self.writing.keep_looking())
            tasks.create_task(self.uploads.run())
            tasks.create_task(self._errands.run())
            tasks.create_task(self.access.run(self._claim, lambda: self.is_up))

    async def purge(self, tags: Iterable[tuple[str, str, str]], contents: Iterable[Digest]) -> bool:
        """Remove on an operator's word what is said of tags, and contents; whether all of it is gone.

        What is not gone, for the bucket gives no answer, is not read by this proxy until it ends.
        """
        turns = asyncio.Semaphore(_PURGED_AT_ONCE)

        async def purge(digest: Digest) -> bool:
            async with turns:
                try:
                    async with asyncio.timeout(PURGE_LIMIT_S):
                        await asyncio.gather(self.uploads.drop(digest), self.let_go_elsewhere(digest))
                        await self.content.purge(digest)
                except (BucketDown, TimeoutError):
                    return False
                return True

        gone = await asyncio.gather(*(self.tags.forget(*tag) for tag in tags), *map(purge, contents))
        return all(gone)

    async def let_go(self, digest: Digest) -> None:
        """Do not write a content that another worker purges, nor read it; wait for the end of a write."""
        await self.uploads.drop(digest)
        self.content.distrust(digest)

    async def _before_telling(self, repository: Repository, digest: Digest) -> None:
        await self.access.tell(repository, digest)
        await self.uploads.hurry(digest)

    @property
    def is_up(self) -> bool:
        """Whether the bucket answers, and takes what is written."""
        return self.reading.is_up and self.writing.is_up

    @property
    def due(self) -> int:
        """How many writes the end of the process should wait for: none that the bucket does not take now."""
        if not self.is_up:
            return 0
        return self.uploads.due + max(self._errands.pending, self.access.untold)

    async def idle(self) -> None:
        """Wait until all records that are to be written are, or the bucket takes none."""
        await self._errands.idle()

    def close(self) -> None:
        """Begin nothing more. What was not written is written by the next run."""
        self._errands.cancel()


async def _nobody(_: Digest) -> None:
    """Stand for the other workers where there are none."""
