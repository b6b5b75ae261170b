"""regproxy.store.ingest on real files: what readers see while content arrives, and how it ends."""

import asyncio
import json
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.errors import DigestMismatch, IngestFailed, StoreError, StoreFull
from regproxy.store.growing import HOLD_BACK_BYTES
from regproxy.store.ingest import Ingest, IngestState

type Hold = Callable[[Store, Digest], Awaitable[Ingest]]
type Landed = Callable[[Store, Digest], Awaitable[None]]
type OpenStore = Callable[..., Store]

BODY = random.Random(7).randbytes(200_000)  # noqa: S311 - not a secret
DIGEST = Digest.of(BODY)


def _partial_files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "partial").iterdir())


def _stored(store: Store, digest: Digest) -> bytes | None:
    stored = store.open_content(digest)
    if stored is None:
        return None
    with stored:
        return os.pread(stored.fileno(), stored.size_bytes, 0)


async def _turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


async def _read_all(ingest: Ingest) -> bytes:
    """Read like a client: as far as released, until the size is reached."""
    size_bytes, body = await ingest.size(), b""
    fd = ingest.open()
    try:
        while len(body) < size_bytes:
            end = await ingest.released(len(body))
            body += os.pread(fd, end - len(body), len(body))
    finally:
        os.close(fd)
    return body


async def test_first_bytes_are_readable_long_before_the_end(open_store: OpenStore, hold: Hold) -> None:
    """A client does not wait for the download."""
    ingest = await hold(open_store(), DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY[:1000]])

    assert await ingest.size() == len(BODY)
    assert await ingest.released(0) == 1000
    fd = ingest.open()
    assert os.pread(fd, 1000, 0) == BODY[:1000]
    os.close(fd)


async def test_the_end_is_held_back_until_the_content_is_verified(open_store: OpenStore, hold: Hold) -> None:
    """With every byte there, nobody can complete the blob before its digest is right."""
    ingest = await hold(open_store(), DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY])

    assert await ingest.released(0) == len(BODY) - HOLD_BACK_BYTES
    more = asyncio.ensure_future(ingest.released(len(BODY) - HOLD_BACK_BYTES))
    await _turns()
    assert not more.done()

    await ingest.finish()
    assert await more == len(BODY)


@pytest.mark.parametrize("size_bytes", [0, 1, HOLD_BACK_BYTES - 1, HOLD_BACK_BYTES])
async def test_of_a_small_blob_nothing_is_readable_before_it_is_verified(
    open_store: OpenStore, hold: Hold, size_bytes: int
) -> None:
    """At least one byte is always held back; a blob of no bytes has nothing to hold."""
    body = BODY[:size_bytes]
    ingest = await hold(open_store(), Digest.of(body))
    await ingest.begin(size_bytes, None)
    await ingest.write([body])
    early = asyncio.ensure_future(ingest.released(0))
    await _turns()
    assert not early.done()

    await ingest.finish()

    assert await early == size_bytes
    assert await _read_all(ingest) == body


async def test_verified_content_is_stored_and_its_partial_file_gone(
    open_store: OpenStore, hold: Hold, landed: Landed, tmp_path: Path
) -> None:
    """The file was renamed: the reader's open file is the stored one."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), None)
    fd = ingest.open()
    await ingest.write([BODY])
    await ingest.finish()
    await landed(store, DIGEST)

    stored = store.open_content(DIGEST)

    assert stored is not None
    with stored:
        assert os.fstat(stored.fileno()).st_ino == os.fstat(fd).st_ino
    assert _stored(store, DIGEST) == BODY
    assert _partial_files(tmp_path) == []
    os.close(fd)


async def test_committing_evicts_nobody(open_store: OpenStore, hold: Hold, landed: Landed) -> None:
    """The room was made when it began: a file is never counted as partial and as content at once."""
    store = open_store(cap_bytes=1024 * 1024)
    other, body = os.urandom(400_000), os.urandom(400_000)
    await store.put_content(Digest.of(other), other, "")
    ingest = await hold(store, Digest.of(body))
    await ingest.begin(len(body), None)
    await ingest.write([body])
    await ingest.finish()
    await landed(store, ingest.digest)

    assert (_stored(store, Digest.of(other)), _stored(store, Digest.of(body))) == (other, body)


async def test_a_mismatch_fails_every_reader_alike_and_stores_nothing(
    open_store: OpenStore, hold: Hold, landed: Landed, tmp_path: Path
) -> None:
    """All get the same exception, no content and no partial file stay, and the next request starts clean."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    readers = [asyncio.ensure_future(_read_all(ingest)) for _ in range(3)]
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY[:-1], b"?"])

    with pytest.raises(DigestMismatch) as raised:
        await ingest.finish()

    outcomes = await asyncio.gather(*readers, return_exceptions=True)
    assert all(outcome is raised.value for outcome in outcomes)
    await landed(store, DIGEST)
    assert store.open_content(DIGEST) is None
    assert _partial_files(tmp_path) == []
    assert store.usage.partial_bytes == 0
    again = await hold(store, DIGEST)
    assert (again.missing_from(), again.size_bytes) == (0, None)


