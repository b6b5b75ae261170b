"""Records are of one place in one bucket."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.bucket_address import BucketAddress
from regproxy.policy.seal import Seal
from regproxy.shared.bucket import Bucket
from regproxy.shared.tier import SharedTier
from regproxy.store.content import Store
from unit.shared.test_tags import KEY, record

type Opened = Callable[[str, MemoryStore], SharedTier]

REGISTRY = Registry("quay.io", 443)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Yield what opens a tier at an address as the proxy does, over a bucket in memory."""
    with ExitStack() as stores:

        def open_at(url: str, memory: MemoryStore) -> SharedTier:
            store = Store(tmp_path / f"store-{len(list(tmp_path.iterdir()))}", 512 * 1024 * 1024, 1e9, 0)
            store.open()
            stores.callback(store.close)
            bucket = Bucket(memory, memory)
            monkeypatch.setattr(Bucket, "open", lambda *_: bucket)
            return SharedTier.open(store, BucketAddress.parse(url), "k" * 32, 300.0, None)

        yield open_at


def copied(memory: MemoryStore) -> MemoryStore:
    """Return a bucket with the same objects."""
    copy = MemoryStore()
    for page in obstore.list(memory):
        for entry in page:
            obstore.put(copy, entry["path"], obstore.get(memory, entry["path"]).bytes())
    return copy


@pytest.mark.parametrize("elsewhere", ["s3://bucket/staging", "s3://other/prod", "s3://bucket"])
async def test_what_was_copied_from_another_place_is_not_believed(opened: Opened, elsewhere: str) -> None:
    """One STORE_KEY for two caches: what one of them says of its clients' rights is not the other's; it is replaced."""
    memory = MemoryStore()
    first = opened("s3://bucket/prod?endpoint=http://inside", memory)
    first.tags.remember(KEY, record("here", 1000.0))
    first.access.challenged(REGISTRY, "Bearer")
    await first.idle()
    same, other = opened("s3://bucket/prod", memory), opened(elsewhere, copied(memory))

    assert await same.tags.newer(KEY, None) == record("here", 1000.0)
    assert await same.access.challenge(REGISTRY) == "Bearer"
    assert await other.tags.newer(KEY, None) is None
    assert await other.access.challenge(REGISTRY) is None
    other.tags.remember(KEY, record("there", 2000.0))
    await other.idle()
    assert await other.tags.newer(KEY, None) == record("there", 2000.0)


async def test_records_under_the_first_form_of_the_seal_count_as_not_there(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing fails for them, and a content is described again."""
    memory = MemoryStore()
    with monkeypatch.context() as before:
        before.setattr(Seal, "of_secret", classmethod(lambda cls, *_: cls(b"a key without a place")))
        old = opened("s3://bucket/prod", memory)
    digest = Digest.of(b"content")
    for tier in (old, opened("s3://bucket/prod", memory)):
        assert await tier.content.about(digest) is None
        await tier.store.put_content(digest, b"content", "")
        tier.uploads.add(digest, "")
        await tier.uploads.hurry(digest)
        await tier.idle()
        assert await tier.content.about(digest) is not None
    assert await old.content.about(digest) is None
