"""regproxy.store.flights: one fetch per digest, owned by the store."""

import asyncio
import gc
import logging
import random
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.errors import IngestFailed, StoreError
from regproxy.store.flights import Flights
from regproxy.store.ingest import Ingest
from regproxy.store.partial import PartialFile

type OpenStore = Callable[..., Store]
type Landed = Callable[[Store, Digest], Awaitable[None]]

BODY = random.Random(7).randbytes(100_000)  # noqa: S311 - not a secret
DIGEST = Digest.of(BODY)


class Upstream:
    """A fetch that counts how often it runs, and waits where a test wants it to."""

    def __init__(self) -> None:
        self.fetches = 0
        self.half_way = asyncio.Event()
        self.go_on = asyncio.Event()

    async def fetch(self, ingest: Ingest) -> None:
        """Send half, wait, send the rest."""
        self.fetches += 1
        await ingest.begin(len(BODY), None)
        await ingest.write([BODY[:50_000]])
        self.half_way.set()
        await self.go_on.wait()
        await ingest.write([BODY[50_000:]])
        await ingest.finish()


async def test_ten_readers_are_one_fetch(open_store: OpenStore) -> None:
    """Everyone who asks while a download runs shares it."""
    store, upstream = open_store(), Upstream()
    upstream.go_on.set()

    ingests = [store.join_or_start(DIGEST, upstream.fetch) for _ in range(10)]
    await asyncio.gather(*(ingest.verified() for ingest in ingests))

    assert upstream.fetches == 1
    assert len(set(map(id, ingests))) == 1


async def test_a_reader_that_leaves_stops_nothing(open_store: OpenStore, landed: Landed) -> None:
    """The download belongs to the store."""
    store, upstream = open_store(), Upstream()
    ingest = store.join_or_start(DIGEST, upstream.fetch)
    staying, leaving = asyncio.ensure_future(ingest.verified()), asyncio.ensure_future(ingest.released(60_000))
    await upstream.half_way.wait()

    leaving.cancel()
    await asyncio.wait([leaving])
    upstream.go_on.set()
    await staying
    await landed(store, DIGEST)

    stored = store.open_content(DIGEST)
    assert stored is not None
    stored.close()


async def test_a_finished_ingest_leaves_the_table_and_the_next_one_is_new(
    open_store: OpenStore, landed: Landed
) -> None:
    """Content that is evicted later can be fetched again."""
    store, upstream = open_store(), Upstream()
    upstream.go_on.set()
    first = store.join_or_start(DIGEST, upstream.fetch)
    assert store.running(DIGEST) is first
    await landed(store, DIGEST)

    assert store.running(DIGEST) is None
    assert store.join_or_start(DIGEST, upstream.fetch) is not first


async def test_who_asks_right_after_a_failure_gets_a_new_ingest_that_resumes(open_store: OpenStore) -> None:
    """The new fetch waits until the failed one has put its file down."""
    store, upstream = open_store(), Upstream()
    first = store.join_or_start(DIGEST, upstream.fetch)
    await upstream.half_way.wait()
    upstream.go_on.set()
    first.fail(IngestFailed("broke"))
    seen: list[int] = []

    async def go_on(ingest: Ingest) -> None:
        seen.append(ingest.missing_from())
        await ingest.begin(len(BODY), None)
        await ingest.write([BODY[ingest.missing_from() :]])
        await ingest.finish()

    second = store.join_or_start(DIGEST, go_on)

    assert second is not first
    await second.verified()
    assert seen[0] >= 50_000


async def test_an_error_of_the_fetch_reaches_the_readers(open_store: OpenStore) -> None:
    """Whatever it is, it is what they get."""
    error = LookupError("upstream said no")

    async def fetch(_: Ingest) -> None:
        raise error

    ingest = open_store().join_or_start(DIGEST, fetch)

    with pytest.raises(LookupError) as raised:
        await ingest.size()
    assert raised.value is error


async def test_a_fetch_that_ends_without_an_outcome_fails(open_store: OpenStore) -> None:
    """No reader waits for a download that nobody runs."""

    async def fetch(ingest: Ingest) -> None:
        await ingest.begin(len(BODY), None)

    ingest = open_store().join_or_start(DIGEST, fetch)

    with pytest.raises(IngestFailed, match="without an outcome"):
        await ingest.verified()


