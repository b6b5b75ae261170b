"""Who wants to know the same at the same time waits for the same answer of the bucket."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Given, Known, Repository
from regproxy.policy.identities import NOBODY
from regproxy.policy.openers import OpenedBy
from regproxy.shared.tier import SharedTier
from unit.shared.conftest import Replica
from unit.shared.shaky_bucket import ShakyBucket
from unit.shared.test_uploads_of_workers import until

QUAY = Registry("quay.io", 443)
APP = Repository(QUAY, "team/app")
DIGEST = Digest.of(b"content")
CHALLENGE = 'Bearer realm="https://quay.io/auth"'


@pytest.fixture
async def knowing(replica: Replica, clock: SimpleNamespace) -> SharedTier:
    """Return a replica whose registry let everybody in, which the bucket knows."""
    tier = replica()
    book = tier.store.access
    await book.known(APP, NOBODY, DIGEST)
    book.answered(APP, OpenedBy.NOBODY, NOBODY, let_in=True, now_s=clock.now_s)
    book.bind(APP, DIGEST, Given.TO_NOBODY)
    book.challenged(QUAY, CHALLENGE)
    await tier.idle()
    return tier


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return what lets the bucket answer: it does until that is cleared."""
    gate, get = asyncio.Event(), ShakyBucket.get
    gate.set()

    async def held(self: ShakyBucket, path: str) -> Any:
        await gate.wait()
        return await get(self, path)

    monkeypatch.setattr(ShakyBucket, "get", held)
    return gate


async def known(tier: SharedTier) -> Known:
    found = await tier.store.access.known(APP, NOBODY, DIGEST)
    if await tier.access.learn(APP, DIGEST):
        found = tier.store.access.recall(APP, NOBODY, DIGEST)
    return found


async def begun(bucket: ShakyBucket) -> None:
    await until(lambda: "get" in bucket.asked)


@pytest.fixture
def held_up(knowing: SharedTier, replica: Replica, bucket: ShakyBucket, gate: asyncio.Event) -> SharedTier:
    """Return another replica, whose questions to the bucket wait for the gate."""
    assert knowing.due == 0
    gate.clear()
    bucket.asked.clear()
    return replica()


async def test_who_comes_while_the_bucket_is_asked_waits_for_it(
    held_up: SharedTier, bucket: ShakyBucket, clock: SimpleNamespace, gate: asyncio.Event
) -> None:
    """All know then what it said, and it was asked once."""
    first = asyncio.ensure_future(known(held_up))
    await begun(bucket)
    others = [asyncio.ensure_future(known(held_up)) for _ in range(3)]
    await asyncio.sleep(0.05)
    gate.set()

    answers = [await first, *await asyncio.gather(*others)]
    assert [each.openness.public_at_s for each in answers] == [clock.now_s] * 4
    assert [each.given for each in answers] == [Given.TO_NOBODY] * 4
    assert bucket.asked == ["get", "get"]


async def test_who_gives_up_takes_nothing_from_the_others(
    held_up: SharedTier, bucket: ShakyBucket, gate: asyncio.Event
) -> None:
    """A client that has asked first, and goes."""
    first = asyncio.ensure_future(known(held_up))
    await begun(bucket)
    other = asyncio.ensure_future(known(held_up))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()

    assert (await other).given == Given.TO_NOBODY


@pytest.mark.usefixtures("knowing")
async def test_what_gave_no_answer_is_asked_again_at_once(replica: Replica, bucket: ShakyBucket) -> None:
    """As soon as the bucket answers; not some seconds later."""
    tier = replica()
    bucket.fails = True
    assert not (await known(tier)).given
    bucket.fails = False
    await tier.reading.look()

    assert (await known(tier)).given == Given.TO_NOBODY


async def test_a_challenge_is_asked_for_together_too(
    held_up: SharedTier, bucket: ShakyBucket, gate: asyncio.Event
) -> None:
    """A client that comes second is not told that there is none."""
    answers = [asyncio.ensure_future(held_up.access.challenge(QUAY)) for _ in range(3)]
    await begun(bucket)
    gate.set()

    assert await asyncio.gather(*answers) == [CHALLENGE] * 3
    assert bucket.asked == ["get"]
