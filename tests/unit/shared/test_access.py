"""What replicas tell one another of who may read what."""

from types import SimpleNamespace

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import NEVER_S, Given, Holder, Known, Openness, Repository
from regproxy.policy.identities import NOBODY, Identity
from regproxy.policy.openers import OpenedBy
from regproxy.shared.lately import ASKED_S
from regproxy.shared.tier import SharedTier
from unit.shared.conftest import Replica
from unit.shared.shaky_bucket import ShakyBucket

QUAY = Registry("quay.io", 443)
APP, OTHER = Repository(QUAY, "team/app"), Repository(QUAY, "team/other")
DIGEST = Digest.of(b"content")
ALICE = Identity("a1" * 20)


async def opened(tier: SharedTier, opened_by: OpenedBy, *, let_in: bool, at_s: float) -> None:
    book = tier.store.access
    await book.known(APP, ALICE, DIGEST)
    book.answered(APP, opened_by, ALICE, let_in=let_in, now_s=at_s)
    if let_in:
        book.bind(APP, DIGEST, Given.TO_NOBODY)
    await tier.idle()


async def known(tier: SharedTier) -> Known:
    await tier.store.access.known(APP, NOBODY, DIGEST)
    await tier.access.learn(APP, DIGEST)
    return tier.store.access.recall(APP, NOBODY, DIGEST)


async def test_what_was_open_to_one_is_open_to_all(replica: Replica, clock: SimpleNamespace) -> None:
    """With the time of the answer, and the content that was given."""
    first, second = replica(), replica()
    await opened(first, OpenedBy.NOBODY, let_in=True, at_s=clock.now_s - 7)

    assert await known(second) == Known(Openness(clock.now_s - 7, NEVER_S), NEVER_S, Given.TO_NOBODY)


async def test_a_refusal_to_one_closes_for_all(replica: Replica, clock: SimpleNamespace) -> None:
    """It is newer than what they know."""
    first, second = replica(), replica()
    await opened(first, OpenedBy.OPERATOR, let_in=True, at_s=clock.now_s - 7)
    assert (await known(second)).openness.shared_at_s == clock.now_s - 7
    await opened(first, OpenedBy.OPERATOR, let_in=False, at_s=clock.now_s)
    clock.now_s += ASKED_S

    assert (await known(second)).openness.shared_at_s == NEVER_S


async def test_what_the_bucket_says_does_not_undo_an_own_refusal(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace
) -> None:
    """Also when the refusal could not be told."""
    first, second = replica(), replica()
    await opened(first, OpenedBy.NOBODY, let_in=True, at_s=clock.now_s - 7)
    bucket.fails = True
    await opened(second, OpenedBy.NOBODY, let_in=False, at_s=clock.now_s)
    bucket.fails = False
    await second.reading.look()

    assert (await known(second)).openness == Openness()


async def test_what_a_client_has_proven_stays_where_it_was_proven(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace
) -> None:
    """Nothing in the bucket comes from a client's login, and nothing tells that there was one."""
    first = replica()
    book = first.store.access
    await book.known(APP, ALICE, DIGEST)
    book.answered(APP, OpenedBy.CLIENT, ALICE, let_in=True, now_s=clock.now_s)
    await first.idle()

    texts = [(await bucket.get(name)) for name in bucket.names()]
    assert all(text is None or (ALICE.key.encode() not in text.body) for text in texts)
    assert all(b'"at_s": 1' not in text.body for text in texts if text is not None)


async def test_the_bucket_is_asked_once_for_one_pull(replica: Replica, bucket: ShakyBucket) -> None:
    """A moment later it is asked again."""
    tier = replica()
    for _ in range(5):
        await known(tier)

    assert bucket.asked == ["get", "get"]


async def test_who_holds_a_content_is_learnt_with_the_registry(replica: Replica) -> None:
    """It is in the own index afterwards; a holder's record under another name is not believed."""
    first, second = replica(), replica()
    for repository in (APP, OTHER):
        await first.store.access.known(repository, NOBODY, DIGEST)
        first.store.access.bind(repository, DIGEST, Given.TO_CLIENT)
    await first.idle()

    assert not (await second.store.access.bindings(DIGEST))
    assert await second.access.adopt_holders(DIGEST) == [Holder(QUAY, Given.TO_CLIENT)] * 2
    assert set(await second.store.access.bindings(DIGEST)) == {APP, OTHER}
    assert await second.access.is_held(DIGEST)
    assert not await second.access.is_held(Digest.of(b"unknown"))


async def test_what_was_deleted_is_not_bound_again_by_the_bucket(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace
) -> None:
    """Here at once, elsewhere as soon as the bucket has been told; the origin of the content stays known."""
    first, second, third = replica(), replica(), replica()
    await opened(first, OpenedBy.NOBODY, let_in=True, at_s=clock.now_s)
    bucket.fails = True
    second.access.unbound(APP, DIGEST)
    await second.idle()
    bucket.fails = False
    await second.writing.look()
    assert not (await known(second)).given
    second.access.unbound(APP, DIGEST)
    await second.idle()

    assert not (await known(third)).given
    assert await third.access.adopt_holders(DIGEST) == [Holder(QUAY, Given.NOWHERE)]
    first.store.access.bind(APP, DIGEST, Given.TO_CLIENT)
    await first.idle()
    clock.now_s += ASKED_S
    assert (await known(third)).given == Given.TO_NOBODY | Given.TO_CLIENT


async def test_a_challenge_is_known_to_all(replica: Replica) -> None:
    """So that a replica that has never met the registry can say in an outage what it would ask for."""
    first, second = replica(), replica()
    first.store.access.challenged(QUAY, 'Bearer realm="https://quay.io/auth"')
    await first.idle()

    assert await second.access.challenge(QUAY) == 'Bearer realm="https://quay.io/auth"'
