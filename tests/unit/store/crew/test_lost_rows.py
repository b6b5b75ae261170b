"""Content that has lost its row is looked for, whoever lost it, and whenever that was."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Never

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.crew.store import CrewStore
from regproxy.store.errors import StoreError
from regproxy.store.layout import Layout
from regproxy.store.upkeep import Upkeep
from unit.store.crew.crew_of_stores import Member, crew_of_stores

BODY = os.urandom(300_000)
DIGEST = Digest.of(BODY)


@contextmanager
def housekeeper_and(directory: Path) -> Iterator[tuple[CrewStore, CrewStore]]:
    """Yield the store of the worker that keeps house, and another one's; they close in this order."""
    with crew_of_stores(directory) as (one, two):
        one.store._keeps_house = True
        try:
            yield one.store, two.store
        finally:
            one.store.close()


async def store_without_row(store: Store) -> None:
    """Store content when the disk has room for the file and none for the row."""
    index = store._open_ledger()._index
    adopt = index.adopt

    def adopt_half(key: str, path: Path, media_type: str, now_s: float) -> Never:
        with index.transact():
            adopt(key, path, media_type, now_s)
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "adopt", adopt_half)
        with pytest.raises(StoreError):
            await store.put_content(DIGEST, BODY, "")


async def damage(store: Store) -> None:
    """Have a worker meet damage in the index."""

    def meet_damage(_: object) -> Never:
        error = sqlite3.DatabaseError("database disk image is malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    with pytest.raises(StoreError):
        await store._open_ledger().inspect("look", meet_damage)


async def after_restart(directory: Path) -> str | None:
    """Return the media type of the content at the next start, None for no row."""
    store = Store(directory, 10_000_000, 86400.0, 0)
    store.open()
    try:
        await store.tidy()
        return await store.media_type(DIGEST)
    finally:
        store.close()


def fail_to_close(member: Member) -> None:
    """Have the worker end without having written everything."""

    def close() -> None:
        raise StoreError("disk full")

    member.store.access.close = close  # type: ignore[method-assign]
    member.store.close()


async def test_the_housekeeper_finds_the_row_that_another_worker_could_not_write(tmp_path: Path) -> None:
    """When both have had a round."""
    with housekeeper_and(tmp_path) as (keeper, other):
        await keeper.tidy()
        await store_without_row(other)
        await other.tidy()
        await keeper.tidy()
        assert await keeper.media_type(DIGEST) == ""
    assert not Layout(tmp_path).heartbeat.exists()


@pytest.mark.parametrize("who", [0, 1], ids=["the housekeeper", "another one"])
async def test_the_next_start_finds_it_when_all_end_before(tmp_path: Path, who: int) -> None:
    """No worker has a round in between."""
    with housekeeper_and(tmp_path) as stores:
        await stores[0].tidy()
        await store_without_row(stores[who])
    assert await after_restart(tmp_path) == ""


async def test_the_housekeeper_finds_it_when_the_other_one_ends_before(tmp_path: Path) -> None:
    """The worker that could not write it has no round any more."""
    with housekeeper_and(tmp_path) as (keeper, other):
        await keeper.tidy()
        await store_without_row(other)
        other.close()
        await keeper.tidy()
        assert await keeper.media_type(DIGEST) == ""
    assert not Layout(tmp_path).heartbeat.exists()


async def test_what_is_lost_in_the_middle_of_a_round_is_found_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker replaces the index when the housekeeper has looked and has not said so."""
    with housekeeper_and(tmp_path) as (keeper, other):
        await keeper.put_content(DIGEST, BODY, "")
        await keeper.tidy()
        beat = Upkeep.beat

        async def damage_and_beat(upkeep: Upkeep) -> None:
            await damage(other)
            await beat(upkeep)

        with monkeypatch.context() as patch:
            patch.setattr(Upkeep, "beat", damage_and_beat)
            await keeper.tidy()
        await keeper.tidy()
        assert await keeper.media_type(DIGEST) == ""


@pytest.mark.parametrize("who", [0, 1], ids=["the housekeeper", "another one"])
async def test_an_unclean_end_is_not_forgotten_when_another_worker_ends_cleanly(tmp_path: Path, who: int) -> None:
    """The next start verifies."""
    with crew_of_stores(tmp_path) as members:
        members[0].store._keeps_house = True
        await members[0].store.tidy()
        fail_to_close(members[who])
        members[1 - who].store.close()
        assert Layout(tmp_path).heartbeat.exists()


async def test_who_stays_settles_an_unclean_end(tmp_path: Path) -> None:
    """After its next round the cache can be closed cleanly."""
    with crew_of_stores(tmp_path) as (one, two):
        one.store._keeps_house = True
        await one.store.tidy()
        fail_to_close(two)
        await one.store.tidy()
        one.store.close()
        assert not Layout(tmp_path).heartbeat.exists()


async def test_one_process_finds_it_at_the_next_start(tmp_path: Path) -> None:
    """It ends before its next round."""
    store = Store(tmp_path, 10_000_000, 86400.0, 0)
    store.open()
    await store.tidy()
    await store_without_row(store)
    store.close()
    assert await after_restart(tmp_path) == ""
