"""regproxy.store.growing: no byte twice, the hash follows the prefix, what runs can be stopped."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.digest import Digest
from regproxy.store import growing as growing_module
from regproxy.store.errors import StoreError, StoreFull
from regproxy.store.growing import HOLD_BACK_BYTES, GrowingFile, _cut, submit
from regproxy.store.intervals import Intervals
from regproxy.store.layout import Layout
from regproxy.store.partial import PartialFile


@dataclass
class AHome:
    """As much of a store as a growing file needs."""

    layout: Layout
    write_pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))
    hash_pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    reserved: list[int] = field(default_factory=list)

    async def reserve(self, _: Digest, total_bytes: int) -> None:
        """There is always room."""
        self.reserved.append(total_bytes)

    async def commit(self, _: Digest, partial: PartialFile) -> None:
        """Keep nothing."""
        partial.close(readable=True)


BODY = random.Random(7).randbytes(300_000)  # noqa: S311 - not a secret


@dataclass
class Grown:
    """A growing file with what it reported."""

    home: AHome
    errors: list[Exception] = field(default_factory=list)
    growths: int = 0

    def __post_init__(self) -> None:
        self.file = GrowingFile(Digest.of(BODY), self.home, self._grew, self.errors.append)

    def _grew(self) -> None:
        self.growths += 1


@pytest.fixture
async def grown(layout: Layout) -> AsyncIterator[Grown]:
    made = Grown(AHome(layout))
    yield made
    await made.file.stop()
    made.home.write_pool.shutdown()
    made.home.hash_pool.shutdown()
    made.file.put_down(None, None, readable=False)


@given(st.lists(st.binary(max_size=6), max_size=8), st.data())
def test_cutting_chunks_equals_slicing_the_whole(chunks: list[bytes], draw: st.DataObject) -> None:
    """A part of a list of chunks is the same part of their sum."""
    whole = b"".join(chunks)
    start = draw.draw(st.integers(0, len(whole)))
    stop = draw.draw(st.integers(start, len(whole)))

    assert b"".join(_cut(chunks, start, stop)) == whole[start:stop]


async def test_bytes_that_are_there_are_never_overwritten(grown: Grown) -> None:
    """A second writer, wrong or malicious, fills the holes only: what was hashed is what stays."""
    await grown.file.claim_space(10)
    await grown.file.write_at(2, [b"good"])

    await grown.file.write_at(0, [b"evil", b"evilx"])

    assert grown.file.file.path.read_bytes()[:9] == b"evgoodilx"


async def test_bytes_on_their_way_are_never_overwritten(grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers at once cannot race for a byte."""
    await grown.file.claim_space(8)
    gate, write = threading.Event(), PartialFile.write

    def slow_write(self: PartialFile, offset: int, chunks: list[bytes]) -> None:
        gate.wait(10)
        write(self, offset, chunks)

    monkeypatch.setattr(PartialFile, "write", slow_write)
    first = asyncio.ensure_future(grown.file.write_at(0, [b"good"]))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(grown.file.write_at(0, [b"evilevil"]))
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, second)

    assert grown.file.file.path.read_bytes() == b"goodevil"


