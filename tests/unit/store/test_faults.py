"""The disk under an open store fails: every error is a StoreError, the accounts stay true, and it works again after."""

import asyncio
import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab.small_disk import fill, small_disk
from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store import flights, recovery
from regproxy.store.content import Store
from regproxy.store.errors import StoreError, StoreFull
from regproxy.store.ingest import Ingest
from regproxy.store.layout import Layout
from regproxy.store.partial import PartialFile
from regproxy.store.records import TagKey, TagRecord
from regproxy.store.recovery import beat

type OpenStore = Callable[..., Store]
type Hold = Callable[[Store, Digest], Awaitable[Ingest]]
type Landed = Callable[[Store, Digest], Awaitable[None]]

BODY = bytes(range(256)) * 2000
DIGEST = Digest.of(BODY)
SMALL = b"a manifest"
KEY = TagKey("registry.test", "team/app", "1", ("application/json",))
RECORD = TagRecord(Descriptor("application/json", Digest.of(SMALL), len(SMALL)), 1.0)
MIB = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk where `open_store` opens its store."""
    with small_disk(tmp_path / "cache", 8 * MIB) as mounted:
        yield mounted


async def _download(store: Store, body: bytes = BODY) -> None:
    """Store content by a fetch that has all of it at hand."""

    async def fetch(ingest: Ingest) -> None:
        await ingest.begin(len(body), None)
        await ingest.write([body[ingest.missing_from() :]])
        await ingest.finish()

    await store.join_or_start(Digest.of(body), fetch).verified()


def _is_served(store: Store, digest: Digest) -> bool:
    stored = store.open_content(digest)
    if stored is not None:
        stored.close()
    return stored is not None


async def test_a_full_disk_refuses_content_and_takes_it_again_when_there_is_room(
    disk: Path, open_store: OpenStore, landed: Landed
) -> None:
    """The refusal comes before anything is promised to a reader, and leaves nothing behind."""
    store = open_store()
    await store.put_content(Digest.of(SMALL), SMALL, "application/json")
    filler = fill(disk, leave_bytes=100_000)

    with pytest.raises(StoreFull, match="No space left on device"):
        await _download(store)
    await landed(store, DIGEST)
    assert list((disk / "partial").iterdir()) == []
    assert store.usage.partial_bytes == 0
    assert _is_served(store, Digest.of(SMALL))

    filler.unlink()
    await _download(store)
    await landed(store, DIGEST)
    assert _is_served(store, DIGEST)


async def test_an_index_that_met_a_full_disk_writes_again_when_there_is_room(disk: Path, open_store: OpenStore) -> None:
    """A COMMIT that fails leaves no transaction open behind it."""
    store = open_store()
    filler = fill(disk)
    refused = 0
    for number in range(400):
        key = TagKey("registry.test", "team/app", str(number), ("application/json",))
        try:
            await store.put_tag_record(key, RECORD)
        except StoreFull:
            refused += 1
    assert refused > 0

    filler.unlink()
    await store.put_tag_record(KEY, RECORD)
    store.close()
    assert await open_store().tag_record(KEY) == RECORD


async def test_a_full_disk_is_made_room_on_by_eviction(disk: Path, open_store: OpenStore, landed: Landed) -> None:
    """The content's files go first, so that their rows can be removed at all."""
    store = open_store(cap_bytes=5 * MIB)
    bodies = [bytes([number]) * 900_000 for number in range(5)]
    for body in bodies:
        await _download(store, body)
        await landed(store, Digest.of(body))
    fill(disk)

    with pytest.raises(StoreError):
        await _download(store, b"x" * 900_000)
    await landed(store, Digest.of(b"x" * 900_000))
    await _download(store, b"y" * 600_000)
    await landed(store, Digest.of(b"y" * 600_000))

    assert _is_served(store, Digest.of(b"y" * 600_000))


