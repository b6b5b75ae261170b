"""Tags that replicas share."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.policy.seal import Seal
from regproxy.policy.shared_records import LEASE_S, SKEW_S
from regproxy.shared.bucket import ConditionFailed
from regproxy.shared.tags import WORTH_S
from regproxy.shared.tier import SharedTier
from regproxy.store.records import TagKey, TagRecord
from unit.shared.conftest import Replica
from unit.shared.shaky_bucket import ShakyBucket
from unit.shared.test_uploads_of_workers import stop, until

KEY = TagKey("quay.io", "team/app", "1.4", ("application/vnd.oci.image.index.v1+json",))
OTHER_KIND = TagKey("quay.io", "team/app", "1.4", ("application/vnd.oci.image.manifest.v1+json",))
LIFETIME_S = 600.0


def record(text: str, at_s: float) -> TagRecord:
    return TagRecord(Descriptor("application/vnd.oci.image.index.v1+json", Digest.of(text.encode()), 5), at_s)


async def told(*tiers: SharedTier) -> None:
    for tier in tiers:
        await tier.idle()


async def test_what_one_has_checked_another_uses(replica: Replica, clock: SimpleNamespace) -> None:
    """A record that is newer than the own one is taken over, with its time, and kept."""
    first, second = replica(), replica()
    checked = record("new", clock.now_s - 5)
    first.tags.remember(KEY, checked)
    await told(first)

    assert await second.tags.newer(KEY, None) == checked
    assert await second.store.tag_record(KEY) == checked
    assert await second.tags.newer(KEY, record("mine", clock.now_s)) == record("mine", clock.now_s)
    async with second.tags.turn(KEY, None, LIFETIME_S) as turn:
        assert (turn.record, turn.is_fresh, turn.is_leased) == (checked, True, False)


async def test_of_two_that_find_a_tag_stale_one_asks(replica: Replica, clock: SimpleNamespace) -> None:
    """The other waits and gets the answer."""
    first, second = replica(), replica()
    stale = record("old", clock.now_s - 2 * LIFETIME_S)
    first.tags.remember(KEY, stale)
    await told(first)
    asked = 0

    async def revalidate(tier: SharedTier) -> TagRecord | None:
        nonlocal asked
        async with tier.tags.turn(KEY, stale, LIFETIME_S) as turn:
            if turn.is_fresh:
                return turn.record
            asked += 1
            await asyncio.sleep(0.05)
            fresh = record("new", clock.now_s)
            tier.tags.remember(KEY, fresh)
            return fresh

    assert set(await asyncio.gather(revalidate(first), revalidate(second))) == {record("new", clock.now_s)}
    assert asked == 1


async def test_a_turn_without_an_answer_goes_to_the_next(replica: Replica, clock: SimpleNamespace) -> None:
    """A registry that gave no answer leaves the old record, and nobody waits for a lease that is over."""
    first, second = replica(), replica()
    stale = record("old", clock.now_s - 2 * LIFETIME_S)
    first.tags.remember(KEY, stale)
    await told(first)
    async with first.tags.turn(KEY, stale, LIFETIME_S) as turn:
        assert turn.is_leased
    await told(first)

    async with second.tags.turn(KEY, None, LIFETIME_S) as turn:
        assert (turn.record, turn.is_fresh, turn.is_leased) == (stale, False, True)


async def test_a_replica_that_died_holds_nobody_up_for_long(replica: Replica, clock: SimpleNamespace) -> None:
    """Its lease ends; what it would write afterwards is not taken."""
    first, second = replica(), replica()
    async with first.tags.turn(KEY, None, LIFETIME_S) as dead:
        assert dead.is_leased
        clock.now_s += LEASE_S + 1
        async with second.tags.turn(KEY, None, LIFETIME_S) as turn:
            assert turn.is_leased
            second.tags.remember(KEY, record("right", clock.now_s))
        await told(second)
        first.tags.remember(KEY, record("late", clock.now_s))
    await told(first)

    assert await replica().tags.newer(KEY, None) == record("right", clock.now_s)


async def test_a_tag_that_was_pushed_here_is_not_what_the_bucket_said_before(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace
) -> None:
    """Also when the bucket could not be told: for all kinds of clients, until there is a newer answer."""
    first, second = replica(), replica()
    for key in (KEY, OTHER_KIND):
        first.tags.remember(key, record("old", clock.now_s - 1))
    await told(first)
    bucket.fails = True
    await second.tags.forget(KEY.registry, KEY.name, KEY.tag)
    bucket.fails = False
    await second.reading.look()
    assert [await second.tags.newer(key, None) for key in (KEY, OTHER_KIND)] == [None, None]
    await first.tags.forget(KEY.registry, KEY.name, KEY.tag)

    assert [name for name in bucket.names() if name.startswith("tags/")] == []
    clock.now_s += SKEW_S + 1
    first.tags.remember(KEY, record("new", clock.now_s))
    await told(first)
    assert await second.tags.newer(KEY, None) == record("new", clock.now_s)


async def test_what_was_asked_before_a_push_and_told_after_it_is_not_believed(
    replica: Replica, clock: SimpleNamespace
) -> None:
    """Where the push went through; the clock of who asked may be a little ahead."""
    pushed, asking = replica(), replica()
    await pushed.tags.forget(KEY.registry, KEY.name, KEY.tag)
    asking.tags.remember(KEY, record("old", clock.now_s + SKEW_S))
    await told(asking)

    assert await pushed.tags.newer(KEY, None) is None
    assert await pushed.tags.all_of(KEY.registry, KEY.name, KEY.tag) == []
    async with pushed.tags.turn(KEY, None, LIFETIME_S) as turn:
        assert not turn.is_fresh


async def test_what_was_learnt_while_the_bucket_took_nothing_is_told_when_it_does(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace
) -> None:
    """Or others would ask the registry for what is in the bucket already."""
    first, second = replica(), replica()
    bucket.fails = True
    async with first.tags.turn(KEY, None, LIFETIME_S):
        first.tags.remember(KEY, record("new", clock.now_s))
    await first.writing.look()
    await told(first)
    bucket.fails = False
    running = asyncio.ensure_future(first.run())
    await until(lambda: bool(bucket.names()) and first.is_up and not first.due)
    await stop([running])

    assert await second.tags.newer(KEY, None) == record("new", clock.now_s)


async def test_a_push_that_the_bucket_did_not_hear_of_is_told_when_it_does(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace
) -> None:
    """What was to be told before it is not: it is what the tag meant then."""
    first, pushed = replica(), replica()
    for key in (KEY, OTHER_KIND):
        first.tags.remember(key, record("old", clock.now_s - 1))
    await told(first)
    bucket.fails = True
    await pushed.writing.look()
    pushed.tags.remember(KEY, record("before", clock.now_s))
    assert not await pushed.tags.forget(KEY.registry, KEY.name, KEY.tag)
    bucket.fails = False
    running = asyncio.ensure_future(pushed.run())
    await until(lambda: pushed.is_up and not pushed.due)
    await stop([running])

    assert [name for name in bucket.names() if name.startswith("tags/")] == []


async def test_what_waits_for_the_bucket_is_not_told_when_another_worker_has_forgotten_the_tag(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace
) -> None:
    """Who pushed has told the bucket; nothing is there to tell it again."""
    tier = replica()
    bucket.fails = True
    await tier.writing.look()
    tier.tags.remember(KEY, record("before", clock.now_s))
    tier.tags.hear_forgotten((KEY.registry, KEY.name, KEY.tag), clock.now_s)
    bucket.fails = False
    running = asyncio.ensure_future(tier.run())
    await until(lambda: tier.is_up and not tier.due)
    await stop([running])

    assert [name for name in bucket.names() if name.startswith("tags/")] == []


async def test_a_check_that_changed_nothing_is_told_now_and_then(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace
) -> None:
    """Where every pull asks the registry not every answer is written."""
    tier = replica()
    tier.tags.remember(KEY, record("same", clock.now_s))
    await told(tier)
    bucket.asked.clear()
    tier.tags.remember(KEY, record("same", clock.now_s + 1))
    await told(tier)
    assert "put" not in bucket.asked
    tier.tags.remember(KEY, record("same", clock.now_s + WORTH_S))
    await told(tier)

    assert bucket.asked.count("put") == 1


async def test_without_the_bucket_every_turn_is_ones_own(replica: Replica, bucket: ShakyBucket) -> None:
    """It is asked once, fails, and is not asked again."""
    tier = replica()
    bucket.fails = True
    for _ in range(3):
        async with tier.tags.turn(KEY, None, LIFETIME_S) as turn:
            assert (turn.record, turn.is_fresh, turn.is_leased) == (None, False, False)

    assert bucket.asked == ["get"]


async def test_a_record_of_another_key_is_as_good_as_none_and_replaced(
    replica: Replica, clock: SimpleNamespace
) -> None:
    """A replica with another STORE_KEY is believed nothing; its records give way."""
    stranger, tier = replica(seal=Seal(b"another key")), replica()
    stranger.tags.remember(KEY, record("evil", clock.now_s))
    await told(stranger)

    assert await tier.tags.newer(KEY, None) is None
    async with tier.tags.turn(KEY, None, LIFETIME_S) as turn:
        assert turn.is_leased
        tier.tags.remember(KEY, record("good", clock.now_s))
    await told(tier)
    assert await replica().tags.newer(KEY, None) == record("good", clock.now_s)


async def test_a_lease_whose_writing_got_no_answer_is_ones_own(
    replica: Replica, bucket: ShakyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway fails after the engine has written; the repeated request finds the object changed."""
    tier, written = replica(), bucket.put

    async def put(path: str, body: bytes, **condition: Any) -> str | None:
        monkeypatch.setattr(bucket, "put", written)
        await written(path, body, **condition)
        raise ConditionFailed(path)

    monkeypatch.setattr(bucket, "put", put)
    async with asyncio.timeout(30), tier.tags.turn(KEY, None, LIFETIME_S) as turn:
        assert turn.is_leased


async def test_a_lease_is_in_use_until_its_answer_is_written(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client of the same replica does not take it from under the answer that the others wait for."""
    tier, written, may_come = replica(), bucket.put, asyncio.Event()
    async with tier.tags.turn(KEY, None, LIFETIME_S) as turn:
        assert turn.is_leased

        async def put(*about: Any, **condition: Any) -> str | None:
            await may_come.wait()
            return await written(*about, **condition)

        monkeypatch.setattr(bucket, "put", put)
        tier.tags.remember(KEY, record("new", clock.now_s))

    async def ask_again() -> TagRecord | None:
        async with tier.tags.turn(KEY, None, LIFETIME_S) as second:
            return second.record if second.is_fresh else None

    again = asyncio.ensure_future(ask_again())
    reads = bucket.asked.count("get")
    while bucket.asked.count("get") < reads + 2:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    may_come.set()
    await told(tier)

    assert await again == record("new", clock.now_s)
