"""regproxy.store.scrub: content that is not what it was is found, removed and said, at a bounded rate."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.errors import StoreError
from regproxy.store.hashing import hash_some
from regproxy.store.ingest import Ingest
from regproxy.store.layout import Layout
from regproxy.store.scrub import ALL_AGAIN_S, READ_AGAIN_S, Pace, Scrub

type OpenStore = Callable[..., Store]
type Landed = Callable[[Store, Digest], Awaitable[None]]

BODIES = [bytes([number]) * 3000 for number in range(4)]
DIGESTS = [Digest.of(body) for body in BODIES]
FAST = Pace(bytes_per_s=1e12)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are hashed from now on, each once."""
    names: list[str] = []

    def noted(*args: object) -> int:
        if str(args[0]).rsplit("/", 1)[1] not in names:
            names.append(str(args[0]).rsplit("/", 1)[1])
        return hash_some(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("regproxy.store.scrub.hash_some", noted)
    return names


async def _filled(open_store: OpenStore) -> Store:
    store = open_store()
    for digest, body in zip(DIGESTS, BODIES, strict=True):
        await store.put_content(digest, body, "")
    return store


def _scrub(store: Store, clock: SimpleNamespace, pace: Pace = FAST) -> Scrub:
    ledger, flights = store._ledger, store._flights
    assert ledger is not None
    assert flights is not None
    return Scrub(Layout(store.directory), ledger, flights.hash_pool, lambda: float(clock.now_s), pace)


def _read(store: Store, digest: Digest) -> bytes | None:
    stored = store.open_content(digest)
    if stored is None:
        return None
    with stored:
        return os.pread(stored.fileno(), stored.size_bytes + 1, 0)


async def test_content_that_was_stored_just_now_is_not_hashed_again(
    open_store: OpenStore, clock: SimpleNamespace, hashed: list[str]
) -> None:
    """It was hashed as it came; reading it within the hour does not change that."""
    store = await _filled(open_store)
    clock.now_s += READ_AGAIN_S - 1
    _read(store, DIGESTS[0])

    assert await _scrub(store, clock).round() == 0
    assert hashed == []


async def test_content_that_was_read_is_hashed_most_recently_read_first_and_once(
    open_store: OpenStore, clock: SimpleNamespace, hashed: list[str]
) -> None:
    """Who reads a broken blob asks again soon; what nobody reads can wait."""
    store = await _filled(open_store)
    clock.now_s += READ_AGAIN_S + 1
    _read(store, DIGESTS[2])
    clock.now_s += 1
    _read(store, DIGESTS[1])
    scrubbing = _scrub(store, clock)

    assert [await scrubbing.round(), await scrubbing.round()] == [2, 0]
    assert hashed == [DIGESTS[1].hex, DIGESTS[2].hex]


async def test_all_content_is_hashed_once_a_month(
    open_store: OpenStore, clock: SimpleNamespace, hashed: list[str]
) -> None:
    """Also what nobody read."""
    store = await _filled(open_store)
    clock.now_s += ALL_AGAIN_S + 1
    scrubbing = _scrub(store, clock)

    assert [await scrubbing.round(), await scrubbing.round()] == [4, 0]
    assert sorted(hashed) == sorted(digest.hex for digest in DIGESTS)
    assert [_read(store, digest) for digest in DIGESTS] == BODIES


@pytest.mark.parametrize("damage", ["one bit", "cut", "longer", "zeros", "empty"])
async def test_a_broken_file_is_removed_said_and_stored_anew(
    open_store: OpenStore, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    """Whatever was done to it; the rest stays."""
    store = await _filled(open_store)
    path = Layout(store.directory).content(DIGESTS[0])
    body = BODIES[0]
    spoiled = {
        "one bit": body[:1500] + b"\x01" + body[1501:],
        "cut": body[:-1],
        "longer": body + b"\0",
        "zeros": b"\xff" + body[1:],
        "empty": b"",
    }
    path.write_bytes(spoiled[damage])
    clock.now_s += READ_AGAIN_S + 1
    assert _read(store, DIGESTS[0]) == spoiled[damage]

    await _scrub(store, clock).round()

    assert [_read(store, digest) for digest in DIGESTS] == [None, *BODIES[1:]]
    assert f"stored content {DIGESTS[0]} is broken" in caplog.text
    assert store.usage.content_bytes == 3 * 4096
    await store.put_content(DIGESTS[0], BODIES[0], "")
    assert _read(store, DIGESTS[0]) == BODIES[0]


async def test_content_that_the_disk_cannot_read_is_removed(
    open_store: OpenStore, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bad sector is a broken file."""
    store = await _filled(open_store)
    clock.now_s += ALL_AGAIN_S + 1
    first = Layout(store.directory).content(DIGESTS[0])
    pread = os.pread

    def bad_sector(fd: int, length: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{fd}").readlink() == first:
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, length, offset)

    with monkeypatch.context() as broken:
        broken.setattr(os, "pread", bad_sector)
        await _scrub(store, clock).round()

    assert [_read(store, digest) for digest in DIGESTS] == [None, *BODIES[1:]]
    assert "Input/output error" in caplog.text


async def test_a_process_without_descriptors_breaks_no_content(
    open_store: OpenStore, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails for a reason of the process says nothing about the file."""
    store = await _filled(open_store)
    clock.now_s += ALL_AGAIN_S + 1

    def no_descriptors(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", no_descriptors)
        with pytest.raises(Exception, match="Too many open files"):
            await _scrub(store, clock).round()

    assert [_read(store, digest) for digest in DIGESTS] == BODIES


async def test_a_row_whose_file_somebody_removed_goes(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """The cap is not held by content that is not there."""
    store = await _filled(open_store)
    Layout(store.directory).content(DIGESTS[0]).unlink()
    clock.now_s += ALL_AGAIN_S + 1

    await _scrub(store, clock).round()

    assert store.usage.content_bytes == 3 * 4096


async def test_a_row_with_a_spoiled_key_goes(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """Damage that SQLite does not see: it stops neither the verification nor what comes after a crash."""
    store = await _filled(open_store)
    ledger = store._ledger
    assert ledger is not None
    spoil = "UPDATE Cache SET key = 'content:sha256:?' WHERE key = ?"
    ledger._thread.submit(lambda: ledger._index._sql(spoil, (f"content:{DIGESTS[0]}",))).result()
    clock.now_s += ALL_AGAIN_S + 1

    await _scrub(store, clock).round()

    assert ledger.known_content() == {f"content:{digest}" for digest in DIGESTS[1:]}


async def test_content_stored_anew_while_the_broken_file_is_hashed_stays(
    open_store: OpenStore, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict over the old file does not hit the new one."""
    store = await _filled(open_store)
    path = Layout(store.directory).content(DIGESTS[0])
    path.write_bytes(b"spoiled")
    clock.now_s += READ_AGAIN_S + 1
    _read(store, DIGESTS[0])
    scrubbing = _scrub(store, clock)
    hash_all = scrubbing._hash

    async def replaced_meanwhile(digest: Digest) -> str:
        hexdigest = await hash_all(digest)
        (path.parent / "new").write_bytes(BODIES[0])
        (path.parent / "new").rename(path)
        return hexdigest

    monkeypatch.setattr(scrubbing, "_hash", replaced_meanwhile)
    await scrubbing.round()

    assert _read(store, DIGESTS[0]) == BODIES[0]


async def test_the_rate_is_bounded(
    open_store: OpenStore, clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each step it pauses for the time that the step may take; so a terabyte is not read in one go."""
    store = open_store()
    body = bytes(3_500_000)
    await store.put_content(Digest.of(body), body, "")
    clock.now_s += ALL_AGAIN_S + 1
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(delay_s: float) -> None:
        pauses.append(delay_s)
        await sleep(0)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", noted)
        await _scrub(store, clock, Pace(bytes_per_s=1000)).round()

    assert len(pauses) == 4
    assert 3_500 - 60 < sum(pauses) <= 3_500


async def test_housekeeping_verifies_what_is_stored(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """The proxy's own task does it, without anything being asked."""
    store = await _filled(open_store)
    store.pace = Pace(bytes_per_s=1e12, look_every_s=0.001)
    Layout(store.directory).content(DIGESTS[3]).write_bytes(b"spoiled")
    clock.now_s += ALL_AGAIN_S + 1

    housekeeping = asyncio.ensure_future(store.housekeeping(interval_s=0.001))
    while _read(store, DIGESTS[3]) is not None:  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(0.001)
    housekeeping.cancel()


async def test_closing_the_store_ends_the_verification_without_a_word(
    open_store: OpenStore, clock: SimpleNamespace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop is no fault of the disk."""
    store = await _filled(open_store)
    clock.now_s += ALL_AGAIN_S + 1
    scrubbing = _scrub(store, clock, Pace(look_every_s=0))

    async def closed_meanwhile(digest: Digest) -> str:
        store.close()
        raise StoreError(f"{digest}: the store is closed")

    monkeypatch.setattr(scrubbing, "_hash", closed_meanwhile)
    await scrubbing.run(lambda: store.is_open)

    assert caplog.text == ""


async def test_a_broken_manifest_is_never_served(open_store: OpenStore, caplog: pytest.LogCaptureFixture) -> None:
    """It is small: it is hashed whenever it is read from the disk, removed when it is wrong, and stored anew."""
    store = await _filled(open_store)
    await store.put_content(DIGESTS[0], BODIES[0], "application/json")
    Layout(store.directory).content(DIGESTS[0]).write_bytes(b"x" * len(BODIES[0]))

    assert await store.manifest(DIGESTS[0]) is None

    assert f"stored manifest {DIGESTS[0]} is broken" in caplog.text
    await store.put_content(DIGESTS[0], BODIES[0], "application/json")
    manifest = await store.manifest(DIGESTS[0])
    assert manifest is not None
    assert manifest.body == BODIES[0]


async def test_a_blob_that_is_downloaded_is_verified_then(
    open_store: OpenStore, clock: SimpleNamespace, landed: Landed, hashed: list[str]
) -> None:
    """The month begins with the download, and again with each verification."""
    store = open_store()

    async def fetch(ingest: Ingest) -> None:
        await ingest.begin(len(BODIES[1]), None)
        await ingest.write([BODIES[1]])
        await ingest.finish()

    await store.join_or_start(DIGESTS[1], fetch).verified()
    await landed(store, DIGESTS[1])
    scrubbing = _scrub(store, clock)
    rounds = []
    for age_s in (ALL_AGAIN_S - 10, 20, ALL_AGAIN_S - 10, 20):
        clock.now_s += age_s
        rounds.append(await scrubbing.round())

    assert rounds == [0, 1, 0, 1]
    assert hashed == [DIGESTS[1].hex]


async def test_a_false_size_is_made_right(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """One that a file could have, but this one has not."""
    store = await _filled(open_store)
    ledger = store._ledger
    assert ledger is not None
    ledger._thread.submit(lambda: ledger._index._sql("UPDATE Cache SET size = size + 409600")).result()
    clock.now_s += ALL_AGAIN_S + 1

    await _scrub(store, clock).round()

    assert store.usage.content_bytes == 4 * 4096
