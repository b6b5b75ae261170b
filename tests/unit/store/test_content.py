"""regproxy.store.content: the store as other rooms see it."""

import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.errors import StoreError, StoreFull
from regproxy.store.ingest import Ingest
from regproxy.store.ledger import Ledger
from regproxy.store.records import TagKey, TagRecord

type OpenStore = Callable[..., Store]
type Landed = Callable[[Store, Digest], Awaitable[None]]
type Hold = Callable[[Store, Digest], Awaitable[Ingest]]

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = Digest.of(MANIFEST)
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
KEY = TagKey("quay.io", "team/app", "v1", ("application/json",))
RECORD = TagRecord(Descriptor(MEDIA_TYPE, DIGEST, len(MANIFEST)), checked_at_s=5.0)


def _read(store: Store, digest: Digest) -> bytes | None:
    stored = store.open_content(digest)
    if stored is None:
        return None
    with stored:
        return os.pread(stored.fileno(), stored.size_bytes + 1, 0)


async def test_a_manifest_comes_back_as_it_was_put(open_store: OpenStore) -> None:
    """Bytes and media type, also after a restart."""
    store = open_store()
    await store.put_content(DIGEST, MANIFEST, MEDIA_TYPE)
    assert (_read(store, DIGEST), await store.media_type(DIGEST)) == (MANIFEST, MEDIA_TYPE)
    store.close()

    again = open_store()

    assert (_read(again, DIGEST), await again.media_type(DIGEST)) == (MANIFEST, MEDIA_TYPE)


async def test_content_that_does_not_hash_to_its_digest_is_refused(open_store: OpenStore) -> None:
    """Nothing wrong is ever under a digest."""
    store = open_store()

    with pytest.raises(ValueError, match=f"not to {DIGEST}"):
        await store.put_content(DIGEST, b"something else", MEDIA_TYPE)

    assert _read(store, DIGEST) is None


async def test_sha512_content_is_content(open_store: OpenStore) -> None:
    """Both registered algorithms name content."""
    store, digest = open_store(), Digest.of(MANIFEST, "sha512")
    await store.put_content(digest, MANIFEST, MEDIA_TYPE)

    assert _read(store, digest) == MANIFEST


def test_unknown_content_is_none(open_store: OpenStore) -> None:
    """A miss is not an error."""
    assert open_store().open_content(DIGEST) is None


async def test_a_hit_needs_no_index(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening content neither reads nor writes SQLite."""
    store = open_store()
    await store.put_content(DIGEST, MANIFEST, MEDIA_TYPE)

    def forbidden(*_: object) -> None:
        raise AssertionError("the hot path went to the index")

    monkeypatch.setattr(Ledger, "_step", forbidden)
    assert _read(store, DIGEST) == MANIFEST
    monkeypatch.undo()


async def test_content_that_cannot_be_opened_is_a_store_error(open_store: OpenStore, tmp_path: Path) -> None:
    """A link instead of a file is not followed."""
    store = open_store()
    await store.put_content(DIGEST, MANIFEST, MEDIA_TYPE)
    path = tmp_path / "cache" / "content" / "sha256" / DIGEST.hex[:2] / DIGEST.hex
    path.unlink()
    path.symlink_to("/etc/hostname")

    with pytest.raises(StoreError, match="cannot open"):
        store.open_content(DIGEST)


async def test_eviction_takes_nothing_from_a_reader(open_store: OpenStore) -> None:
    """The file that is open stays readable to its end."""
    store = open_store(cap_bytes=1024 * 1024)
    body = os.urandom(600_000)
    await store.put_content(Digest.of(body), body, "")
    reader = store.open_content(Digest.of(body))
    assert reader is not None

    other = os.urandom(600_000)
    await store.put_content(Digest.of(other), other, "")

    assert _read(store, Digest.of(body)) is None
    with reader:
        assert os.pread(reader.fileno(), reader.size_bytes, 0) == body


async def test_a_reader_of_an_ingest_keeps_it_over_commit_and_eviction(
    open_store: OpenStore, hold: Hold, landed: Landed
) -> None:
    """Also one that opens the file only after it is gone from the directory."""
    store, body = open_store(cap_bytes=1024 * 1024), os.urandom(600_000)
    ingest = await hold(store, Digest.of(body))
    await ingest.begin(len(body), None)
    await ingest.write([body])
    await ingest.finish()
    await landed(store, ingest.digest)
    other = os.urandom(600_000)
    await store.put_content(Digest.of(other), other, "")
    assert _read(store, ingest.digest) is None

    fd = ingest.open()

    assert os.pread(fd, len(body), 0) == body
    os.close(fd)


async def test_hits_decide_who_is_evicted(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """Least recently used goes first, also when the hits were never flushed, and after a restart."""
    store = open_store(cap_bytes=1024 * 1024)
    bodies = [os.urandom(250_000) for _ in range(4)]
    digests = [Digest.of(body) for body in bodies]
    for digest, body in zip(digests[:3], bodies[:3], strict=True):
        clock.now_s += 1
        await store.put_content(digest, body, "")
    clock.now_s += 1
    _read(store, digests[0])
    store.close()

    again = open_store(cap_bytes=1024 * 1024)
    clock.now_s += 1
    _read(again, digests[2])
    await again.put_content(digests[3], bodies[3], "")

    assert [_read(again, digest) is not None for digest in digests] == [True, False, True, True]


async def test_content_unused_for_the_inactive_time_goes(open_store: OpenStore, clock: SimpleNamespace) -> None:
    """What was read meanwhile stays, a tag record too."""
    store = open_store(inactive_s=100)
    used, unused = b"used", b"unused"
    await store.put_content(Digest.of(used), used, "")
    await store.put_content(Digest.of(unused), unused, "")
    await store.put_tag_record(KEY, RECORD)
    clock.now_s += 60
    _read(store, Digest.of(used))
    await store.tag_record(KEY)
    clock.now_s += 60

    await store.evict_inactive()

    assert _read(store, Digest.of(used)) == used
    assert _read(store, Digest.of(unused)) is None
    assert await store.tag_record(KEY) == RECORD
    clock.now_s += 101
    await store.evict_inactive()
    assert await store.tag_record(KEY) is None
    assert store.usage.entries == 0


async def test_tag_records_are_kept_per_accept_and_forgotten_together(open_store: OpenStore) -> None:
    """A push makes the proxy forget every variant of the tag, and only that tag."""
    store = open_store()
    docker = TagKey(KEY.registry, KEY.name, KEY.tag, ("application/docker",))
    other_tag = TagKey(KEY.registry, KEY.name, "v1.1", KEY.accepted)
    for key in (KEY, docker, other_tag):
        await store.put_tag_record(key, RECORD)

    await store.forget_tag(KEY.registry, KEY.name, KEY.tag)

    assert [await store.tag_record(key) for key in (KEY, docker, other_tag)] == [None, None, RECORD]


async def test_a_broken_tag_record_is_as_good_as_none(open_store: OpenStore, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and the tag is asked for upstream."""
    store = open_store()
    assert store._ledger is not None
    await store._ledger.put_text(KEY, "{")

    with caplog.at_level(logging.WARNING):
        assert await store.tag_record(KEY) is None

    assert "tag:quay.io/team/app:v1" in caplog.text


def test_a_directory_that_cannot_be_used_is_said_in_one_sentence(tmp_path: Path) -> None:
    """With the directory, the user, and the remedy."""
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "cache", 1, 1.0)

    with pytest.raises(StoreError, match=rf"{tmp_path}/file/cache cannot be created or written by uid \d+ .*mount"):
        store.open()


