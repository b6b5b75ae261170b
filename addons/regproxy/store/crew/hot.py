"""The records in use of one worker among several: what another one has changed does not count any more."""

from collections import OrderedDict

from regproxy.oci.digest import Digest
from regproxy.store.crew.stamps import Stamps
from regproxy.store.hot import HotRecords, StoredManifest
from regproxy.store.records import TagKey, TagRecord, content_key

_MISSED = 10_000

type _Key = Digest | TagKey


class CrewHotRecords(HotRecords):
    """Records with the stamps from before they were read.

    A record is kept only after it was looked for and not found, with the stamp of that moment: who reads the index
    afterwards cannot keep what another worker has changed meanwhile.
    """

    def __init__(self, stamps: Stamps) -> None:
        super().__init__()
        self._stamps = stamps
        self._marks: dict[_Key, tuple[int, int]] = {}
        self._missed: OrderedDict[_Key, tuple[int, int]] = OrderedDict()

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._marks.clear()

    def manifest(self, digest: Digest) -> StoredManifest | None:
        """Return a manifest, if it is here."""
        manifest = super().manifest(digest) if self._counts(digest) else None
        if manifest is None:
            self._miss(digest, content_key(digest))
        return manifest

    def keep_manifest(self, digest: Digest, manifest: StoredManifest) -> None:
        """Keep a manifest that is stored."""
        if self._mark(digest):
            super().keep_manifest(digest, manifest)
            self._forget_marks()

    def tag(self, key: TagKey) -> TagRecord | None:
        """Return a tag record, if it is here."""
        record = super().tag(key) if self._counts(key) else None
        if record is None:
            self._miss(key, *tag_parts(key.registry, key.name, key.tag))
        return record

    def keep_tag(self, key: TagKey, record: TagRecord) -> None:
        """Keep a tag record that is stored."""
        if self._mark(key):
            super().keep_tag(key, record)
            self._forget_marks()

    def _counts(self, key: _Key) -> bool:
        mark = self._marks.get(key)
        return mark is not None and self._stamps.current(mark[0]) == mark[1]

    def _miss(self, key: _Key, *parts: str) -> None:
        if key not in self._missed:  # the oldest stamp is the safe one
            number = self._stamps.number(*parts)
            self._missed[key] = number, self._stamps.current(number)
            if len(self._missed) > _MISSED:
                self._missed.popitem(last=False)

    def _mark(self, key: _Key) -> bool:
        mark = self._missed.pop(key, None)
        if mark is not None:
            self._marks[key] = mark
        return mark is not None

    def _forget_marks(self) -> None:
        """Forget the marks of what was pushed out, now and then."""
        if len(self._marks) > 2 * (len(self._manifests) + len(self._tags)) + 100:
            self._marks = {
                key: mark for key, mark in self._marks.items() if key in self._manifests or key in self._tags
            }


def tag_parts(registry: str, name: str, tag: str) -> tuple[str, ...]:
    """Return the parts of the key by which a tag's records are stamped, whatever is accepted."""
    return "tag", registry, name, tag
