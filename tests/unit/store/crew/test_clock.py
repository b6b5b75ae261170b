"""The clock is set under several workers: the index's times move once, whoever notices first and whoever later."""

import time
from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Repository
from regproxy.policy.identities import NOBODY
from regproxy.policy.openers import OpenedBy
from regproxy.store.crew.store import CrewStore
from unit.store.crew.crew_of_stores import crew_of_stores

BODY = b"{}"
DIGEST = Digest.of(BODY)
YEAR_S = 365 * 86400.0
AGE_S = 1000.0
TOLERANCE_S = 300.0
"""A loaded machine's; a clock that was followed twice, or not at all, is off by a year."""


class Clock:
    """The wall clock, which tests set."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        """Return the Unix time."""
        return time.time() + self.ahead_s


async def age_s(store: CrewStore, clock: Clock) -> float:
    rows = await store.inventory.contents()
    return clock() - rows[DIGEST].used_at_s


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S], ids=["forward", "back"])
async def test_ages_stay_what_they_were(tmp_path: Path, jump_s: float) -> None:
    """Each of three workers follows; one of them had an access in memory that it had not written."""
    clock = Clock()
    with crew_of_stores(tmp_path, 3, clock=clock) as members:
        one, two, three = (member.store for member in members)
        await one.put_content(DIGEST, BODY, "a/b")
        one._open_ledger().accesses.note(f"content:{DIGEST}", clock() - AGE_S)
        before_s = await age_s(one, clock)
        clock.ahead_s += jump_s
        for store in (two, one, three):
            await store._open_upkeep().follow_the_clock(jump_s)
        for store in (one, two, three):
            assert await age_s(store, clock) == pytest.approx(before_s, abs=TOLERANCE_S)
        await one.evict_inactive()
        assert one.holds(DIGEST)


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S], ids=["forward", "back"])
async def test_an_access_from_before_is_not_a_year_off(tmp_path: Path, jump_s: float) -> None:
    """A worker writes what it had noted after another one has moved the index: it is moved, too."""
    clock = Clock()
    with crew_of_stores(tmp_path, 2, clock=clock) as members:
        one, two = (member.store for member in members)
        await one.put_content(DIGEST, BODY, "a/b")
        await two.look_at_usage()
        with two.open_content(DIGEST) or pytest.fail("not stored"):
            pass
        clock.ahead_s += jump_s
        await one._open_upkeep().follow_the_clock(jump_s)
        await two.evict_inactive()
        assert two.holds(DIGEST)
        assert await age_s(one, clock) == pytest.approx(0, abs=TOLERANCE_S)


async def test_rights_that_were_not_written_do_not_come_from_the_future(tmp_path: Path) -> None:
    """The clock is set back before they are: they are as old as they were, and the book goes on."""
    clock = Clock()
    repository = Repository(Registry.parse("quay.io"), "team/app")
    with crew_of_stores(tmp_path, 2, clock=clock) as members:
        one, two = (member.store for member in members)
        await one.look_at_usage()
        one.access.answered(repository, OpenedBy.NOBODY, NOBODY, let_in=True, now_s=clock())
        clock.ahead_s -= YEAR_S
        for store in (two, one):
            await store._open_upkeep().follow_the_clock(-YEAR_S)
        await one.access.flush()
        for store in (one, two):
            known = await store.access.known(repository, NOBODY, DIGEST)
            assert known.openness.public_at_s <= clock() + TOLERANCE_S
