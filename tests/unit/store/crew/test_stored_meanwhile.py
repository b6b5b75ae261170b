"""What one worker stores right while another one finds the old file broken stays."""

import os
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Given, Repository
from regproxy.policy.identities import NOBODY
from regproxy.store import inventory, recovery
from regproxy.store.content import Store
from regproxy.store.crew.store import CrewStore
from regproxy.store.layout import FileId, Layout
from regproxy.store.scrub import Pace, Scrub
from unit.store.crew.crew_of_stores import crew_of_stores

BODY = b'{"schemaVersion": 2}'
DIGEST = Digest.of(BODY)
REPOSITORY = Repository(Registry.parse("registry.test"), "app")

hash_file = recovery.is_true_to_name


def zeros(path: Path) -> None:
    """Leave what a power loss leaves; it was written some time ago."""
    path.write_bytes(bytes(len(BODY)))
    os.utime(path, (1.0, 1.0))


async def fetch_anew(store: CrewStore) -> None:
    """Store the content and say who has it, as a pull does."""
    await store.put_content(DIGEST, BODY, "a/b")
    await store.access.known(REPOSITORY, NOBODY, DIGEST)
    store.access.bind(REPOSITORY, DIGEST, Given.TO_NOBODY)
    await store.access.flush()


async def is_whole(store: CrewStore) -> bool:
    """Whether the content is there with its row and who has it."""
    manifest = await store.manifest(DIGEST)
    bindings = await store.access.bindings(DIGEST)
    return manifest is not None and manifest.body == BODY and bindings == {REPOSITORY: Given.TO_NOBODY}


async def leave_in_doubt(directory: Path) -> None:
    """Store the content, then crash."""
    store = Store(directory, 10_000_000, 86400.0, 0)
    store.open()
    await store.put_content(DIGEST, BODY, "a/b")
    store.close()
    Layout(directory).heartbeat.touch()


@pytest.mark.parametrize("spoil", [zeros, Path.unlink], ids=["zeros", "no file"])
async def test_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], None]) -> None:
    """Another worker fetches it anew while the housekeeper hashes."""
    await leave_in_doubt(tmp_path)
    with crew_of_stores(tmp_path) as (one, two):

        async def hash_long(hash_pool: Executor, layout: Layout, digest: Digest) -> bool:
            is_true = await hash_file(hash_pool, layout, digest)
            await fetch_anew(two.store)
            return is_true

        spoil(Layout(tmp_path).content(DIGEST))
        monkeypatch.setattr(recovery, "is_true_to_name", hash_long)
        one.store._keeps_house = True
        await one.store.tidy()
        assert await is_whole(one.store)
        assert await is_whole(two.store)


async def test_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator has it verified meanwhile."""
    with crew_of_stores(tmp_path) as (one, two):
        await one.store.put_content(DIGEST, BODY, "a/b")
        zeros(Layout(tmp_path).content(DIGEST))

        async def hash_long(hash_pool: Executor, layout: Layout, digest: Digest) -> bool:
            is_true = await hash_file(hash_pool, layout, digest)
            layout.content(digest).unlink()
            await fetch_anew(two.store)
            return is_true

        monkeypatch.setattr(inventory, "is_true_to_name", hash_long)
        assert await one.store.inventory.verify(DIGEST)
        assert await is_whole(one.store)


async def test_in_the_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file was gone when it was its turn, and is there again when its row is to go."""
    with crew_of_stores(tmp_path) as (one, two):
        await one.store.put_content(DIGEST, BODY, "a/b")
        Layout(tmp_path).content(DIGEST).unlink()
        ledger, upkeep = one.store._open_ledger(), one.store._open_upkeep()
        drop = ledger.drop

        async def drop_late(digest: Digest, file: FileId | None) -> bool:
            await fetch_anew(two.store)
            return await drop(digest, file)

        monkeypatch.setattr(ledger, "drop", drop_late)
        scrub = Scrub(upkeep.layout, ledger, upkeep.hash_pool, upkeep.clock, Pace())
        await scrub._verify(DIGEST)
        assert await is_whole(one.store)


async def test_when_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that was read is broken, the one that is there now is not."""
    with crew_of_stores(tmp_path) as (one, two):
        await one.store.put_content(DIGEST, BODY, "a/b")
        zeros(Layout(tmp_path).content(DIGEST))
        ledger = one.store._open_ledger()
        drop = ledger.drop

        async def drop_late(digest: Digest, file: FileId | None) -> bool:
            Layout(tmp_path).content(digest).unlink()
            await fetch_anew(two.store)
            return await drop(digest, file)

        monkeypatch.setattr(ledger, "drop", drop_late)
        assert await one.store.manifest(DIGEST) is None
        assert await is_whole(one.store)