async def test_a_refusal_reaches_the_readers_as_the_very_object(open_store: OpenStore, hold: Hold) -> None:
    """The status and body of the upstream's refusal travel in the exception of the fetch."""

    class RefusedError(Exception):
        status = 404

    ingest = await hold(open_store(), DIGEST)
    refusal = RefusedError("not found")
    waiting = [asyncio.ensure_future(ingest.size()), asyncio.ensure_future(ingest.released(0))]
    await asyncio.sleep(0)

    ingest.fail(refusal)

    assert await asyncio.gather(*waiting, return_exceptions=True) == [refusal, refusal]
    with pytest.raises(RefusedError):
        await ingest.size()
    with pytest.raises(RefusedError):
        ingest.open()


async def test_readers_know_no_size_before_the_upstream_accepted(
    open_store: OpenStore, hold: Hold, landed: Landed
) -> None:
    """Also a resumed download, whose size is known, promises nothing until the upstream has its say."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY[:50_000]])
    ingest.fail(IngestFailed("broke"))
    await landed(store, DIGEST)

    again = await hold(store, DIGEST)
    size = asyncio.ensure_future(again.size())
    await _turns()

    assert again.size_bytes == len(BODY)
    assert not size.done()
    await again.begin(len(BODY), None)
    assert await size == len(BODY)


async def test_without_an_announced_size_everything_waits_for_the_digest(open_store: OpenStore, hold: Hold) -> None:
    """A chunked answer is served when it is verified, with its size."""
    ingest = await hold(open_store(), DIGEST)
    await ingest.begin(None, None)
    size = asyncio.ensure_future(ingest.size())
    await ingest.write([BODY])
    await _turns()
    assert not size.done()

    await ingest.finish()

    assert await size == len(BODY)
    assert await _read_all(ingest) == BODY
    assert ingest.path.parent.parent.joinpath("content", "sha256", DIGEST.hex[:2], DIGEST.hex).stat().st_size == len(
        BODY
    )


async def test_no_room_is_said_before_the_first_byte(open_store: OpenStore, hold: Hold, tmp_path: Path) -> None:
    """Readers get StoreFull while the request can still be forwarded, and the disk is as before."""
    store = open_store(cap_bytes=1024 * 1024)
    ingest = await hold(store, DIGEST)
    size = asyncio.ensure_future(ingest.size())

    with pytest.raises(StoreFull, match="no room for"):
        await ingest.begin(2 * 1024 * 1024, None)

    with pytest.raises(StoreFull):
        await size
    assert _partial_files(tmp_path) == []
    assert store.usage.used_bytes < 200 * 1024


async def test_a_download_that_breaks_is_resumed_where_it_stopped(
    open_store: OpenStore, hold: Hold, landed: Landed
) -> None:
    """The next ingest has the prefix, asks for the rest, and hashes all of it."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), '"v1"')
    await ingest.write([BODY[:123_456]])
    ingest.fail(IngestFailed("connection reset"))
    await landed(store, DIGEST)

    again = await hold(store, DIGEST)

    assert (again.missing_from(), again.etag, again.size_bytes) == (123_456, '"v1"', len(BODY))
    assert again.missing() == ((123_456, len(BODY)),)
    await again.begin(len(BODY), '"v1"')
    await again.write([BODY[123_456:]])
    await again.finish()
    assert await _read_all(again) == BODY


