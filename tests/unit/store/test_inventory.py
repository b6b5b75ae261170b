"""regproxy.store.inventory: what operators see and may do; pins and sources, which eviction minds."""

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.oci.references import References
from regproxy.store.content import Store
from regproxy.store.errors import StoreFull
from regproxy.store.pins import Pin, Spared, read_pins
from regproxy.store.records import TagKey, TagRecord, content_key
from regproxy.store.sources import Source

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DAY_S = 24 * 3600.0

type OpenStore = Callable[..., Store]


async def put(store: Store, body: bytes, media_type: str = "") -> Digest:
    """Store content under its digest."""
    digest = Digest.of(body)
    await store.put_content(digest, body, media_type)
    return digest


def source(digest: Digest, at_s: float = 0.0) -> Source:
    """Return where a manifest came from."""
    return Source("quay.io:5000", "team/app", digest, at_s, "https://quay.io:5000", "operator")


class TestLook:
    async def test_all_content_is_listed_in_steps(self, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many steps it takes; tag records are not among it."""
        monkeypatch.setattr("regproxy.store.inventory._ROWS_AT_A_TIME", 2)
        store = open_store()
        digests = {await put(store, bytes([number])) for number in range(5)}
        record = TagRecord(Descriptor(MANIFEST, Digest.of(b"m"), 1), 1.0)
        await store.put_tag_record(TagKey("quay.io", "app", "1", ("*/*",)), record)

        contents = await store.inventory.contents()
        assert contents.keys() == digests
        assert {row.size_bytes for row in contents.values()} == {4096}

    async def test_a_use_counts_at_once(self, open_store: OpenStore, clock: SimpleNamespace) -> None:
        """Access times that wait in memory are written before the look."""
        store = open_store()
        digest = await put(store, b"x")
        clock.now_s += 100
        opened = store.open_content(digest)
        assert opened is not None
        opened.close()

        assert (await store.inventory.contents())[digest].used_at_s == clock.now_s

    async def test_names_are_read_back(self, open_store: OpenStore) -> None:
        """Tags and sources, with a port in the registry and slashes in the name."""
        store = open_store()
        digest = await put(store, b"{}", MANIFEST)
        record = TagRecord(Descriptor(MANIFEST, digest, 2), 1.0)
        await store.put_tag_record(TagKey("quay.io:5000", "team/app", "1.0", ("a/b", "c/d")), record)
        await store.inventory.note_source(source(digest))

        (tag,) = await store.inventory.tags()
        assert (tag.registry, tag.name, tag.tag, tag.record) == ("quay.io:5000", "team/app", "1.0", record)
        assert await store.inventory.sources() == [source(digest)]

    async def test_manifests_are_read_and_blobs_are_not(self, open_store: OpenStore) -> None:
        """A blob that looks like a manifest names nothing."""
        store = open_store()
        body = json.dumps({"config": {"digest": str(Digest.of(b"c"))}}).encode()
        manifest, _ = await put(store, body, MANIFEST), await put(store, body + b" ")

        contents = await store.inventory.contents()
        assert await store.inventory.graph(contents.values()) == {manifest: References(blobs=(Digest.of(b"c"),))}


class TestRemove:
    async def test_what_is_removed_is_gone_from_memory_too(self, open_store: OpenStore) -> None:
        """A manifest that was in use is not served from memory; what it took is free."""
        store = open_store()
        digest = await put(store, b"{}", MANIFEST)
        assert await store.manifest(digest) is not None

        await store.inventory.remove([digest])
        assert await store.manifest(digest) is None
        assert store.usage.content_bytes == 0
        assert store.activity.evicted == {"purged": 1}

    async def test_a_flipped_byte_is_removed(self, open_store: OpenStore) -> None:
        """And a sound one is not; what has gone meanwhile is not called wrong."""
        store = open_store()
        sound, broken = await put(store, b"sound"), await put(store, b"broken", MANIFEST)
        await store.manifest(broken)
        path = store.directory / f"content/sha256/{broken.hex[:2]}/{broken.hex}"
        path.chmod(0o600)
        path.write_bytes(b"brokeN")

        assert await store.inventory.verify(sound)
        assert not await store.inventory.verify(broken)
        assert (store.holds(sound), store.holds(broken)) == (True, False)
        assert await store.manifest(broken) is None
        assert await store.inventory.verify(Digest.of(b"never there"))


class TestPins:
    async def test_pinned_content_makes_no_room(self, open_store: OpenStore) -> None:
        """The least recently used goes, but for the pin; when only pinned content is left, there is no room."""
        store = open_store(cap_bytes=1024 * 1024)
        pinned = await put(store, b"p" * 400_000)
        await store.inventory.put_pin(Pin("quay.io/app:1", 1.0, frozenset({pinned})))
        first = await put(store, b"1" * 400_000)
        second = await put(store, b"2" * 400_000)

        assert [store.holds(each) for each in (pinned, first, second)] == [True, False, True]
        with pytest.raises(StoreFull):
            await put(store, b"3" * 700_000)
        assert store.holds(second)
        await store.inventory.drop_pin("quay.io/app:1")
        await put(store, b"3" * 700_000)
        assert not store.holds(pinned)

    async def test_pins_outlive_time_and_the_process(self, open_store: OpenStore, clock: SimpleNamespace) -> None:
        """Content, tag records and the pin itself stay, however long nobody uses them."""
        store = open_store(inactive_s=DAY_S)
        digest, other = await put(store, b"{}", MANIFEST), await put(store, b"other")
        key = TagKey("quay.io", "app", "1", ("*/*",))
        await store.put_tag_record(key, TagRecord(Descriptor(MANIFEST, digest, 2), 1.0))
        await store.put_tag_record(
            TagKey("quay.io", "app", "10", ("*/*",)), TagRecord(Descriptor(MANIFEST, digest, 2), 1.0)
        )
        pin = Pin("quay.io/app:1", clock.now_s, frozenset({digest}), frozenset({"tag:quay.io/app:1|"}))
        await store.inventory.put_pin(pin)
        store.close()
        clock.now_s += 100 * DAY_S
        store = open_store(inactive_s=DAY_S)
        await store.evict_inactive()

        assert (store.holds(digest), store.holds(other)) == (True, False)
        assert [tag.tag for tag in await store.inventory.tags()] == ["1"]
        assert await store.inventory.pins() == [pin]

    def test_a_pin_that_cannot_be_read_has_no_effect(self, caplog: pytest.LogCaptureFixture) -> None:
        """It is said, and the others count."""
        good = Pin("a", 1.0, frozenset({Digest.of(b"x")}))

        assert read_pins(["{}", "nonsense", good.to_json()]) == [good]
        assert caplog.text.count("has no effect") == 2

    def test_a_pin_spares_what_it_names_and_no_more(self) -> None:
        """Records of other tags, and of sources, are not spared by it."""
        spared = Spared.by([Pin("a", 1.0, frozenset({Digest.of(b"x")}), frozenset({"tag:quay.io/app:1|"}))])

        assert content_key(Digest.of(b"x")) in spared
        assert "tag:quay.io/app:1|a/b" in spared
        assert "pin:anything" in spared
        assert content_key(Digest.of(b"y")) not in spared
        assert "tag:quay.io/app:11|a/b" not in spared


class TestSources:
    async def test_a_source_lives_as_long_as_its_content(self, open_store: OpenStore, clock: SimpleNamespace) -> None:
        """Content in use keeps its name; with the content it goes."""
        store = open_store(inactive_s=DAY_S)
        digest = await put(store, b"{}", MANIFEST)
        await store.inventory.note_source(source(digest, clock.now_s))
        for _ in range(3):
            clock.now_s += 0.9 * DAY_S
            assert await store.manifest(digest) is not None
            await store.evict_inactive()
        assert len(await store.inventory.sources()) == 1

        clock.now_s += 1.1 * DAY_S
        await store.evict_inactive()
        assert await store.inventory.sources() == []
