"""What an operator purges goes from the bucket although another worker has it to write, or is writing it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from regproxy.shared.paths import about_path, content_path
from regproxy.shared.tier import SharedTier
from regproxy.stack.crew_states import CrewStates
from unit.shared.test_uploads_of_workers import BODY, DIGEST, CountingBucket, stop, tier_of, until
from unit.store.crew.crew_of_stores import crew_of_stores


@dataclass
class Two:
    """Two workers with one bucket."""

    bucket: CountingBucket
    desk: SharedTier
    other: SharedTier

    async def in_bucket(self) -> list[bool]:
        """Return whether the content is there, and what is said of it."""
        return [await self.bucket.size_of(path(DIGEST)) is not None for path in (content_path, about_path)]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    bucket = CountingBucket()
    with crew_of_stores(tmp_path, 2) as members:
        tiers = []
        for member in members:
            core: Any = SimpleNamespace(shared=tier_of(member, bucket))
            CrewStates(core, member.crew)._connect_shared()
            tiers.append(core.shared)
        yield Two(bucket, *tiers)


@pytest.fixture
async def writing(two: Two) -> AsyncIterator[Two]:
    """Yield two workers of which the other one has begun to write the content."""
    await two.desk.store.put_content(DIGEST, BODY, "a/b")
    running = asyncio.ensure_future(two.other.uploads.run())
    two.other.uploads.add(DIGEST, "a/b")
    await until(lambda: two.bucket.uploads == 1)
    yield two
    await stop([running])


async def test_what_waits_at_another_worker_is_dropped(two: Two) -> None:
    """Nobody writes it any more, and the next start does not either."""
    two.other.uploads.add(DIGEST, "a/b")
    assert (two.desk.uploads.pending, two.desk.uploads.pending_of_all) == (0, 1)
    assert await two.desk.purge([], [DIGEST])
    assert (two.other.uploads.pending, two.desk.uploads.pending_of_all) == (0, 0)


async def test_what_another_worker_is_writing_goes_too(writing: Two) -> None:
    """The purge waits for the end of it; then nobody reads it until it is written anew."""
    purging = asyncio.ensure_future(writing.desk.purge([], [DIGEST]))
    await asyncio.sleep(0.2)
    assert not purging.done()
    writing.bucket.may_come.set()
    assert await purging
    assert await writing.in_bucket() == [False, False]

    writing.other.uploads.add(DIGEST, "a/b")
    await until(lambda: writing.bucket.uploads == 2)
    await until(lambda: not writing.other.uploads.pending)
    assert await writing.in_bucket() == [True, True]
    for tier in (writing.desk, writing.other):
        assert await tier.content.about(DIGEST) is not None


async def test_what_a_bucket_that_is_down_keeps_is_read_by_no_worker(writing: Two) -> None:
    """A purge that cannot reach it holds for all."""
    writing.bucket.may_come.set()
    await until(lambda: not writing.other.uploads.pending)
    writing.desk.writing.failed("a test")
    assert not await writing.desk.purge([], [DIGEST])
    for tier in (writing.desk, writing.other):
        assert await tier.content.about(DIGEST) is None
