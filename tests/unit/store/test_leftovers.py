"""regproxy.store.leftovers: what of `partial/` survives a restart."""

import os

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.intervals import Intervals
from regproxy.store.layout import Layout
from regproxy.store.leftovers import collect_leftovers, remove_leftover
from regproxy.store.partial import PartialFile, Progress


def _leave(layout: Layout, body: bytes, modified_at_s: float = 1000.0) -> Digest:
    digest = Digest.of(body)
    partial = PartialFile(layout, digest, create=True)
    partial.write(0, [body])
    partial.save(Progress(None, None, Intervals().add(0, len(body))))
    partial.close()
    os.utime(layout.partial(digest), (modified_at_s, modified_at_s))
    return digest


def _names(layout: Layout) -> set[str]:
    return {path.name for path in (layout.directory / "partial").iterdir()}


def test_resumable_files_come_oldest_first_with_what_they_take(layout: Layout) -> None:
    """The order is the order of eviction, the size is that of whole blocks."""
    newer, older = _leave(layout, b"newer", 2000.0), _leave(layout, b"x" * 5000, 1000.0)

    found = collect_leftovers(layout, oldest_s=0.0)

    assert [(leftover.digest, leftover.on_disk_bytes, leftover.modified_at_s) for leftover in found] == [
        (older, 8192, 1000.0),
        (newer, 4096, 2000.0),
    ]


def test_files_allocated_and_not_written_count_in_full(layout: Layout) -> None:
    """A killed download of a gigabyte takes a gigabyte."""
    digest = _leave(layout, b"x")
    partial = PartialFile(layout, digest, create=False)
    partial.allocate(1024 * 1024)
    partial.close()

    assert collect_leftovers(layout, oldest_s=0.0)[0].on_disk_bytes >= 1024 * 1024


@pytest.mark.parametrize("spoil", ["no sidecar", "broken sidecar", "short file", "too old"])
def test_what_cannot_be_resumed_is_removed_with_its_sidecar(layout: Layout, spoil: str) -> None:
    """Nothing stays that nobody will ever use."""
    digest = _leave(layout, b"hello")
    match spoil:
        case "no sidecar":
            layout.sidecar(digest).unlink()
        case "broken sidecar":
            layout.sidecar(digest).write_text("{")
        case "short file":
            os.truncate(layout.partial(digest), 2)
        case _:
            os.utime(layout.partial(digest), (10.0, 10.0))

    assert collect_leftovers(layout, oldest_s=500.0) == []
    assert _names(layout) == set()


def test_drafts_and_scratch_files_of_a_crash_are_removed(layout: Layout) -> None:
    """They are in nobody's accounts."""
    (layout.directory / "partial" / f"sha256-{'a' * 64}.json.new").write_text("{}")
    layout.scratch(Digest.of(b"x")).write_bytes(b"x")

    collect_leftovers(layout, oldest_s=0.0)

    assert _names(layout) == set()


def test_a_file_that_another_process_fills_is_left_alone(layout: Layout) -> None:
    """A second process on the same directory does not cut the first one's download."""
    digest = Digest.of(b"hello")
    filling = PartialFile(layout, digest, create=True)

    assert collect_leftovers(layout, oldest_s=0.0) == []
    assert not remove_leftover(layout, digest)
    assert filling.path.exists()

    filling.close()


def test_removing_takes_the_sidecar_too(layout: Layout) -> None:
    """No sidecar without a file."""
    digest = _leave(layout, b"hello")

    assert remove_leftover(layout, digest)
    assert _names(layout) == set()