def test_making_a_store_touches_no_disk(tmp_path: Path) -> None:
    """Only open does."""
    Store(tmp_path / "cache", 1, 1.0)

    assert not (tmp_path / "cache").exists()


async def test_a_closed_store_says_so(open_store: OpenStore) -> None:
    """Every method raises StoreError, and closing again is fine."""
    store = open_store()
    store.close()
    store.close()

    for call in (store.put_content(DIGEST, MANIFEST, ""), store.media_type(DIGEST), store.tag_record(KEY)):
        with pytest.raises(StoreError, match="is not open"):
            await call
    with pytest.raises(StoreError, match="is not open"):
        store.open_content(DIGEST)
    with pytest.raises(StoreError, match="is not open"):
        _ = store.usage


async def test_an_idle_partial_file_goes_before_content_when_room_is_needed(
    open_store: OpenStore, hold: Hold, landed: Landed
) -> None:
    """A broken download does not push out what is used."""
    store = open_store(cap_bytes=1024 * 1024)
    await store.put_content(DIGEST, MANIFEST, MEDIA_TYPE)
    body = os.urandom(500_000)
    ingest = await hold(store, Digest.of(body))
    await ingest.begin(len(body), None)
    await ingest.write([body[:400_000]])
    ingest.fail(StoreError("broke"))
    await landed(store, ingest.digest)
    assert store.usage.partial_bytes > 0

    other = os.urandom(700_000)
    await store.put_content(Digest.of(other), other, "")

    assert store.usage.partial_bytes == 0
    assert _read(store, DIGEST) == MANIFEST


async def test_what_is_larger_than_the_cap_is_full_and_costs_nothing(open_store: OpenStore) -> None:
    """StoreFull, and everything that was there stays."""
    store = open_store(cap_bytes=1024 * 1024)
    await store.put_content(DIGEST, MANIFEST, MEDIA_TYPE)

    with pytest.raises(StoreFull):
        await store.put_content(Digest.of(bytes(2_000_000)), bytes(2_000_000), "")

    assert _read(store, DIGEST) == MANIFEST


async def test_housekeeping_reconciles_flushes_and_beats(open_store: OpenStore) -> None:
    """One round does all that is due."""
    store = open_store()
    await store.put_content(DIGEST, MANIFEST, MEDIA_TYPE)
    heartbeat = store.directory / "running"
    store.close()
    heartbeat.touch()
    again = open_store()
    assert _read(again, DIGEST) is None
    os.utime(heartbeat, (5.0, 5.0))

    await again.tidy()

    assert _read(again, DIGEST) == MANIFEST
    assert heartbeat.stat().st_mtime > time.time() - 1000


async def test_housekeeping_says_an_error_once_and_goes_on(
    open_store: OpenStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is gone is one line in the log, not six a minute."""
    store, rounds = open_store(), iter(range(5))

    async def broken() -> None:
        if next(rounds, None) is None:
            store.close()
        raise StoreError("disk is gone")

    monkeypatch.setattr(store, "tidy", broken)
    with caplog.at_level(logging.ERROR):
        await store.housekeeping(interval_s=0)

    assert caplog.text.count("disk is gone") == 1


async def test_stored_content_that_is_not_closed_is_a_warning(open_store: OpenStore) -> None:
    """A leak of descriptors is found by the tests and not by the operator."""
    store = open_store()
    await store.put_content(DIGEST, MANIFEST, MEDIA_TYPE)
    stored = store.open_content(DIGEST)
    assert stored is not None
    fd = stored.fileno()

    with pytest.warns(ResourceWarning, match="was not closed"):
        del stored

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
