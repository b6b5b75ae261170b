"""What the end of a process waits for: what the bucket would take now."""

import asyncio
from types import SimpleNamespace

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Repository
from regproxy.policy.openers import OpenedBy
from regproxy.shared import uploads
from regproxy.shared.bucket import BucketError
from unit.shared.conftest import Replica
from unit.shared.shaky_bucket import ShakyBucket
from unit.shared.test_tags import KEY, LIFETIME_S, record
from unit.shared.test_uploads_of_workers import stop, until

BODY = b"content"
DIGEST = Digest.of(BODY)
APP = Repository(Registry("quay.io", 443), "team/app")


async def test_the_end_of_a_turn_is_waited_for(replica: Replica, clock: SimpleNamespace) -> None:
    """Or others would wait for the lease of a process that is no more."""
    tier = replica()
    assert tier.due == 0
    async with tier.tags.turn(KEY, None, LIFETIME_S):
        tier.tags.remember(KEY, record("new", clock.now_s))
    assert tier.due > 0
    await until(lambda: not tier.due)
    tier.close()

    async with replica().tags.turn(KEY, None, LIFETIME_S) as turn:
        assert turn.is_fresh


async def test_nothing_is_waited_for_that_the_bucket_does_not_take(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace
) -> None:
    """It is written by the next run; a refusal that it would take is to be written by this one."""
    tier = replica()
    bucket.fails = True
    tier.access.answered(APP, OpenedBy.OPERATOR, let_in=False, at_s=clock.now_s)
    await tier.idle()
    await tier.writing.look()
    assert tier.due == 0
    bucket.fails = False
    await tier.writing.look()
    await tier.reading.look()

    assert tier.due == 1
    running = asyncio.ensure_future(tier.run())
    await until(lambda: not tier.due)
    await stop([running])


async def test_what_rests_after_a_failure_is_not_waited_for(
    replica: Replica, bucket: ShakyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A content that is too large for the engine is tried again in an hour, not now."""
    tier = replica()
    await tier.store.put_content(DIGEST, BODY, "a/b")
    is_asked = asyncio.Event()

    async def upload(*_: object, **__: object) -> None:
        is_asked.set()
        raise BucketError("it answered 413 (EntityTooLarge)")

    monkeypatch.setattr(bucket, "upload", upload)
    monkeypatch.setattr(uploads, "_PAUSE_S", 1000.0)
    tier.uploads.add(DIGEST, "a/b")
    assert tier.due == 1
    running = asyncio.ensure_future(tier.uploads.run())
    await is_asked.wait()
    await until(lambda: not tier.writing.is_up)
    await stop([running])
    await tier.writing.look()

    assert tier.due == 0
    assert tier.uploads.pending == 1
