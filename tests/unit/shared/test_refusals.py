"""What a registry took back reaches the bucket, whatever happens, and counts for more than its older word."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import obstore
import pytest
from obstore.store import MemoryStore

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import NEVER_S, Given, Openness, Repository
from regproxy.policy.identities import NOBODY
from regproxy.policy.openers import OpenedBy
from regproxy.policy.seal import Seal
from regproxy.shared import notes
from regproxy.shared.bucket import Bucket, ConditionFailed
from regproxy.shared.lately import ASKED_S
from regproxy.shared.paths import holder_path, repository_path
from regproxy.shared.tier import SharedTier
from unit.shared.conftest import Replica
from unit.shared.shaky_bucket import ShakyBucket
from unit.shared.test_uploads_of_workers import stop, until
from unit.store.crew.crew_of_stores import Member, crew_of_stores

APP = Repository(Registry("quay.io", 443), "team/app")
DIGEST = Digest.of(b"content")


async def answered(tier: SharedTier, *, let_in: bool, at_s: float) -> None:
    """Have the registry answer the operator's login."""
    book = tier.store.access
    await book.known(APP, NOBODY, DIGEST)
    book.answered(APP, OpenedBy.OPERATOR, NOBODY, let_in=let_in, now_s=at_s)
    if let_in:
        book.bind(APP, DIGEST, Given.TO_OPERATOR)
    await book.flush()


async def open_since_s(tier: SharedTier) -> float:
    await tier.store.access.known(APP, NOBODY, DIGEST)
    await tier.access.learn(APP, DIGEST)
    return tier.store.access.recall(APP, NOBODY, DIGEST).openness.shared_at_s


async def has(tier: SharedTier) -> bool:
    await tier.store.access.known(APP, NOBODY, DIGEST)
    await tier.access.learn(APP, DIGEST)
    return bool(tier.store.access.recall(APP, NOBODY, DIGEST).given)


def end(tier: SharedTier) -> None:
    tier.close()
    tier.store.close()


@pytest.fixture
def opened_and_refused(replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace) -> Any:
    """Return what opens the repository, lets the bucket fail, and has the registry refuse; the replica's restart."""

    async def refuse(how: str) -> SharedTier:
        tier = replica("one")
        await answered(tier, let_in=True, at_s=clock.now_s - 100)
        await tier.idle()
        bucket.fails = how == "the bucket is away"
        tier.store.access.answered(APP, OpenedBy.OPERATOR, NOBODY, let_in=False, now_s=clock.now_s)
        if not bucket.fails:
            tier.close()
        await tier.idle()
        end(tier)
        bucket.fails = False
        return replica("one")

    return refuse


@pytest.mark.parametrize("how", ["the bucket is away", "the process ends"])
async def test_a_refusal_outlives_the_process(opened_and_refused: Any, replica: Replica, how: str) -> None:
    """The bucket still says that it is open: not believed, and told."""
    again = await opened_and_refused(how)
    assert await open_since_s(again) == NEVER_S
    await again.access.tell_noted()

    assert again.access.untold == 0
    assert await open_since_s(replica()) == NEVER_S


