"""regproxy.store.ledger: the ways to the index thread, and what happens to a damaged index."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.errors import StoreError, StoreFull
from regproxy.store.index import MAX_ACCEPT_VARIANTS, Index
from regproxy.store.layout import Layout
from regproxy.store.ledger import Ledger
from regproxy.store.records import TagKey

BODY = b'{"schemaVersion": 2}'
DIGEST = Digest.of(BODY)


@pytest.fixture
def open_ledger(layout: Layout, clock: SimpleNamespace) -> Iterator[Callable[..., Ledger]]:
    ledgers: list[Ledger] = []

    def open_one(cap_bytes: int = 10**9) -> Ledger:
        ledgers.append(
            Ledger(layout, cap_bytes=cap_bytes, min_free_bytes=0, oldest_s=0.0, clock=lambda: float(clock.now_s))
        )
        return ledgers[-1]

    yield open_one
    for ledger in ledgers:
        ledger.close()


async def test_all_index_work_happens_on_one_thread(
    open_ledger: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's connection is made, used and closed by the same thread."""
    threads: set[str] = set()
    transact = Index.transact

    def watched(self: Index, *args: object) -> object:
        threads.add(threading.current_thread().name)
        return transact(self, *args)

    monkeypatch.setattr(Index, "transact", watched)
    ledger = open_ledger()
    await ledger.put(DIGEST, BODY, "application/json")
    await ledger.expire(0.0)
    await ledger.forget_tag("r", "n", "t")

    assert threads == {"store-index_0"}


async def test_content_is_put_once(open_ledger: Callable[..., Ledger], layout: Layout) -> None:
    """A second put keeps the file, and the first media type that says something."""
    ledger = open_ledger()
    await ledger.put(DIGEST, BODY, "")
    inode = layout.content(DIGEST).stat().st_ino
    await ledger.put(DIGEST, BODY, "application/json")
    await ledger.put(DIGEST, BODY, "text/plain")

    assert layout.content(DIGEST).stat().st_ino == inode
    assert await ledger.media_type(DIGEST) == "application/json"
    assert ledger.usage.entries == 1


async def test_content_whose_file_vanished_is_put_again(open_ledger: Callable[..., Ledger], layout: Layout) -> None:
    """Someone who cleans the directory by hand does not make content unstorable."""
    ledger = open_ledger()
    await ledger.put(DIGEST, BODY, "application/json")
    layout.content(DIGEST).unlink()

    await ledger.put(DIGEST, BODY, "application/json")

    assert layout.content(DIGEST).read_bytes() == BODY
    assert ledger.usage.entries == 1


async def test_unknown_content_has_no_media_type(open_ledger: Callable[..., Ledger]) -> None:
    """None is not the empty media type of a blob."""
    assert await open_ledger().media_type(DIGEST) is None


async def test_a_put_that_does_not_fit_leaves_nothing(open_ledger: Callable[..., Ledger], layout: Layout) -> None:
    """StoreFull, and no file in either place."""
    ledger = open_ledger(cap_bytes=200 * 1024)

    with pytest.raises(StoreFull):
        await ledger.put(Digest.of(bytes(300_000)), bytes(300_000), "")

    assert list(layout.stored()) == []
    assert list((layout.directory / "partial").iterdir()) == []


async def test_a_tag_keeps_a_bounded_number_of_variants(
    open_ledger: Callable[..., Ledger], clock: SimpleNamespace
) -> None:
    """Clients that invent Accept lists cannot fill the index; the variants used last stay."""
    ledger = open_ledger()
    for number in range(MAX_ACCEPT_VARIANTS + 10):
        clock.now_s += 1
        await ledger.put_text(TagKey("r", "n", "t", (str(number),)), "{}")

    assert ledger.usage.entries == MAX_ACCEPT_VARIANTS
    assert await ledger.text(TagKey("r", "n", "t", ("9",))) is None
    assert await ledger.text(TagKey("r", "n", "t", (str(MAX_ACCEPT_VARIANTS + 9),))) == "{}"


async def test_rows_are_held_against_the_cap_too(open_ledger: Callable[..., Ledger], clock: SimpleNamespace) -> None:
    """Tag records that fill the index push content out, and the cap holds."""
    ledger = open_ledger(cap_bytes=400 * 1024)
    await ledger.put(DIGEST, BODY, "")
    for number in range(60):
        clock.now_s += 1
        await ledger.put_text(TagKey("r", f"n{number}", "t", ("x" * 4000,)), "{}")
        assert ledger.usage.used_bytes <= 400 * 1024 or ledger.usage.content_bytes == 0

    assert await ledger.media_type(DIGEST) is None


async def test_errors_of_sqlite_leave_as_store_errors(
    open_ledger: Callable[..., Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what was tried, where the index is, and what to do."""

    def broken(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    ledger = open_ledger()
    monkeypatch.setattr(Index, "text", broken)

    with pytest.raises(StoreError, match=r"cannot look up a tag: .*cache\.db: disk I/O error; check the disk"):
        await ledger.text(TagKey("r", "n", "t", ()))


@pytest.mark.parametrize("damage", ["garbage", "torn pages"])
async def test_a_damaged_index_is_moved_aside_and_starts_empty(
    layout: Layout, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """The proxy starts, says so, and keeps the broken file for whoever wants to look."""
    ledger = Ledger(layout, cap_bytes=10**9, min_free_bytes=0, oldest_s=0.0, clock=lambda: 0.0)
    for number in range(50):
        await ledger.put(Digest.of(bytes([number])), bytes([number]), "")
    ledger.close()
    size_bytes = layout.database.stat().st_size
    with layout.database.open("r+b") as database:
        database.seek(0 if damage == "garbage" else size_bytes // 2)
        database.write(b"\xa5" * (size_bytes // 2))
    with caplog.at_level(logging.WARNING):
        again = Ledger(layout, cap_bytes=10**9, min_free_bytes=0, oldest_s=0.0, clock=lambda: 0.0)

    assert again.rebuilt
    assert again.usage.entries == 0
    assert "is damaged" in caplog.text
    assert (layout.directory / "cache.db.damaged").exists()
    again.close()


async def test_a_locked_index_is_not_taken_for_a_damaged_one(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another error than damage is reported, and nothing is moved."""

    def locked(_: object) -> None:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    monkeypatch.setattr(Index, "check", locked)

    with pytest.raises(StoreError, match="database is locked"):
        Ledger(layout, cap_bytes=10**9, min_free_bytes=0, oldest_s=0.0, clock=lambda: 0.0)

    assert not (layout.directory / "cache.db.damaged").exists()
