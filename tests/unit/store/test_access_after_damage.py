"""Who may read what, when the index is lost or the clock was wrong: less than before, never more."""

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import GIVEN_TO, AccessRules, Ground, Repository
from regproxy.policy.identities import NOBODY, Identity
from regproxy.policy.openers import OpenedBy
from regproxy.store.content import Store
from regproxy.store.errors import StoreError
from regproxy.store.layout import Layout

type OpenStore = Callable[..., Store]

HOUR_S, YEAR_S = 3600.0, 365 * 24 * 3600.0
RULES = AccessRules(lifetime_s=300.0, grace_s=24 * HOUR_S)
PRIVATE, PUBLIC = Repository(Registry("quay.io"), "team/app"), Repository(Registry("quay.io"), "library/alpine")
ALICE = Identity("aa" * 20)
BODY = b"a layer"
DIGEST = Digest.of(BODY)


async def _stored_for_alice(store: Store, clock: SimpleNamespace, *, who: OpenedBy = OpenedBy.CLIENT) -> None:
    """Store a layer that only Alice's login opened; the public repository has it too if `who` is nobody."""
    where = PRIVATE if who is OpenedBy.CLIENT else PUBLIC
    await store.put_content(DIGEST, BODY, "")
    await store.access.known(where, ALICE, DIGEST)
    store.access.bind(where, DIGEST, GIVEN_TO[who])
    store.access.answered(where, who, ALICE, let_in=True, now_s=clock.now_s)


async def _grounds(store: Store, clock: SimpleNamespace, where: Repository = PRIVATE) -> tuple[Ground | None, ...]:
    """Return why Alice and why nobody may read, as the registry is there, and as it is away."""
    known = [await store.access.known(where, who, DIGEST) for who in (ALICE, NOBODY)]
    return tuple(rule(one, clock.now_s) for rule in (RULES.allows, RULES.allows_in_outage) for one in known)


OPEN_TO_ALICE = (Ground.OWN, None, Ground.OWN, None)
CLOSED = (None, None, None, None)