async def test_closing_on_a_full_disk_raises_nothing(
    disk: Path, open_store: OpenStore, landed: Landed, caplog: pytest.LogCaptureFixture
) -> None:
    """What could not be written is lost; the next start verifies what is there."""
    store = open_store()
    await _download(store)
    await landed(store, DIGEST)
    await store.put_content(Digest.of(SMALL), SMALL, "application/json")
    fill(disk)
    assert _is_served(store, DIGEST)

    store.close()

    assert "the next start verifies it" in caplog.text
    assert Layout(disk).heartbeat.exists()


async def test_content_whose_row_cannot_be_written_is_served_counted_and_indexed_later(
    open_store: OpenStore, landed: Landed
) -> None:
    """The file is there and right: only SQLite has no room."""
    store = open_store()
    ledger = store._ledger
    assert ledger is not None

    def limit_pages(pages: int) -> None:
        ledger._index._sql(f"PRAGMA max_page_count = {pages}").fetchall()

    ledger._thread.submit(limit_pages, 1).result()  # the pages that are there already stay
    bodies = [b"%d" % number * 5000 for number in range(200)]
    for body in bodies:
        await _download(store, body)
        await landed(store, Digest.of(body))
    unindexed = [body for body in bodies if await store.media_type(Digest.of(body)) is None]
    assert unindexed
    assert all(_is_served(store, Digest.of(body)) for body in bodies)
    assert store.usage.partial_bytes == 0
    assert store.usage.content_bytes == sum(-(-len(body) // 4096) * 4096 for body in bodies)
    assert list((store.directory / "partial").iterdir()) == []

    ledger._thread.submit(limit_pages, 2**30).result()
    await store.tidy()

    assert [await store.media_type(Digest.of(body)) for body in unindexed] == [""] * len(unindexed)
    assert store.usage.content_bytes == sum(-(-len(body) // 4096) * 4096 for body in bodies)


async def test_after_a_disk_fault_under_a_reader_nothing_is_stored_for_a_while(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, hold: Hold, landed: Landed
) -> None:
    """The cut client asks again: it must not meet the same fault, but get the blob from the registry."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), None)
    assert await ingest.size() == len(BODY)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwritev", fail)
        with pytest.raises(StoreError, match="Input/output error"):
            await ingest.write([BODY])
        await landed(store, DIGEST)
        with pytest.raises(StoreError, match=r"nothing is stored for 30 s after a fault: .*Input/output error"):
            await _download(store)

    monkeypatch.setattr(flights, "time", SimpleNamespace(monotonic=lambda: store._flights._resting_until_s))  # type: ignore[union-attr]
    await _download(store)
    await landed(store, DIGEST)
    assert _is_served(store, DIGEST)


async def test_a_fault_before_anybody_was_promised_anything_stops_nothing(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, landed: Landed
) -> None:
    """That client gets its blob from the registry anyway; the next blob may find the disk better."""
    store = open_store()

    def fail(*_: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as broken:
        broken.setattr(os, "posix_fallocate", fail)
        with pytest.raises(StoreError, match="Permission denied"):
            await _download(store)
        await landed(store, DIGEST)

    await _download(store)
    await landed(store, DIGEST)
    assert _is_served(store, DIGEST)


async def test_progress_that_cannot_be_recorded_is_removed_and_not_counted(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, hold: Hold, landed: Landed
) -> None:
    """Room that nothing takes must not be missing from the cap until the next start."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY[:200_000]])

    def fail(*_: object) -> None:
        raise StoreError("cannot record the progress")

    monkeypatch.setattr(PartialFile, "save", fail)
    ingest.fail(ConnectionResetError())
    await landed(store, DIGEST)

    assert store.usage.partial_bytes == 0
    assert list((store.directory / "partial").iterdir()) == []


async def test_a_resumed_download_is_cut_to_its_size_whatever_was_allocated_before(
    open_store: OpenStore, hold: Hold, landed: Landed
) -> None:
    """A process that was killed had allocated more, not knowing the size: zeros after the end are not content."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(None, None)
    await ingest.write([BODY[:300_000]])
    ingest.fail(ConnectionResetError())
    await landed(store, DIGEST)
    store.close()
    os.truncate(Layout(store.directory).partial(DIGEST), len(BODY) + 1_000_000)

    again = open_store()
    await _download(again)
    await landed(again, DIGEST)

    assert Layout(again.directory).content(DIGEST).read_bytes() == BODY


async def test_content_that_cannot_be_read_after_a_crash_is_removed_and_holds_up_nothing(
    open_store: OpenStore,
) -> None:
    """One bad sector must not keep the rest in doubt for ever."""
    store = open_store()
    bodies = [b"first", b"second", b"third"]
    for body in bodies:
        await store.put_content(Digest.of(body), body, "application/json")
    store.close()
    layout = Layout(store.directory)
    beat(layout)
    bad = layout.content(Digest.of(bodies[1]))
    bad.unlink()
    bad.symlink_to("/proc/self/mem")  # as good as unreadable, for root too

    again = open_store()
    await again.tidy()

    assert [_is_served(again, Digest.of(body)) for body in bodies] == [True, False, True]
    assert not again._doubts


@pytest.mark.parametrize(("run", "is_served"), [("", True), ("another", False)], ids=["same run", "machine restarted"])
async def test_a_power_cut_after_a_clean_close_is_doubted(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, run: str, is_served: bool
) -> None:
    """A clean close does not force data to the disk: what was written last is hashed when the machine has restarted."""
    store = open_store()
    await store.put_content(Digest.of(SMALL), SMALL, "application/json")
    store.close()
    if run:
        monkeypatch.setattr(recovery, "run_of_the_machine", lambda: run)

    again = open_store()

    assert _is_served(again, Digest.of(SMALL)) is is_served
    await again.tidy()
    assert _is_served(again, Digest.of(SMALL))


def test_a_limit_on_file_sizes_is_an_error_and_no_crash(tmp_path: Path) -> None:
    """RLIMIT_FSIZE, as `ulimit -f` or a service manager sets it: content above it is refused, the rest is stored."""
    script = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from regproxy.oci.digest import Digest
        from regproxy.store.content import Store
        from regproxy.store.errors import StoreError

        async def main(store):
            for size in (1000, 5_000_000, 2000):
                body = bytes(size)
                try:
                    await store.put_content(Digest.of(body), body, "")
                except StoreError as error:
                    print("refused", size, "File too large" in str(error))
            store.close()

        store = Store(Path(sys.argv[1]), 10**9, 1e9, 0)
        store.open()
        asyncio.run(main(store))
        print(len(list(Path(sys.argv[1]).glob("content/*/*/*"))))
        """
    )
    child = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "cache")],
        env={"PYTHONPATH": str(Path(__file__).parents[3] / "addons")},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert child.returncode != -signal.SIGXFSZ, child.stderr
    assert child.stdout.splitlines() == ["refused 5000000 True", "2"], child.stderr


async def test_housekeeping_on_a_directory_that_takes_no_change_goes_on(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system that the kernel made read-only: said once, content is served, and it heals."""
    store = open_store()
    await store.put_content(Digest.of(SMALL), SMALL, "application/json")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as broken:
        broken.setattr(os, "utime", read_only)
        housekeeping = asyncio.ensure_future(store.housekeeping(interval_s=0.001))
        while "Read-only file system" not in caplog.text:  # noqa: ASYNC110 - the log has no event
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert caplog.text.count("Read-only file system") == 1
        assert _is_served(store, Digest.of(SMALL))
    os.utime(Layout(store.directory).heartbeat, (5, 5))
    while Layout(store.directory).heartbeat.stat().st_mtime < 1000:  # noqa: ASYNC110 - nor has a file
        await asyncio.sleep(0.001)
    housekeeping.cancel()
