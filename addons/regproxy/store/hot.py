"""The manifests and tag records in use, in memory: what most requests of a busy proxy ask for.

A read of the index costs a trip to its thread; a warm pull asks for the same few records again and again. Bounded in
bytes and entries, least recently used first. It holds nothing that the index does not hold.
"""

from collections import OrderedDict
from dataclasses import dataclass

from regproxy.oci.digest import Digest
from regproxy.store.records import TagKey, TagRecord

MANIFESTS_BYTES = 16 * 1024 * 1024
"""About 5,000 manifests of 3 kB."""

LARGEST_MANIFEST_BYTES = 256 * 1024
"""Larger ones are rare, and a few of them would push all others out."""

TAG_RECORDS = 20_000
"""About 1 kB each."""

ALONE = 0
"""The stamp of all records where no other process changes them."""


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest's bytes and the media type they were stored with."""

    media_type: str
    body: bytes


class HotRecords:
    """Least recently used records; not thread-safe, for the event loop."""

    def __init__(self) -> None:
        self._manifests: OrderedDict[Digest, StoredManifest] = OrderedDict()
        self._manifests_bytes = 0
        self._tags: OrderedDict[TagKey, TagRecord] = OrderedDict()

    def clear(self) -> None:
        """Forget everything."""
        self._manifests.clear()
        self._tags.clear()
        self._manifests_bytes = 0

    def manifest(self, digest: Digest) -> StoredManifest | None:
        """Return a manifest, if it is here."""
        manifest = self._manifests.get(digest)
        if manifest is not None:
            self._manifests.move_to_end(digest)
        return manifest

    def manifest_stamp(self, digest: Digest) -> int:
        """Return with what a manifest may be kept that is read from now on."""
        del digest
        return ALONE

    def keep_manifest(self, digest: Digest, manifest: StoredManifest, stamp: int) -> None:
        """Keep a manifest that is stored, with the stamp from before it was read."""
        del stamp
        if len(manifest.body) > LARGEST_MANIFEST_BYTES:
            return
        self.drop_manifest(digest)
        self._manifests[digest] = manifest
        self._manifests_bytes += len(manifest.body)
        while self._manifests_bytes > MANIFESTS_BYTES:
            _, oldest = self._manifests.popitem(last=False)
            self._manifests_bytes -= len(oldest.body)

    def drop_manifest(self, digest: Digest) -> None:
        """Forget a manifest."""
        manifest = self._manifests.pop(digest, None)
        if manifest is not None:
            self._manifests_bytes -= len(manifest.body)

    def tag(self, key: TagKey) -> TagRecord | None:
        """Return a tag record, if it is here."""
        record = self._tags.get(key)
        if record is not None:
            self._tags.move_to_end(key)
        return record

    def tag_stamp(self, key: TagKey) -> int:
        """Return with what a tag record may be kept that is read from now on."""
        del key
        return ALONE

    def keep_tag(self, key: TagKey, record: TagRecord, stamp: int) -> None:
        """Keep a tag record that is stored, with the stamp from before it was read, or of its own change."""
        del stamp
        self._tags[key] = record
        self._tags.move_to_end(key)
        if len(self._tags) > TAG_RECORDS:
            self._tags.popitem(last=False)

    def drop_tag(self, registry: str, name: str, tag: str) -> None:
        """Forget a tag, for all kinds of clients."""
        for key in [key for key in self._tags if (key.registry, key.name, key.tag) == (registry, name, tag)]:
            del self._tags[key]
