"""regproxy.store.index_file: whatever becomes of the index, the store opens, serves what is right and counts it."""

import asyncio
import contextlib
import logging
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.errors import StoreError
from regproxy.store.layout import Layout
from regproxy.store.records import TagKey, TagRecord
from regproxy.store.recovery import beat

type OpenStore = Callable[..., Store]

BODIES = [b"%d" % number * (1 + 40 * number) for number in range(50)]
DIGESTS = [Digest.of(body) for body in BODIES]
MEDIA_TYPE = "application/json"


async def _filled(open_store: OpenStore) -> Store:
    store = open_store()
    for number, (digest, body) in enumerate(zip(DIGESTS, BODIES, strict=True)):
        await store.put_content(digest, body, MEDIA_TYPE)
        await store.put_tag_record(_key(number), TagRecord(Descriptor(MEDIA_TYPE, digest, len(body)), 1.0))
    return store


def _key(number: int) -> TagKey:
    return TagKey("registry.test", "team/app", str(number), (MEDIA_TYPE,))


def _log_of(layout: Layout) -> Path:
    return layout.database.with_name("cache.db-wal")


def _served(store: Store) -> int:
    """Return how many contents are served; each is right."""
    count = 0
    for digest, body in zip(DIGESTS, BODIES, strict=True):
        stored = store.open_content(digest)
        if stored is not None:
            count += 1
            with stored:
                assert os.pread(stored.fileno(), stored.size_bytes + 1, 0) == body
    return count


