"""The records in use of one worker among several: what another one has changed does not count any more."""

from regproxy.oci.digest import Digest
from regproxy.store.crew.stamps import Stamps
from regproxy.store.hot import HotRecords, StoredManifest
from regproxy.store.records import TagKey, TagRecord, content_key

type _Key = Digest | TagKey


class CrewHotRecords(HotRecords):
    """Records with their stamps.

    Whoever reads a record from the index takes its stamp before, and keeps the record with that: what another worker
    has changed meanwhile is kept with a stamp that does not count.
    """

    def __init__(self, stamps: Stamps) -> None:
        super().__init__()
        self._stamps = stamps
        self._marks: dict[_Key, tuple[int, int]] = {}

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._marks.clear()

    def manifest(self, digest: Digest) -> StoredManifest | None:
        """Return a manifest, if it is here."""
        return super().manifest(digest) if self._counts(digest) else None

    def manifest_stamp(self, digest: Digest) -> int:
        """Return with what a manifest may be kept that is read from now on."""
        return self._stamps.current(self._manifest_number(digest))

    def keep_manifest(self, digest: Digest, manifest: StoredManifest, stamp: int) -> None:
        """Keep a manifest that is stored, with the stamp from before it was read."""
        super().keep_manifest(digest, manifest, stamp)
        self._mark(digest, self._manifest_number(digest), stamp)

    def tag(self, key: TagKey) -> TagRecord | None:
        """Return a tag record, if it is here."""
        return super().tag(key) if self._counts(key) else None

    def tag_stamp(self, key: TagKey) -> int:
        """Return with what a tag record may be kept that is read from now on."""
        return self._stamps.current(self._tag_number(key))

    def keep_tag(self, key: TagKey, record: TagRecord, stamp: int) -> None:
        """Keep a tag record that is stored, with the stamp from before it was read, or of its own change."""
        super().keep_tag(key, record, stamp)
        self._mark(key, self._tag_number(key), stamp)

    def _manifest_number(self, digest: Digest) -> int:
        return self._stamps.number(content_key(digest))

    def _tag_number(self, key: TagKey) -> int:
        return self._stamps.number(*tag_parts(key.registry, key.name, key.tag))

    def _counts(self, key: _Key) -> bool:
        mark = self._marks.get(key)
        return mark is not None and self._stamps.current(mark[0]) == mark[1]

    def _mark(self, key: _Key, number: int, stamp: int) -> None:
        self._marks[key] = number, stamp
        # What was pushed out is forgotten now and then.
        if len(self._marks) > 2 * (len(self._manifests) + len(self._tags)) + 100:
            self._marks = {
                key: mark for key, mark in self._marks.items() if key in self._manifests or key in self._tags
            }


def tag_parts(registry: str, name: str, tag: str) -> tuple[str, ...]:
    """Return the parts of the key by which a tag's records are stamped, whatever is accepted."""
    return "tag", registry, name, tag