@pytest.fixture
def tells_late(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what has a replica tell its notes while the bucket's answer for a path is on its way."""

    def tell(path: str, tier: SharedTier) -> None:
        get = ShakyBucket.get

        async def late(self: ShakyBucket, asked: str) -> Any:
            answer = await get(self, asked)
            if asked == path:
                monkeypatch.setattr(ShakyBucket, "get", get)
                await tier.access.tell_noted()
                assert tier.access.untold == 0
            return answer

        monkeypatch.setattr(ShakyBucket, "get", late)

    return tell


async def test_an_older_word_that_comes_when_the_refusal_was_told_does_not_count(
    opened_and_refused: Any, tells_late: Any
) -> None:
    """The note is gone by then, and the word was right when the bucket gave it."""
    again = await opened_and_refused("the bucket is away")
    tells_late(repository_path(APP), again)

    assert await open_since_s(again) == NEVER_S
    assert again.access.untold == 0


@pytest.mark.parametrize("ask", ["for one repository", "for all"])
async def test_an_older_word_that_comes_when_the_delete_was_told_does_not_count(
    opened_and_refused: Any, replica: Replica, bucket: ShakyBucket, tells_late: Any, ask: str
) -> None:
    """As with a refusal."""
    again = await opened_and_refused("the process ends")
    bucket.fails = True
    again.store.access.unbind(APP, DIGEST)
    await again.idle()
    end(again)
    bucket.fails = False
    last = replica("one")
    tells_late(holder_path(DIGEST, APP), last)
    if ask == "for all":
        await last.access.adopt_holders(DIGEST)

    assert not await has(last)
    assert last.access.untold == 0


async def test_a_holder_that_waits_for_the_bucket_is_told_only_if_it_has_the_content_still(
    tmp_path: Path,
) -> None:
    """Another worker has passed on a delete meanwhile, and has told it."""
    bucket = ShakyBucket(MemoryStore())
    with crew_of_stores(tmp_path, 2) as members:
        waiting, deleting = [worker(member, bucket) for member in members]
        bucket.fails = True
        await waiting.writing.look()
        await answered(waiting, let_in=True, at_s=1_000.0)
        await deleting.store.access.known(APP, NOBODY, DIGEST)
        deleting.store.access.unbind(APP, DIGEST)
        await deleting.store.access.flush()
        await deleting.idle()
        bucket.fails = False
        for tier in (deleting, waiting):
            await tier.writing.look()
            await tier.reading.look()
            await tier.access.tell_noted()
            running = asyncio.ensure_future(tier._errands.run())
            await until(lambda tier=tier: not tier.due)
            await stop([running])

        assert not await has(worker(members[0], bucket))
        assert b'"given": 0' in bytes(obstore.get(bucket.memory, holder_path(DIGEST, APP)).bytes())


async def test_what_another_replica_was_told_later_counts(
    opened_and_refused: Any, replica: Replica, clock: SimpleNamespace
) -> None:
    """A refusal that the bucket has not heard undoes no answer that came after it."""
    again = await opened_and_refused("the bucket is away")
    clock.now_s += 10
    other = replica()
    await answered(other, let_in=True, at_s=clock.now_s)
    await other.idle()

    assert await open_since_s(again) == clock.now_s
    await again.access.tell_noted()
    assert again.access.untold == 0
    assert await open_since_s(replica()) == clock.now_s


async def test_what_the_bucket_refuses_to_take_is_told_again(
    replica: Replica, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others write at the same time, each time."""
    tier = replica()
    await answered(tier, let_in=True, at_s=clock.now_s - 100)
    await tier.idle()

    async def put(*_: object, **__: object) -> None:
        raise ConditionFailed("repositories")

    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "put", put)
        await answered(tier, let_in=False, at_s=clock.now_s)
        await tier.idle()
    assert tier.access.untold == 1
    await tier.access.tell_noted()

    assert await open_since_s(replica()) == NEVER_S


async def test_a_delete_outlives_the_process(replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace) -> None:
    """As a refusal does; and a content that the registry gives again is there again."""
    tier = replica("one")
    await answered(tier, let_in=True, at_s=clock.now_s)
    await tier.idle()
    bucket.fails = True
    tier.store.access.unbind(APP, DIGEST)
    await tier.idle()
    end(tier)
    bucket.fails = False
    again = replica("one")
    assert not await has(again)
    await again.access.tell_noted()
    assert again.access.untold == 0
    assert not await has(replica())

    again.store.access.unbind(APP, DIGEST)
    again.store.access.bind(APP, DIGEST, Given.TO_OPERATOR)
    assert again.access.untold == 0
    await again.idle()
    clock.now_s += ASKED_S
    assert await has(replica())


async def test_a_note_that_cannot_be_read_is_removed(replica: Replica, clock: SimpleNamespace) -> None:
    """Half a file after a power cut stops nothing."""
    tier = replica()
    await answered(tier, let_in=False, at_s=clock.now_s)
    tier.close()
    for file in (tier.store.directory / "refusals").iterdir():
        file.write_text("{")
    assert await open_since_s(tier) == NEVER_S
    await tier.access.tell_noted()

    assert tier.access.untold == 0


async def test_their_number_is_bounded(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients may ask for any number of repositories that they may not read."""
    monkeypatch.setattr(notes, "MOST", 3)
    bucket.fails = True
    tier = replica()
    for number in range(5):
        repository = Repository(APP.registry, f"team/{number}")
        tier.access.answered(repository, OpenedBy.NOBODY, let_in=False, at_s=clock.now_s)
    await tier.idle()

    assert tier.access.untold == 3


def worker(member: Member, bucket: Bucket) -> SharedTier:
    tier = SharedTier(member.store, bucket, Seal(b"k" * 32), "s3://bucket", 300.0, member.crew.claim)
    tier.uploads.open()
    member.store.access.watcher = tier.access
    return tier


async def test_a_refusal_that_a_dead_worker_has_left_is_told_by_another(tmp_path: Path) -> None:
    """Until then the living do not believe the bucket either."""
    bucket = ShakyBucket(MemoryStore())
    with crew_of_stores(tmp_path, 2) as members:
        dying, living = [worker(member, bucket) for member in members]
        await answered(dying, let_in=True, at_s=1_000.0)
        await dying.idle()
        may_tell: list[bool] = []
        tasks = [
            asyncio.ensure_future(each.access.run(each._claim, lambda: bool(may_tell))) for each in (dying, living)
        ]
        bucket.fails = True
        await answered(dying, let_in=False, at_s=2_000.0)
        await dying.idle()
        members[0].die()
        await stop(tasks[:1])
        bucket.fails = False
        assert await open_since_s(living) == NEVER_S
        assert living.access.untold == 1
        may_tell.append(True)
        await until(lambda: not living.access.untold)
        await stop(tasks[1:])
        assert b'"let_in": false' in bytes(obstore.get(bucket.memory, repository_path(APP)).bytes())


async def test_what_another_worker_was_refused_meanwhile_is_not_undone(tmp_path: Path) -> None:
    """The bucket's word was asked for before the refusal, and comes after it."""
    with crew_of_stores(tmp_path, 2) as members:
        asking, refused = [worker(member, ShakyBucket(MemoryStore())) for member in members]
        await asking.store.access.known(APP, NOBODY, DIGEST)
        await answered(refused, let_in=False, at_s=2_000.0)
        asking.store.access.adopt(APP, lambda _: Openness(shared_at_s=1_500.0))
        for each in (asking, refused):
            await each.store.access.flush()
            assert (await each.store.access.known(APP, NOBODY, None)).openness == Openness()
            await each.idle()
