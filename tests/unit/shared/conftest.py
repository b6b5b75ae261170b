"""Replicas with stores on real directories, around one bucket in memory: obstore's, with conditional writes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from obstore.store import MemoryStore

from regproxy.policy.seal import Seal
from regproxy.shared import access, lately, tags
from regproxy.shared.tier import SharedTier
from regproxy.store.content import Store
from unit.shared.shaky_bucket import ShakyBucket

type Replica = Callable[..., SharedTier]

SEAL = Seal(b"a key of all replicas")
ACCESS_TTL_S = 300.0


@pytest.fixture
def bucket() -> ShakyBucket:
    """Return an empty bucket."""
    return ShakyBucket(MemoryStore())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the time that tags and access go by."""
    turned = SimpleNamespace(now_s=1_700_000_000.0)
    for module in (tags, access, lately):
        fake = SimpleNamespace(time=lambda: turned.now_s, monotonic=lambda: turned.now_s)
        monkeypatch.setattr(module, "time", fake)
    return turned


@pytest.fixture
def replica(tmp_path: Path, bucket: ShakyBucket, clock: SimpleNamespace) -> Iterator[Callable[..., SharedTier]]:
    """Yield what makes replicas; the stores are closed at the end."""
    stores: list[Store] = []

    def make(name: str = "", seal: Seal = SEAL) -> SharedTier:
        directory = tmp_path / (name or f"replica-{len(stores)}")
        store = Store(directory, 512 * 1024 * 1024, 1e9, 0, lambda: float(clock.now_s))
        store.open()
        stores.append(store)
        tier = SharedTier(store, bucket, seal, "s3://bucket", ACCESS_TTL_S)
        tier.uploads.open()
        store.access.watcher = tier.access
        return tier

    yield make
    for store in stores:
        store.close()
