"""What is in memory stays there when a round of housekeeping finds nothing to remove."""

from collections.abc import Callable
from types import SimpleNamespace

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.records import TagKey, TagRecord

BODY = b'{"schemaVersion": 2}'
DIGEST = Digest.of(BODY)
OCI = "application/vnd.oci.image.manifest.v1+json"
KEY = TagKey("quay.io", "team/app", "1.4", (OCI,))


async def _store_an_image(store: Store) -> None:
    await store.put_content(DIGEST, BODY, OCI)
    await store.put_tag_record(KEY, TagRecord(Descriptor(OCI, DIGEST, len(BODY)), 1000.0))
    await store.manifest(DIGEST)


async def test_a_row_that_is_new_is_no_reason_to_forget(
    open_store: Callable[..., Store], clock: SimpleNamespace
) -> None:
    """The housekeeping itself makes the row of a first pull; a kept connection would leave the warm way."""
    clock.now_s = 1000.0
    store = open_store(inactive_s=100)
    await _store_an_image(store)
    store.note_pull("quay.io", "team/app", "1.4")
    entries = store.usage.entries

    await store.tidy()

    assert store.usage.entries > entries
    assert store.recall_tag(KEY) is not None
    assert store.recall_manifest(DIGEST) is not None


async def test_what_has_gone_from_the_index_is_forgotten(
    open_store: Callable[..., Store], clock: SimpleNamespace
) -> None:
    """Memory holds nothing that the index does not hold."""
    clock.now_s = 1000.0
    store = open_store(inactive_s=100)
    await _store_an_image(store)
    clock.now_s = 2000.0

    await store.evict_inactive()

    assert store.recall_tag(KEY) is None
    assert store.recall_manifest(DIGEST) is None