async def test_a_cancelled_fetch_fails_its_readers(open_store: OpenStore) -> None:
    """Also when the cancelling comes from outside the store."""
    store, upstream = open_store(), Upstream()
    ingest = store.join_or_start(DIGEST, upstream.fetch)
    await upstream.half_way.wait()
    flights = store._flights
    assert flights is not None
    (task,) = (flight.task for flight in flights._aloft)
    assert task is not None
    task.cancel()

    with pytest.raises(IngestFailed, match="was stopped"):
        await ingest.verified()
    await asyncio.wait([task])


async def test_an_ingest_nobody_holds_lets_go_of_its_file_at_once(open_store: OpenStore, landed: Landed) -> None:
    """Evicted content gives its disk space back without waiting for the garbage collector."""
    store, upstream = open_store(), Upstream()
    upstream.go_on.set()
    gc.disable()
    try:
        ingest = weakref.ref(store.join_or_start(DIGEST, upstream.fetch))
        await landed(store, DIGEST)
        await asyncio.sleep(0)

        assert ingest() is None
    finally:
        gc.enable()


async def test_two_digests_are_two_fetches(open_store: OpenStore) -> None:
    """Downloads of different content do not wait for each other."""
    store, upstream, other = open_store(), Upstream(), Digest.of(b"")

    async def fetch_nothing(ingest: Ingest) -> None:
        await ingest.begin(0, None)
        await ingest.finish()

    slow = store.join_or_start(DIGEST, upstream.fetch)
    quick = store.join_or_start(other, fetch_nothing)
    await quick.verified()

    assert not slow.ended


async def test_closing_stops_the_fetch_and_keeps_its_progress(open_store: OpenStore, tmp_path: Path) -> None:
    """Nothing runs afterwards, and nothing is started."""
    store, upstream = open_store(), Upstream()
    ingest = store.join_or_start(DIGEST, upstream.fetch)
    await upstream.half_way.wait()
    flights = store._flights
    assert flights is not None
    (task,) = (flight.task for flight in flights._aloft)

    store.close()

    assert task is not None
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(StoreError, match="closing"):
        await ingest.verified()
    with pytest.raises(StoreError, match="closed"):
        flights.join_or_start(DIGEST, upstream.fetch)
    assert (tmp_path / "cache" / "partial" / f"sha256-{DIGEST.hex}").stat().st_size == 50_000


async def test_progress_that_cannot_be_kept_is_only_a_warning(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, landed: Landed, caplog: pytest.LogCaptureFixture
) -> None:
    """The next request is not blocked by a sidecar that could not be written."""
    store, upstream = open_store(), Upstream()
    ingest = store.join_or_start(DIGEST, upstream.fetch)
    await upstream.half_way.wait()

    def broken(*_: object) -> None:
        raise StoreError("disk is gone")

    monkeypatch.setattr("regproxy.store.partial.PartialFile.save", broken)
    with caplog.at_level(logging.WARNING):
        ingest.fail(IngestFailed("broke"))
        upstream.go_on.set()
        await landed(store, DIGEST)

    assert "disk is gone" in caplog.text
    assert store.running(DIGEST) is None


async def test_a_fetch_that_is_cancelled_while_it_commits_has_committed(
    open_store: OpenStore, landed: Landed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storing is either done or not: the file is never put down under the hands of the index thread."""
    store, upstream, committing = open_store(), Upstream(), asyncio.Event()
    upstream.go_on.set()
    commit = Flights.commit

    async def watched(self: Flights, digest: Digest, partial: PartialFile) -> None:
        committing.set()
        await commit(self, digest, partial)

    monkeypatch.setattr(Flights, "commit", watched)
    store.join_or_start(DIGEST, upstream.fetch)
    await committing.wait()
    flights = store._flights
    assert flights is not None
    (task,) = (flight.task for flight in flights._aloft)
    assert task is not None
    task.cancel()
    await landed(store, DIGEST)

    stored = store.open_content(DIGEST)
    assert stored is not None
    stored.close()
    assert store.usage.partial_bytes == 0
