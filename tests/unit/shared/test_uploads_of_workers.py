"""Several workers of one proxy write to one bucket: each content once, and what a dead worker has left."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from obstore.store import MemoryStore

from regproxy.oci.digest import Digest
from regproxy.policy.seal import Seal
from regproxy.shared.bucket import Bucket
from regproxy.shared.tier import SharedTier
from unit.store.crew.crew_of_stores import Member, crew_of_stores

LIMIT_S = 20.0
BODY = bytes(300_000)
DIGEST = Digest.of(BODY)


class CountingBucket(Bucket):
    """A bucket in memory that counts what is uploaded, and holds it up until it may come."""

    def __init__(self) -> None:
        memory = MemoryStore()
        super().__init__(memory, memory)
        self.uploads = 0
        self.may_come = asyncio.Event()

    async def upload(self, *arguments: object, **named: object) -> None:
        """Count an upload that has begun."""
        self.uploads += 1
        await self.may_come.wait()
        await super().upload(*arguments, **named)  # type: ignore[arg-type]


def tier_of(member: Member, bucket: Bucket) -> SharedTier:
    tier = SharedTier(member.store, bucket, Seal(b"k" * 32), "s3://bucket", 300.0, member.crew.claim)
    tier.uploads.open()
    return tier


async def until(is_true: object) -> None:
    assert callable(is_true)
    deadline_s = time.monotonic() + LIMIT_S
    while not is_true():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)


async def test_a_content_is_written_once(tmp_path: Path) -> None:
    """Two workers have it to write at the same moment: one does, the other one finds it."""
    bucket = CountingBucket()
    with crew_of_stores(tmp_path, 2) as members:
        await members[0].store.put_content(DIGEST, BODY, "a/b")
        tiers = [tier_of(member, bucket) for member in members]
        running = [asyncio.ensure_future(tier.uploads.run()) for tier in tiers]
        for tier in tiers:
            tier.uploads.add(DIGEST, "a/b")
        await until(lambda: bucket.uploads)
        bucket.may_come.set()
        await until(lambda: not any(tier.uploads.pending for tier in tiers))
        assert bucket.uploads == 1
        assert list((tmp_path / "shared").iterdir()) == []
        await stop(running)


async def test_what_a_dead_worker_has_left_another_one_writes(tmp_path: Path) -> None:
    """It dies in the middle; a worker that starts before that takes nothing of it."""
    bucket = CountingBucket()
    with crew_of_stores(tmp_path, 3) as members:
        dying, living, _ = members
        await dying.store.put_content(DIGEST, BODY, "a/b")
        one = tier_of(dying, bucket)
        tasks = [asyncio.ensure_future(one.uploads.run())]
        one.uploads.add(DIGEST, "a/b")
        await until(lambda: bucket.uploads == 1)
        other = tier_of(living, bucket)
        assert other.uploads.pending == 0
        living.crew.on_gone(other.uploads.take_up_later)
        tasks.append(asyncio.ensure_future(other.uploads.run()))
        dying.die()
        await stop(tasks[:1])
        bucket.may_come.set()
        await until(lambda: other.content.counts.written == 1)
        assert list((tmp_path / "shared").iterdir()) == []
        await stop(tasks[1:])


async def stop(tasks: Sequence["asyncio.Future[None]"]) -> None:
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