async def _assert_sound(store: Store) -> None:
    """All content is served, counted once, known to the index, and new content can be stored."""
    await store.tidy()
    assert _served(store) == len(BODIES)
    files_bytes = sum(-(-status.st_size // 4096) * 4096 for _, status in Layout(store.directory).stored())
    assert store.usage.content_bytes == files_bytes
    assert [await store.media_type(digest) for digest in DIGESTS if await store.media_type(digest) is None] == []
    new = b"stored afterwards"
    await store.put_content(Digest.of(new), new, MEDIA_TYPE)
    assert await store.media_type(Digest.of(new)) == MEDIA_TYPE


def _zero_length(database: Path, _: random.Random) -> None:
    os.truncate(database, 0)


def _gone(database: Path, _: random.Random) -> None:
    database.unlink()


def _cut(database: Path, chance: random.Random) -> None:
    os.truncate(database, chance.randrange(1, database.stat().st_size))


def _garbage_pages(database: Path, chance: random.Random) -> None:
    content = bytearray(database.read_bytes())
    for page in chance.sample(range(len(content) // 4096), k=3):
        content[page * 4096 : (page + 1) * 4096] = chance.randbytes(4096)
    database.write_bytes(content)


def _flipped_bytes(database: Path, chance: random.Random) -> None:
    content = bytearray(database.read_bytes())
    for _ in range(40):
        content[chance.randrange(len(content))] = chance.randrange(256)
    database.write_bytes(content)


def _another_schema(database: Path, _: random.Random) -> None:
    database.unlink()
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE Cache (something TEXT)")
        connection.execute("CREATE TABLE Settings (else_ TEXT)")
    connection.close()


def _false_sums(database: Path, _: random.Random) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE Settings SET value = -1000000 WHERE key IN ('size', 'count')")
    connection.close()


DAMAGES = [_zero_length, _gone, _cut, _garbage_pages, _flipped_bytes, _another_schema, _false_sums]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("crashed", [False, True], ids=["closed", "crashed"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__.strip("_"))
async def test_a_store_whose_index_was_damaged_opens_and_counts_all_its_content(
    open_store: OpenStore, damage: Callable[[Path, random.Random], None], crashed: bool, seed: int
) -> None:
    """Cut, overwritten, emptied, removed or strange: the index is made anew from the files, or was good enough."""
    store = await _filled(open_store)
    store.close()
    layout = Layout(store.directory)
    damage(layout.database, random.Random(f"{damage.__name__} {seed}"))  # noqa: S311 - the damage is to be the same
    if crashed:
        beat(layout)

    await _assert_sound(open_store())


@pytest.mark.parametrize("loss", ["log lost", "log cut", "log of garbage", "both of garbage", "index lost, log kept"])
async def test_a_crash_that_spoils_the_log_of_the_index_loses_no_content(
    open_store: OpenStore, tmp_path: Path, loss: str
) -> None:
    """What SQLite had not folded back yet is gone: rows are missing, old or none; the files say what is stored."""
    store = await _filled(open_store)
    crashed = tmp_path / "crashed"
    shutil.copytree(store.directory, crashed)  # with the log, as a kill leaves it
    store.close()
    shutil.rmtree(store.directory)
    crashed.rename(store.directory)
    layout = Layout(store.directory)
    log = _log_of(layout)
    size_bytes = log.stat().st_size
    assert size_bytes > 0
    chance = random.Random(loss)  # noqa: S311 - the damage is to be the same
    match loss:
        case "log lost":
            log.unlink()
        case "log cut":
            os.truncate(log, size_bytes // 2)
        case "index lost, log kept":
            layout.database.unlink()
        case _:
            log.write_bytes(chance.randbytes(size_bytes))
    if loss == "both of garbage":
        layout.database.write_bytes(chance.randbytes(layout.database.stat().st_size))

    await _assert_sound(open_store())


async def test_an_index_removed_while_the_store_is_open_is_made_anew(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite would go on writing into the removed file, and the next start would know of nothing."""
    store = await _filled(open_store)
    layout = Layout(store.directory)
    layout.database.unlink()
    assert _served(store) == len(BODIES)

    with caplog.at_level(logging.INFO):
        await _assert_sound(store)
    assert "was removed or replaced" in caplog.text
    assert layout.database.exists()

    store.close()
    await _assert_sound(open_store())


async def test_an_index_replaced_while_the_store_is_open_is_opened(open_store: OpenStore, tmp_path: Path) -> None:
    """Somebody brought back a copy from before: its rows count, what it does not know is found."""
    store = open_store()
    await store.put_content(DIGESTS[0], BODIES[0], MEDIA_TYPE)
    store.close()
    layout = Layout(store.directory)
    shutil.copy(layout.database, tmp_path / "copy.db")
    again = await _filled(open_store)

    (tmp_path / "copy.db").replace(layout.database)
    await again.tidy()

    assert await again.media_type(DIGESTS[0]) == MEDIA_TYPE
    assert await again.media_type(DIGESTS[1]) == ""
    await _assert_sound(again)


async def test_an_index_that_is_overwritten_while_the_store_is_open_is_made_anew(
    open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite finds the damage some time; the request that did fails, the next ones do not."""
    store = await _filled(open_store)
    layout = Layout(store.directory)
    ledger = store._ledger
    assert ledger is not None
    ledger._thread.submit(lambda: ledger._index._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()).result()
    with layout.database.open("r+b") as database:
        database.seek(4096)
        database.write(b"\xa5" * (layout.database.stat().st_size - 4096))
    # It has the pages in memory; a larger index would not.
    ledger._thread.submit(lambda: ledger._index._sql("PRAGMA shrink_memory").fetchall()).result()

    with caplog.at_level(logging.INFO):
        for number in range(20):
            body = b"after the damage %d" % number
            try:
                await store.put_content(Digest.of(body), body, MEDIA_TYPE)
            except StoreError:
                continue
        await _assert_sound(store)

    assert "is damaged" in caplog.text
    assert layout.database.with_name("cache.db.damaged").exists()


@pytest.mark.parametrize("left_bytes", [0, 4096, 10_000])
async def test_an_index_that_is_cut_while_the_store_is_open_ends_no_process(
    open_store: OpenStore, left_bytes: int
) -> None:
    """A file that is mapped into memory and cut kills whoever reads it (SIGBUS): this test would not come back."""
    store = await _filled(open_store)
    layout, ledger = Layout(store.directory), store._ledger
    assert ledger is not None
    ledger._thread.submit(lambda: ledger._index._sql("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()).result()

    os.truncate(layout.database, left_bytes)
    for number in range(20):
        body = b"after the cut %d" % number
        with contextlib.suppress(StoreError):
            await store.put_content(Digest.of(body), body, MEDIA_TYPE)
    await _assert_sound(store)

    store.close()
    await _assert_sound(open_store())


async def test_a_directory_emptied_while_the_store_is_open_is_filled_again(open_store: OpenStore) -> None:
    """`rm -rf cache/*` is how operators free a disk: nothing is served, and new content is stored."""
    store = await _filled(open_store)
    for path in store.directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(StoreError):
        await store.put_content(DIGESTS[0], BODIES[0], MEDIA_TYPE)

    await store.tidy()

    assert _served(store) == 0
    assert store.usage.content_bytes == 0
    await store.put_content(DIGESTS[0], BODIES[0], MEDIA_TYPE)
    assert _served(store) == 1


async def test_a_first_start_leaves_no_doubt(open_store: OpenStore, caplog: pytest.LogCaptureFixture) -> None:
    """An empty directory is not an index that was lost."""
    with caplog.at_level(logging.INFO):
        store = open_store()
        await asyncio.gather(store.tidy())

    assert caplog.text == ""
