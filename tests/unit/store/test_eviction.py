"""regproxy.store.eviction: the cap, the free disk, and who goes first."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.store import eviction
from regproxy.store.accesses import Accesses
from regproxy.store.errors import StoreFull
from regproxy.store.eviction import INDEX_GROWTH_BYTES, Room, Usage
from regproxy.store.index import Index, open_index
from regproxy.store.intervals import Intervals
from regproxy.store.layout import Layout
from regproxy.store.leftovers import Leftover
from regproxy.store.partial import PartialFile, Progress
from regproxy.store.records import content_key

KIB = 1024


@pytest.fixture
def index(layout: Layout) -> Iterator[Index]:
    opened = open_index(layout.directory)
    yield opened
    opened.close()


def _room(layout: Layout, index: Index, cap_bytes: int, min_free_bytes: int = 0) -> Room:
    return Room(layout, index, Accesses(), cap_bytes, min_free_bytes)


def _store(layout: Layout, index: Index, name: bytes, size_bytes: int, at_s: float) -> Digest:
    """Put a file of this size under the digest of its name: nobody looks inside here."""
    digest = Digest.of(name)
    finished = layout.directory / "partial" / "finished"
    finished.write_bytes(bytes(size_bytes))
    index.adopt(content_key(digest), finished, "", at_s)
    return digest


def _leave(layout: Layout, room: Room, name: bytes, size_bytes: int, at_s: float) -> Path:
    digest = Digest.of(name)
    partial = PartialFile(layout, digest, create=True)
    partial.allocate(size_bytes)
    partial.save(Progress(None, None, Intervals()))
    partial.close()
    room.add_leftover(Leftover(digest, size_bytes, at_s))
    return layout.partial(digest)


def _there(layout: Layout) -> set[Digest]:
    return {digest for digest, _ in layout.stored()}


def test_usage_counts_content_partial_files_and_the_index(layout: Layout, index: Index) -> None:
    """The sum is what is held against the cap."""
    room = _room(layout, index, 10**9)
    _store(layout, index, b"a", 100 * KIB, 1.0)
    room.reserve(Digest.of(b"b"), 50 * KIB)
    room.unindexed = {Digest.of(b"c"): 8 * KIB}

    usage = room.usage()

    assert (usage.content_bytes, usage.partial_bytes, usage.entries) == (108 * KIB, 52 * KIB, 1)
    assert usage.index_bytes > 0
    assert usage.used_bytes == usage.content_bytes + usage.partial_bytes + usage.index_bytes


def test_nothing_is_evicted_while_there_is_room(layout: Layout, index: Index) -> None:
    """Content up to the cap stays."""
    room = _room(layout, index, 1000 * KIB)
    kept = {_store(layout, index, name, 100 * KIB, 1.0) for name in (b"a", b"b", b"c")}

    room.make(500 * KIB)

    assert _there(layout) == kept


def test_the_least_recently_accessed_goes_first_and_no_more_than_needed(layout: Layout, index: Index) -> None:
    """Accesses that are still in memory count."""
    accesses = Accesses()
    room = Room(layout, index, accesses, 1000 * KIB, 0)
    first, second, third = (_store(layout, index, bytes([number]), 200 * KIB, float(number)) for number in (1, 2, 3))
    accesses.note(content_key(first), 10.0)

    room.make(400 * KIB)

    assert _there(layout) == {first, third}
    assert second not in _there(layout)


def test_what_can_never_fit_evicts_nothing(layout: Layout, index: Index) -> None:
    """A layer larger than the cap does not cost the whole cache."""
    room = _room(layout, index, 1000 * KIB)
    kept = {_store(layout, index, name, 100 * KIB, 1.0) for name in (b"a", b"b")}

    with pytest.raises(StoreFull, match=r"no room for 1024000 more bytes in .*raise the cap"):
        room.make(1000 * KIB)

    assert _there(layout) == kept


def test_what_is_being_filled_is_not_evicted(layout: Layout, index: Index) -> None:
    """Reservations of running ingests are firm."""
    room = _room(layout, index, 1000 * KIB)
    room.reserve(Digest.of(b"running"), 600 * KIB)

    with pytest.raises(StoreFull):
        room.reserve(Digest.of(b"other"), 600 * KIB)

    assert room.usage().partial_bytes == 600 * KIB


def test_a_reservation_is_replaced_and_not_added(layout: Layout, index: Index) -> None:
    """Growing by steps asks for the difference only."""
    room = _room(layout, index, 1000 * KIB)

    for size_kib in (200, 400, 800, 400):
        room.reserve(Digest.of(b"a"), size_kib * KIB)

    assert room.usage().partial_bytes == 400 * KIB


def test_idle_partial_files_go_before_content_oldest_first(layout: Layout, index: Index) -> None:
    """A download that nobody resumes is worth less than content."""
    room = _room(layout, index, 1000 * KIB)
    content = _store(layout, index, b"content", 200 * KIB, 1.0)
    older, newer = _leave(layout, room, b"older", 200 * KIB, 1.0), _leave(layout, room, b"newer", 200 * KIB, 2.0)

    room.make(400 * KIB)

    assert not older.exists()
    assert newer.exists()
    assert _there(layout) == {content}


def test_a_claimed_partial_file_is_not_idle(layout: Layout, index: Index) -> None:
    """Resuming protects the file; claiming tells whether there is one."""
    room = _room(layout, index, 1000 * KIB)
    path = _leave(layout, room, b"a", 200 * KIB, 1.0)
    content = _store(layout, index, b"content", 400 * KIB, 1.0)

    assert room.claim(Digest.of(b"a"))
    assert not room.claim(Digest.of(b"unknown"))
    room.make(600 * KIB)

    assert path.exists()
    assert content not in _there(layout)


def test_a_settled_ingest_leaves_what_it_kept_as_idle(layout: Layout, index: Index) -> None:
    """The rest of its reservation is given back."""
    room = _room(layout, index, 1000 * KIB)
    room.reserve(Digest.of(b"a"), 600 * KIB)

    room.settle(Digest.of(b"a"), 100 * KIB, 5.0)
    assert room.usage().partial_bytes == 100 * KIB

    room.settle(Digest.of(b"a"), 0, 6.0)
    assert room.usage().partial_bytes == 0


def test_room_is_kept_for_the_growth_of_the_index(layout: Layout, index: Index) -> None:
    """The last 64 KiB under the cap are SQLite's."""
    room = _room(layout, index, 1000 * KIB)
    left_bytes = 1000 * KIB - room.usage().used_bytes

    room.make(left_bytes - INDEX_GROWTH_BYTES)
    with pytest.raises(StoreFull):
        room.make(left_bytes - INDEX_GROWTH_BYTES + 1)