async def test_closing_in_the_middle_and_opening_again_resumes(open_store: OpenStore, hold: Hold) -> None:
    """A restart of the proxy costs no byte that has arrived."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY[:100_000]])
    reader = asyncio.ensure_future(ingest.released(150_000))
    await asyncio.sleep(0)

    store.close()

    with pytest.raises(StoreError, match="closing"):
        await reader
    again = await hold(open_store(), DIGEST)
    assert again.missing_from() == 100_000


async def test_after_a_kill_the_sidecar_may_be_behind_the_data(
    open_store: OpenStore, hold: Hold, monkeypatch: pytest.MonkeyPatch, landed: Landed
) -> None:
    """What the last sidecar knew is resumed, what came after it is fetched again, and the content is right."""
    monkeypatch.setattr("regproxy.store.growing.SIDECAR_EVERY_BYTES", 60_000)
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY[:70_000]])
    await ingest.write([BODY[70_000:100_000]])
    # A kill: nothing is put down. Only the lock goes with the process.
    monkeypatch.setattr(Ingest, "put_down", lambda self: self._growing.file.close() or 0)
    store.close()
    monkeypatch.undo()

    again_store = open_store()
    assert again_store.usage.partial_bytes >= len(BODY)
    again = await hold(again_store, DIGEST)
    assert again.missing_from() == 70_000
    await again.begin(len(BODY), None)
    await again.write([BODY[70_000:]])
    await again.finish()
    await landed(again_store, DIGEST)
    assert _stored(again_store, DIGEST) == BODY


async def test_a_wrong_resumed_prefix_is_found_out(
    open_store: OpenStore, hold: Hold, landed: Landed, tmp_path: Path
) -> None:
    """The digest covers what an earlier run left, too: after a power loss it may be zeros."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY[:100_000]])
    ingest.fail(IngestFailed("broke"))
    await landed(store, DIGEST)
    with ingest.path.open("r+b") as spoiled:
        spoiled.write(bytes(100))

    again = await hold(store, DIGEST)
    await again.begin(len(BODY), None)
    await again.write([BODY[100_000:]])
    with pytest.raises(DigestMismatch):
        await again.finish()

    assert _partial_files(tmp_path) == []


async def test_an_upstream_that_ignores_ranges_is_written_from_the_start(
    open_store: OpenStore, hold: Hold, landed: Landed
) -> None:
    """A whole body on top of a resumed prefix ends in the right content."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY[:100_000]])
    ingest.fail(IngestFailed("broke"))
    await landed(store, DIGEST)

    again = await hold(store, DIGEST)
    await again.begin(len(BODY), None)
    for offset in range(0, len(BODY), 30_000):
        await again.write_at(offset, [BODY[offset : offset + 30_000]])
    await again.finish()

    assert await _read_all(again) == BODY


async def test_ranged_writers_fill_one_blob(open_store: OpenStore, hold: Hold) -> None:
    """Readers see the prefix without a hole, whatever arrives behind it."""
    ingest = await hold(open_store(), DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write_at(100_000, [BODY[100_000:]])
    assert (ingest.contiguous_bytes, ingest.missing()) == (0, ((0, 100_000),))

    await ingest.write_at(0, [BODY[:100_000]])

    assert ingest.contiguous_bytes == len(BODY)
    await ingest.finish()
    assert await _read_all(ingest) == BODY


async def test_a_size_that_changes_before_anyone_knew_it_starts_over(
    open_store: OpenStore, hold: Hold, landed: Landed
) -> None:
    """What an earlier run left under another size is worth nothing."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY) + 5, None)
    await ingest.write([BODY[:50_000]])
    ingest.fail(IngestFailed("broke"))
    await landed(store, DIGEST)

    again = await hold(store, DIGEST)
    assert again.missing_from() == 50_000
    await again.begin(len(BODY), None)
    assert again.missing_from() == 0
    await again.write([BODY])
    await again.finish()
    assert await _read_all(again) == BODY


