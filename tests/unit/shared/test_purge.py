"""A purge leaves nothing, however much there is."""

from types import SimpleNamespace

import obstore

from regproxy.oci.digest import Digest
from regproxy.oci.names import Registry
from regproxy.policy.access import Given, Repository
from regproxy.shared.paths import holder_path, tag_path
from regproxy.shared.records import HolderRecord, TagState
from regproxy.store.records import TagKey
from unit.shared.conftest import SEAL, Replica
from unit.shared.shaky_bucket import ShakyBucket
from unit.shared.test_tags import KEY, record

MANY = 150
DIGEST = Digest.of(b"layer")


def fill(bucket: ShakyBucket, at_s: float) -> None:
    """Write what is said of one content and of one tag, as many replicas and clients have it said."""
    for number in range(MANY):
        repository = Repository(Registry("quay.io", 443), f"team/app{number}")
        kind = TagKey(KEY.registry, KEY.name, KEY.tag, (f"application/kind-{number}",))
        for path, text in (
            (holder_path(DIGEST, repository), HolderRecord(repository, Given.TO_OPERATOR).to_json()),
            (tag_path(kind), TagState(record("old", at_s)).to_json()),
        ):
            obstore.put(bucket.memory, path, SEAL.close(path, text))


async def test_it_removes_all_holders_and_all_kinds_of_a_tag(
    replica: Replica, bucket: ShakyBucket, clock: SimpleNamespace
) -> None:
    """More than are listed at once."""
    fill(bucket, clock.now_s)
    assert len(bucket.names()) == 2 * MANY

    assert await replica().purge([(KEY.registry, KEY.name, KEY.tag)], [DIGEST])
    assert bucket.names() == []