async def test_a_cancelled_write_counts_when_its_thread_is_done(grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread goes on writing, so the bytes are there: forgetting them would leave a hole nobody fills."""
    await grown.file.claim_space(4)
    gate, write = threading.Event(), PartialFile.write

    def slow_write(self: PartialFile, offset: int, chunks: list[bytes]) -> None:
        gate.wait(10)
        write(self, offset, chunks)

    monkeypatch.setattr(PartialFile, "write", slow_write)
    writing = asyncio.ensure_future(grown.file.write_at(0, [b"good"]))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert grown.file.filled.prefix_bytes() == 0
    gate.set()
    await grown.file.stop()

    assert grown.file.filled.prefix_bytes() == 4


async def test_pieces_in_any_order_hash_as_the_whole(grown: Grown) -> None:
    """Several ranged writers make one digest."""
    await grown.file.claim_space(len(BODY))
    grown.file.start_verifier()

    await asyncio.gather(
        *(grown.file.write_at(offset, [BODY[offset : offset + 10_000]]) for offset in range(0, len(BODY), 10_000)[::-1])
    )

    assert await grown.file.digest_of_all() == Digest.of(BODY)
    assert grown.growths == 30


async def test_a_failing_write_is_reported_and_raised(grown: Grown) -> None:
    """The writer learns it, and so does whoever watches."""
    await grown.file.claim_space(4)
    grown.file.file.close()

    with pytest.raises(StoreError, match="closed"):
        await grown.file.write_at(0, [b"good"])

    assert [str(error) for error in grown.errors] == [f"{grown.file.file.path} is closed"]


async def test_a_failing_hash_is_reported(grown: Grown) -> None:
    """Content that cannot be read back is not served."""
    await grown.file.claim_space(4)
    await grown.file.write_at(0, [b"good"])
    grown.file.file.truncate(1)
    grown.file.start_verifier()

    await grown.file.digest_of_all()

    assert len(grown.errors) == 1


async def test_the_next_one_may_have_the_file_when_it_was_stopped_while_hashing(
    grown: Grown, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that hashes holds the file, with its lock, until it is done."""
    began, gate = threading.Event(), threading.Event()

    def slow_hash(self: PartialFile, *_: object) -> None:
        with self._in_use():
            began.set()
            gate.wait(10)

    monkeypatch.setattr(PartialFile, "hash_into", slow_hash)
    await grown.file.claim_space(4)
    await grown.file.write_at(0, [b"good"])
    grown.file.start_verifier()
    await asyncio.to_thread(began.wait, 10)
    asyncio.get_running_loop().call_later(0.2, gate.set)
    await grown.file.stop()
    grown.file.put_down(len(BODY), None, readable=False)

    reopened = PartialFile.reopen(layout, Digest.of(BODY))
    assert reopened is not None
    reopened[0].close()


async def test_space_grows_in_steps_when_the_size_is_unknown(grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap is asked a few times and not once per chunk, and a small blob does not push out a large one."""
    monkeypatch.setattr(growing_module, "SMALLEST_STEP_BYTES", 1000)
    monkeypatch.setattr(growing_module, "LARGEST_STEP_BYTES", 3000)

    for end in (1, 999, 1001, 1002, 2004, 2005, 4010, 4011):
        await grown.file.claim_up_to(end)

    assert grown.home.reserved == [1001, 2004, 4010, 7011]


async def test_the_last_bytes_under_the_cap_can_be_claimed(grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a whole step does not fit, what is needed now may."""
    reserved: list[int] = []

    async def reserve(_: Digest, total_bytes: int) -> None:
        if total_bytes > 5000:
            raise StoreFull("no room")
        reserved.append(total_bytes)

    monkeypatch.setattr(grown.home, "reserve", reserve)

    await grown.file.claim_up_to(5000)

    assert reserved == [5000]
    with pytest.raises(StoreFull):
        await grown.file.claim_up_to(5001)


async def test_the_sidecar_never_claims_more_than_is_written(grown: Grown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is recorded every so many bytes, and describes bytes that are in the file."""
    monkeypatch.setattr(growing_module, "SIDECAR_EVERY_BYTES", 100)
    await grown.file.claim_space(len(BODY))
    await grown.file.write_at(0, [BODY[:99]])
    await grown.file.save_if_due(len(BODY), None)
    assert not grown.home.layout.sidecar(Digest.of(BODY)).exists()

    await grown.file.write_at(99, [BODY[99:150]])
    await grown.file.save_if_due(len(BODY), None)

    assert '"intervals": [[0, 150]]' in grown.home.layout.sidecar(Digest.of(BODY)).read_text()


@pytest.mark.parametrize("size_bytes", [len(BODY), None], ids=["complete", "size unknown"])
async def test_leftovers_that_may_be_complete_keep_something_to_ask_for(
    grown: Grown, layout: Layout, size_bytes: int | None
) -> None:
    """A download that broke between the last byte and the commit can still be asked for with a range."""
    await grown.file.claim_space(len(BODY))
    await grown.file.write_at(0, [BODY])
    assert grown.file.put_down(size_bytes, '"e"', readable=False) == len(BODY)
    again = Grown(grown.home).file

    progress = await again.resume()

    assert progress is not None
    assert (progress.size_bytes, progress.etag) == (size_bytes, '"e"')
    assert again.filled == Intervals().add(0, len(BODY) - HOLD_BACK_BYTES)
    again.put_down(None, None, readable=False)
    assert layout.partial(Digest.of(BODY)).stat().st_size == len(BODY) - HOLD_BACK_BYTES


async def test_leftovers_that_cannot_be_believed_are_removed(grown: Grown, layout: Layout) -> None:
    """The file does not stay uncounted on the disk."""
    layout.partial(Digest.of(BODY)).write_bytes(b"no sidecar")

    assert await grown.file.resume() is None
    assert not layout.partial(Digest.of(BODY)).exists()


async def test_putting_down_keeps_what_arrived_and_gives_the_rest_back(grown: Grown, layout: Layout) -> None:
    """An allocated gigabyte does not stay allocated for ten kilobytes."""
    await grown.file.claim_space(len(BODY))
    await grown.file.write_at(0, [BODY[:10_000]])

    assert grown.file.put_down(len(BODY), None, readable=False) == 10_000
    assert layout.partial(Digest.of(BODY)).stat().st_size == 10_000


async def test_putting_down_nothing_leaves_nothing(grown: Grown, layout: Layout) -> None:
    """A download without a byte leaves no file."""
    await grown.file.claim_space(len(BODY))

    assert grown.file.put_down(len(BODY), None, readable=False) == 0
    assert not layout.partial(Digest.of(BODY)).exists()


async def test_a_pool_that_is_shut_down_means_a_closed_store() -> None:
    """The error says so, and is a StoreError."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()

    with pytest.raises(StoreError, match="closed"):
        submit(pool, int)