async def test_a_size_that_changes_after_readers_know_it_is_fatal(
    open_store: OpenStore, hold: Hold, tmp_path: Path
) -> None:
    """A Content-Length cannot be taken back."""
    ingest = await hold(open_store(), DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.size()

    with pytest.raises(IngestFailed, match=f"said {len(BODY)} bytes, now 7"):
        await ingest.begin(7, None)

    assert _partial_files(tmp_path) == []


async def test_beginning_again_with_the_same_size_goes_on(open_store: OpenStore, hold: Hold) -> None:
    """A fetch calls begin for each answer of the upstream."""
    ingest = await hold(open_store(), DIGEST)
    await ingest.begin(len(BODY), '"a"')
    await ingest.write([BODY[:10]])
    await ingest.begin(len(BODY), '"b"')

    assert (ingest.contiguous_bytes, ingest.etag) == (10, '"b"')


async def test_more_bytes_than_announced_fail(open_store: OpenStore, hold: Hold) -> None:
    """The file never grows over what was reserved."""
    ingest = await hold(open_store(), DIGEST)
    await ingest.begin(10, None)

    with pytest.raises(IngestFailed, match="more than the 10 bytes"):
        await ingest.write([b"x" * 11])

    assert ingest.state is IngestState.FAILED


async def test_finishing_with_bytes_missing_fails_and_keeps_them(
    open_store: OpenStore, hold: Hold, landed: Landed
) -> None:
    """A clean end of a short answer is not an end."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY[:-1]])

    with pytest.raises(IngestFailed, match=f"ended after {len(BODY) - 1} of {len(BODY)} bytes"):
        await ingest.finish()

    await landed(store, DIGEST)
    assert (await hold(store, DIGEST)).missing_from() == len(BODY) - 1


async def test_finishing_over_a_hole_fails(open_store: OpenStore, hold: Hold) -> None:
    """An unknown size does not hide that something in the middle is missing."""
    ingest = await hold(open_store(), DIGEST)
    await ingest.begin(None, None)
    await ingest.write_at(0, [b"x"])
    await ingest.write_at(2, [b"x"])

    with pytest.raises(IngestFailed, match="ended after 1 of unknown bytes"):
        await ingest.finish()


@pytest.mark.parametrize("call", ["write", "finish"])
async def test_nothing_is_written_before_begin(open_store: OpenStore, hold: Hold, call: str) -> None:
    """Space is claimed first."""
    ingest = await hold(open_store(), DIGEST)

    with pytest.raises(StoreError, match="has not begun"):
        await (ingest.write([b"x"]) if call == "write" else ingest.finish())


async def test_nothing_is_written_after_the_end(open_store: OpenStore, hold: Hold) -> None:
    """Verified content is not touched any more."""
    ingest = await hold(open_store(), DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY])
    await ingest.finish()

    with pytest.raises(StoreError, match="is finished"):
        await ingest.write_at(0, [b"x"])
    ingest.fail(IngestFailed("too late"))
    await ingest.verified()


async def test_content_that_cannot_be_stored_is_still_served(
    open_store: OpenStore, hold: Hold, monkeypatch: pytest.MonkeyPatch, landed: Landed
) -> None:
    """Only the fetch hears that the commit failed; readers get every byte."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), None)
    await ingest.write([BODY])

    def broken_rename(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "rename", broken_rename)
    with pytest.raises(StoreError, match="cannot store content"):
        await ingest.finish()
    monkeypatch.undo()

    await landed(store, DIGEST)
    assert await _read_all(ingest) == BODY
    assert store.open_content(DIGEST) is None


async def test_the_sidecar_says_what_is_needed_to_go_on(
    open_store: OpenStore, hold: Hold, landed: Landed, tmp_path: Path
) -> None:
    """Size, entity tag and byte intervals, in JSON that an operator can read."""
    store = open_store()
    ingest = await hold(store, DIGEST)
    await ingest.begin(len(BODY), '"v1"')
    await ingest.write_at(0, [BODY[:10]])
    await ingest.write_at(20, [BODY[20:30]])
    ingest.fail(IngestFailed("broke"))
    await landed(store, DIGEST)

    sidecar = tmp_path / "cache" / "partial" / f"sha256-{DIGEST.hex}.json"
    assert json.loads(sidecar.read_text()) == {
        "size_bytes": len(BODY),
        "etag": '"v1"',
        "intervals": [[0, 10], [20, 30]],
    }