async def test_a_rebuilt_index_knows_of_nobody_who_may_read(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """The content is found again from its files, and served to nobody before its registry is asked."""
    store = open_store()
    await _stored_for_alice(store, clock)
    assert await _grounds(store, clock) == OPEN_TO_ALICE
    store.close()
    Layout(store.directory).database.write_bytes(os.urandom(40_000))

    again = open_store()
    await again.tidy()

    assert again.holds(DIGEST)
    assert await again.media_type(DIGEST) == ""
    assert await _grounds(again, clock) == CLOSED
    assert await again.access.holders(DIGEST) == []
    assert await again.access.challenge(PRIVATE.registry) is None


async def test_an_index_that_is_lost_while_the_store_is_open_lets_nobody_in(
    open_store: OpenStore, clock: SimpleNamespace
) -> None:
    """What memory knows was learnt and counts on; what it forgets is asked about, and what it learns is written."""
    store = open_store()
    await _stored_for_alice(store, clock)
    await store.access.flush()
    Layout(store.directory).database.unlink()
    await store.tidy()
    assert await _grounds(store, clock) == OPEN_TO_ALICE
    store.access.answered(PUBLIC, OpenedBy.NOBODY, NOBODY, let_in=True, now_s=clock.now_s)
    store.close()

    again = open_store()

    assert again.holds(DIGEST)
    assert await _grounds(again, clock) == CLOSED
    assert (await again.access.known(PUBLIC, NOBODY, None)).openness.public_at_s == clock.now_s


async def test_who_may_read_cannot_be_told_from_a_damaged_index(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """SQLite finds the damage at the question: that is an error, and the next answer is that nobody may."""
    store = open_store()
    await _stored_for_alice(store, clock)
    store.close()
    store = open_store()
    ledger, database = store._ledger, Layout(store.directory).database
    assert ledger is not None
    ledger._thread.submit(lambda: ledger._index._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()).result()
    with database.open("r+b") as pages:
        pages.seek(4096)
        pages.write(b"\xa5" * (database.stat().st_size - 4096))
    ledger._thread.submit(lambda: ledger._index._sql("PRAGMA shrink_memory").fetchall()).result()

    with pytest.raises(StoreError, match="look up who may read"):
        await _grounds(store, clock)
    await store.tidy()

    assert store.holds(DIGEST)
    assert await _grounds(store, clock) == CLOSED


@pytest.mark.parametrize("in_memory", [True, False], ids=["in memory", "in the index"])
async def test_a_clock_that_is_set_back_makes_no_answer_younger(
    open_store: OpenStore, clock: SimpleNamespace, in_memory: bool
) -> None:
    """An hour after the answer the clock is set back by that hour: it is still an hour old."""
    store = open_store()
    await _stored_for_alice(store, clock)
    if not in_memory:
        store.close()
        store = open_store()
    clock.now_s += HOUR_S
    assert await _grounds(store, clock) == (None, None, Ground.OWN, None)

    clock.now_s -= HOUR_S
    await store._open_upkeep().follow_the_clock(-HOUR_S)

    assert await _grounds(store, clock) == (None, None, Ground.OWN, None)
    clock.now_s += 23 * HOUR_S
    assert await _grounds(store, clock) == CLOSED
    store.close()
    clock.now_s -= HOUR_S  # too little to find it in the future
    assert await _grounds(open_store(), clock) == (None, None, Ground.OWN, None)


async def test_what_is_being_written_when_the_clock_is_set_back_gets_no_younger(
    open_store: OpenStore, clock: SimpleNamespace
) -> None:
    """The row is written and moved."""
    store = open_store()
    await _stored_for_alice(store, clock)
    clock.now_s += HOUR_S
    await store.access.flush()
    clock.now_s -= HOUR_S
    await store._open_upkeep().follow_the_clock(-HOUR_S)
    store.close()

    assert await _grounds(open_store(), clock) == (None, None, Ground.OWN, None)


@pytest.mark.parametrize("notices", [True, False], ids=["running", "between two runs"])
async def test_an_answer_from_the_future_never_counts(
    open_store: OpenStore, clock: SimpleNamespace, notices: bool
) -> None:
    """A clock that was a year ahead: nothing of then is fresh now, nor when the year is over."""
    store = open_store()
    clock.now_s += YEAR_S
    await _stored_for_alice(store, clock)
    if notices:
        clock.now_s -= YEAR_S
        await store._open_upkeep().follow_the_clock(-YEAR_S)
        clock.now_s += 25 * HOUR_S
    else:
        store.close()
        clock.now_s -= YEAR_S
        store = open_store()

    assert await _grounds(store, clock) == CLOSED
    clock.now_s += YEAR_S
    assert await _grounds(store, clock) == CLOSED


async def test_what_was_public_by_a_clock_ahead_is_asked_about_and_outlives_outages(
    open_store: OpenStore, clock: SimpleNamespace
) -> None:
    """Content that was given to everybody stays everybody's while its registry is away; fresh it is not."""
    clock.now_s += YEAR_S
    store = open_store()
    await _stored_for_alice(store, clock, who=OpenedBy.NOBODY)
    store.close()
    clock.now_s -= YEAR_S

    again = open_store()

    for _ in range(2):
        assert await _grounds(again, clock, PUBLIC) == (None, None, Ground.PUBLIC, Ground.PUBLIC)
        clock.now_s += YEAR_S


async def test_a_clock_that_is_set_forward_ages_answers(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """Nothing says which of its times was right, so it is asked again."""
    store = open_store()
    await _stored_for_alice(store, clock)

    clock.now_s += YEAR_S
    await store._open_upkeep().follow_the_clock(YEAR_S)

    assert await _grounds(store, clock) == CLOSED