def test_the_free_space_of_others_is_respected(layout: Layout, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content is evicted when the disk fills, whatever the cap."""
    room = _room(layout, index, 10**9, min_free_bytes=500 * KIB)
    first, second = (_store(layout, index, bytes([number]), 200 * KIB, float(number)) for number in (1, 2))
    monkeypatch.setattr(eviction, "free_bytes", lambda _: (800 - 200 * len(_there(layout))) * KIB)

    room.make(100 * KIB)

    assert _there(layout) == {second}
    assert first not in _there(layout)


def test_a_disk_that_frees_late_does_not_empty_the_cache(
    layout: Layout, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round of eviction by size, then StoreFull: a reader may hold the file that was removed."""
    room = _room(layout, index, 10**9, min_free_bytes=500 * KIB)
    for number in range(5):
        _store(layout, index, bytes([number]), 200 * KIB, float(number))
    monkeypatch.setattr(eviction, "free_bytes", lambda _: 450 * KIB)

    with pytest.raises(StoreFull, match="free on the disk"):
        room.make(0)

    assert len(_there(layout)) == 4


def test_free_space_is_what_an_ordinary_user_gets(layout: Layout) -> None:
    """Blocks reserved for root do not count."""
    status = os.statvfs(layout.directory)

    assert eviction.free_bytes(layout) <= status.f_bfree * status.f_frsize


def test_expiry_takes_content_records_and_idle_files_unused_since(layout: Layout, index: Index) -> None:
    """An access in memory keeps content alive."""
    accesses = Accesses()
    room = Room(layout, index, accesses, 10**9, 0)
    old, used, new = (
        _store(layout, index, bytes([number]), 10, at) for number, at in ((1, 10.0), (2, 10.0), (3, 90.0))
    )
    index.put_text("tag:old", "{}", 10.0)
    index.put_text("tag:new", "{}", 90.0)
    gone, kept = _leave(layout, room, b"gone", 10, 10.0), _leave(layout, room, b"kept", 10, 90.0)
    accesses.note(content_key(used), 80.0)

    room.expire(oldest_s=50.0)

    assert _there(layout) == {used, new}
    assert old not in _there(layout)
    assert (index.text("tag:old"), index.text("tag:new")) == (None, "{}")
    assert (gone.exists(), kept.exists()) == (False, True)


def test_usage_is_the_sum_of_its_parts() -> None:
    """Entries are no bytes."""
    assert Usage(content_bytes=1, partial_bytes=20, index_bytes=300, entries=7).used_bytes == 321
