"""The index is removed, replaced or damaged under several workers: one makes a new one, and all go on with that."""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store.crew.store import CrewStore
from regproxy.store.errors import StoreError
from regproxy.store.pins import Pin
from regproxy.store.records import TagKey, TagRecord
from unit.store.crew.crew_of_stores import Member, crew_of_stores

BODY = b"{}"
DIGEST = Digest.of(BODY)
PIN = Pin("quay.io/team/app:1", 7.0, frozenset({DIGEST}), frozenset())


async def look_after(*members: Member) -> None:
    """Let the workers keep house, the first one all of it."""
    members[0].store._keeps_house = True
    for member in members:
        await member.store.tidy()


async def contents(store: CrewStore) -> list[Digest]:
    return list(await store.inventory.contents())


async def remember(store: CrewStore, tag: str) -> TagKey:
    key = TagKey("quay.io", "team/app", tag, ())
    await store.put_tag_record(key, TagRecord(Descriptor("a/b", DIGEST, len(BODY)), 1.0))
    return key


def remove(database: Path) -> None:
    """Remove the index with its log, as somebody does who wants it rebuilt."""
    for suffix in ("", "-wal", "-shm"):
        database.with_name(f"cache.db{suffix}").unlink(missing_ok=True)


def damage(database: Path) -> None:
    """Write over all pages, as a bad disk does; the log is emptied first, for it would hide that."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database.open("r+b") as file:
        file.write(os.urandom(database.stat().st_size))


def empty(directory: Path) -> None:
    """Remove all that is in a directory."""
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("who", [0, 1], ids=["the housekeeper", "another one"])
async def test_a_removed_index_is_made_anew_for_all(tmp_path: Path, who: int) -> None:
    """What was stored and pinned is known again to all, and what one of them learns then the others know."""
    with crew_of_stores(tmp_path, 3) as members:
        stores = [member.store for member in members]
        await stores[0].put_content(DIGEST, BODY, "a/b")
        await stores[2].inventory.put_pin(PIN)
        for store in stores:
            await store.look_at_usage()
        remove(tmp_path / "cache.db")
        await stores[who]._open_ledger().look_after()
        await look_after(*members)
        for store in stores:
            assert await contents(store) == [DIGEST]
            assert [pin.target for pin in await store.inventory.pins()] == [PIN.target]
        for number, store in enumerate(stores):
            key = await remember(store, f"{number}")
            assert [await each.tag_record(key) is not None for each in stores] == [True] * 3


async def test_a_damaged_index_is_made_anew_for_all(tmp_path: Path) -> None:
    """Whoever meets the damage replaces it; who still has the old one open follows."""
    with crew_of_stores(tmp_path, 3) as members:
        stores = [member.store for member in members]
        await stores[0].put_content(DIGEST, BODY, "a/b")
        await stores[0].inventory.put_pin(PIN)
        for store in stores:
            await store.look_at_usage()
        damage(tmp_path / "cache.db")
        for _ in range(3):
            for store in stores:
                try:
                    await store.inventory.contents()
                except StoreError:
                    continue
        await look_after(*members)
        assert (tmp_path / "cache.db.damaged").exists()
        for store in stores:
            assert await contents(store) == [DIGEST]
            assert [pin.target for pin in await store.inventory.pins()] == [PIN.target]


async def test_a_worker_that_starts_meanwhile_makes_it_anew(tmp_path: Path) -> None:
    """It knows of no pins and no accounts; those who run do, and none of them removes the log of its index."""
    with crew_of_stores(tmp_path, 2) as members:
        one, two = (member.store for member in members)
        await one.put_content(DIGEST, BODY, "a/b")
        await one.inventory.put_pin(PIN)
        await two.look_at_usage()
        two.close()
        remove(tmp_path / "cache.db")
        two.open()
        key = await remember(two, "new")
        await look_after(*members)
        assert await one.tag_record(key) is not None
        for store in (one, two):
            assert await contents(store) == [DIGEST]
            assert [pin.target for pin in await store.inventory.pins()] == [PIN.target]


async def test_all_of_it_is_removed(tmp_path: Path) -> None:
    """Somebody empties the directory: the workers begin anew together, each knows what another one stores."""
    with crew_of_stores(tmp_path, 2) as members:
        one, two = (member.store for member in members)
        await one.put_content(DIGEST, BODY, "a/b")
        empty(tmp_path)
        await look_after(*members)
        assert await contents(one) == await contents(two) == []
        await asyncio.gather(*(store.put_content(DIGEST, BODY, "a/b") for store in (one, two)))
        key = await remember(two, "new")
        assert await contents(one) == await contents(two) == [DIGEST]
        assert await one.tag_record(key) is not None


async def test_a_pin_counts_at_all_workers(tmp_path: Path) -> None:
    """What one worker pins another one does not evict, though everything else has to go."""
    body = os.urandom(200_000)
    pinned = Digest.of(body)
    with crew_of_stores(tmp_path, 2, 600_000) as members:
        one, two = (member.store for member in members)
        await one.put_content(pinned, body, "a/b")
        await one.inventory.put_pin(Pin("quay.io/team/app:1", 7.0, frozenset({pinned}), frozenset()))
        for _ in range(6):
            other = os.urandom(100_000)
            await two.put_content(Digest.of(other), other, "a/b")
        assert pinned in await contents(one)
        await one.inventory.drop_pin("quay.io/team/app:1")
        for _ in range(6):
            other = os.urandom(100_000)
            await two.put_content(Digest.of(other), other, "a/b")
        assert pinned not in await contents(one)
