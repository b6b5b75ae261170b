"""The records in memory stay within their bounds and never outlive the index's answer."""

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store import hot
from regproxy.store.hot import HotRecords, StoredManifest
from regproxy.store.records import TagKey, TagRecord

MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"


def manifest(seed: int, size_bytes: int = 1000) -> tuple[Digest, StoredManifest]:
    """Return a manifest with its digest."""
    body = seed.to_bytes(4) * (size_bytes // 4)
    return Digest.of(body), StoredManifest(MEDIA_TYPE, body)


def tag_key(tag: str, accepted: str = MEDIA_TYPE) -> TagKey:
    """Return the key of one tag of one repository."""
    return TagKey("quay.io", "team/app", tag, (accepted,))


RECORD = TagRecord(Descriptor(MEDIA_TYPE, Digest.of(b"{}"), 2), 1.0)


def test_the_least_recently_used_manifest_goes_when_the_bytes_are_used_up() -> None:
    """What was read last stays."""
    records = HotRecords()
    kept = [
        manifest(seed, hot.LARGEST_MANIFEST_BYTES) for seed in range(hot.MANIFESTS_BYTES // hot.LARGEST_MANIFEST_BYTES)
    ]
    for digest, stored in kept:
        records.keep_manifest(digest, stored, hot.ALONE)
    records.manifest(kept[0][0])
    late_digest, late = manifest(9999, hot.LARGEST_MANIFEST_BYTES)
    records.keep_manifest(late_digest, late, hot.ALONE)

    assert records.manifest(kept[0][0]) == kept[0][1]
    assert records.manifest(kept[1][0]) is None
    assert records.manifest(late_digest) == late


def test_a_very_large_manifest_is_left_to_the_disk() -> None:
    """It would push many others out."""
    records = HotRecords()
    digest, stored = manifest(1, hot.LARGEST_MANIFEST_BYTES + 4)
    records.keep_manifest(digest, stored, hot.ALONE)

    assert records.manifest(digest) is None


def test_keeping_the_same_manifest_again_does_not_count_twice() -> None:
    """Otherwise the bound would shrink with every revalidation."""
    records = HotRecords()
    digest, stored = manifest(1)
    for _ in range(3):
        records.keep_manifest(digest, stored, hot.ALONE)
    records.drop_manifest(digest)

    assert records.manifest(digest) is None
    assert records._manifests_bytes == 0


def test_a_forgotten_tag_is_gone_for_all_kinds_of_clients_and_others_stay() -> None:
    """A push moves the tag whatever media types are accepted."""
    records = HotRecords()
    for key in (tag_key("latest"), tag_key("latest", "x/y"), tag_key("v1")):
        records.keep_tag(key, RECORD, hot.ALONE)
    records.drop_tag("quay.io", "team/app", "latest")

    assert records.tag(tag_key("latest")) is None
    assert records.tag(tag_key("latest", "x/y")) is None
    assert records.tag(tag_key("v1")) == RECORD


def test_tag_records_are_bounded() -> None:
    """The oldest one goes."""
    records = HotRecords()
    for number in range(hot.TAG_RECORDS + 1):
        records.keep_tag(tag_key(f"t{number}"), RECORD, hot.ALONE)

    assert records.tag(tag_key("t0")) is None
    assert records.tag(tag_key("t1")) == RECORD
