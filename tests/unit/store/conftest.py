"""Stores on real directories, a clock that tests turn, and ingests that a test fills by hand."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.ingest import Ingest
from regproxy.store.layout import Layout


@pytest.fixture
def clock() -> SimpleNamespace:
    return SimpleNamespace(now_s=1_700_000_000.0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    prepared = Layout(tmp_path / "cache")
    prepared.prepare()
    return prepared


@pytest.fixture
def open_store(tmp_path: Path, clock: SimpleNamespace) -> Iterator[Callable[..., Store]]:
    """Open a store in `cache`; `cap_bytes`, `inactive_s`, `min_free_bytes` may be given. Closed at the end."""
    stores: list[Store] = []

    def open_one(
        cap_bytes: int = 512 * 1024 * 1024, inactive_s: float = 3600 * 24 * 365 * 100, min_free_bytes: int = 0
    ) -> Store:
        store = Store(tmp_path / "cache", cap_bytes, inactive_s, min_free_bytes, lambda: float(clock.now_s))
        store.open()
        stores.append(store)
        return store

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def hold() -> Callable[[Store, Digest], Awaitable[Ingest]]:
    """Start an ingest whose fetch only waits, so that the test does the fetching itself."""

    async def start(store: Store, digest: Digest) -> Ingest:
        ready = asyncio.Event()

        async def fetch(ingest: Ingest) -> None:
            ready.set()
            await ingest.verified()

        ingest = store.join_or_start(digest, fetch)
        await ready.wait()
        return ingest

    return start


@pytest.fixture
def landed() -> Callable[[Store, Digest], Awaitable[None]]:
    """Wait until an ended ingest is out of the way: committed or put down, and accounted for."""

    async def wait(store: Store, digest: Digest) -> None:
        flights = store._flights
        assert flights is not None
        tasks = [flight.task for flight in flights._aloft if flight.ingest.digest == digest]
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)

    return wait
