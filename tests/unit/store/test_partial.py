"""regproxy.store.partial: one file that is written at offsets, hashed, and resumed."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.digest import Digest
from regproxy.store.errors import StoreError, StoreFull
from regproxy.store.intervals import Intervals
from regproxy.store.layout import Layout
from regproxy.store.partial import PartialFile, Progress, _write_all, remove_unlocked, write_scratch

DIGEST = Digest.of(b"whatever")


@pytest.fixture
def partial(layout: Layout) -> Iterator[PartialFile]:
    opened = PartialFile(layout, DIGEST, create=True)
    yield opened
    opened.close()


@given(
    st.none() | st.integers(100, 200),
    st.none() | st.text(),
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)).map(lambda pair: (min(pair), max(pair)))),
)
def test_progress_reads_back_as_it_was(size_bytes: int | None, etag: str | None, spans: list[tuple[int, int]]) -> None:
    """A sidecar loses nothing."""
    intervals = Intervals()
    for start, end in spans:
        intervals = intervals.add(start, end)
    progress = Progress(size_bytes, etag, intervals)

    assert Progress.from_json(progress.to_json()) == progress


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"size_bytes": 10, "etag": null}',
        '{"size_bytes": "10", "etag": null, "intervals": []}',
        '{"size_bytes": 10, "etag": 7, "intervals": []}',
        '{"size_bytes": 10, "etag": null, "intervals": [[0, 11]]}',
        '{"size_bytes": 10, "etag": null, "intervals": [[5, 3]]}',
        '{"size_bytes": 10, "etag": null, "intervals": [[1]]}',
    ],
)
def test_a_sidecar_that_cannot_be_believed_is_refused(text: str) -> None:
    """Whatever is wrong with it, it is one kind of error."""
    with pytest.raises(ValueError, match=r".+"):
        Progress.from_json(text)


@given(st.lists(st.binary(max_size=5), max_size=40), st.integers(1, 7))
def test_writes_that_stop_half_way_are_continued(chunks: list[bytes], most_bytes: int) -> None:
    """A system call may write less than it was given, down to a part of one chunk."""
    written = bytearray()

    def short_pwritev(_: int, vectors: list[memoryview], offset: int) -> int:
        assert offset == len(written)
        taken = b"".join(vectors)[:most_bytes]
        written.extend(taken)
        return len(taken)

    with mock.patch.object(os, "pwritev", short_pwritev):
        assert _write_all(0, 0, chunks) == sum(map(len, chunks))

    assert written == b"".join(chunks)


def test_more_chunks_than_one_system_call_takes_are_written(partial: PartialFile) -> None:
    """2,000 small pieces arrive as they were, at their offset."""
    pieces = [bytes([number % 256]) for number in range(2000)]

    partial.write(3, pieces)

    assert partial.path.read_bytes() == b"\0\0\0" + b"".join(pieces)


def test_hashing_reads_just_the_bytes_asked_for(partial: PartialFile) -> None:
    """The hash of a middle part is that of the middle part, also across buffer borders."""
    body = os.urandom(700_000)
    partial.write(0, [body])
    running = DIGEST.new_hash()

    partial.hash_into(running, 10, 600_000)

    assert running.hexdigest() == hashlib.sha256(body[10:600_000]).hexdigest()


def test_a_file_cut_short_by_someone_else_is_an_error(partial: PartialFile) -> None:
    """The hash never silently covers less than it should."""
    partial.write(0, [b"x" * 10])

    with pytest.raises(StoreError, match="cut short"):
        partial.hash_into(DIGEST.new_hash(), 0, 11)


def test_allocating_takes_the_disk_space_at_once(partial: PartialFile) -> None:
    """A promise of space is space."""
    partial.allocate(1024 * 1024)

    assert partial.path.stat().st_blocks * 512 >= 1024 * 1024


def test_a_full_disk_is_met_when_allocating(partial: PartialFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space is StoreFull, which is not a broken store."""
    monkeypatch.setattr(os, "posix_fallocate", _raise(OSError(errno.ENOSPC, "No space left on device")))

    with pytest.raises(StoreFull, match="No space left"):
        partial.allocate(4096)


def test_a_file_system_without_allocation_is_accepted(partial: PartialFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems cannot allocate; then a full disk is met when writing."""
    monkeypatch.setattr(os, "posix_fallocate", _raise(OSError(errno.EOPNOTSUPP, "Operation not supported")))

    partial.allocate(4096)


def _raise(error: OSError) -> Callable[..., None]:
    def call(*_: object) -> None:
        raise error

    return call


def test_a_second_writer_is_locked_out(partial: PartialFile, layout: Layout) -> None:
    """Two processes on one directory never fill the same file."""
    with pytest.raises(StoreError, match="another process"):
        PartialFile(layout, DIGEST, create=True)

    assert not remove_unlocked(partial.path)
    assert partial.path.exists()


def test_the_lock_ends_with_the_writer_and_not_with_its_readers(partial: PartialFile, layout: Layout) -> None:
    """A slow client of a failed download does not stop the next attempt."""
    reader = os.dup(partial.read_fd)
    partial.close()

    PartialFile(layout, DIGEST, create=False).close()

    os.close(reader)


def test_a_closed_file_is_not_written(partial: PartialFile) -> None:
    """A late write is an error and never goes to a descriptor that is somebody else's by now."""
    partial.close()

    with pytest.raises(StoreError, match="closed"):
        partial.write(0, [b"x"])


def test_closing_waits_for_the_write_that_runs(partial: PartialFile) -> None:
    """The descriptor stays valid until the last user is done."""
    with partial._in_use() as fd:
        partial.close()
        os.pwrite(fd, b"late", 0)

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_finished_content_stays_readable(partial: PartialFile) -> None:
    """After a readable close only the writing end is gone."""
    partial.write(0, [b"hello"])
    partial.close(readable=True)
    partial.path.unlink()

    assert os.pread(partial.read_fd, 10, 0) == b"hello"


def test_reopening_gives_file_and_progress(partial: PartialFile, layout: Layout) -> None:
    """What was saved is there for the next ingest."""
    partial.write(0, [b"hello"])
    progress = Progress(10, '"e"', Intervals().add(0, 5))
    partial.save(progress)
    partial.close()

    reopened = PartialFile.reopen(layout, DIGEST)

    assert reopened is not None
    assert reopened[1] == progress
    reopened[0].close()


@pytest.mark.parametrize("spoil", ["no sidecar", "broken sidecar", "short file", "no file", "locked"])
def test_a_file_that_does_not_fit_its_sidecar_is_not_resumed(partial: PartialFile, layout: Layout, spoil: str) -> None:
    """Then the download starts from nothing."""
    partial.write(0, [b"hello"])
    partial.save(Progress(10, None, Intervals().add(0, 5)))
    match spoil:
        case "no sidecar":
            partial.forget_progress()
        case "broken sidecar":
            layout.sidecar(DIGEST).write_text(json.dumps({}))
        case "short file":
            partial.truncate(4)
        case "no file":
            partial.path.unlink()
        case _:
            pass
    if spoil != "locked":
        partial.close()

    assert PartialFile.reopen(layout, DIGEST) is None


def test_scratch_content_replaces_what_a_crash_left(layout: Layout) -> None:
    """The file holds the new content only."""
    path = layout.scratch(DIGEST)
    path.write_bytes(b"much longer than the new content")

    write_scratch(path, b"short")

    assert path.read_bytes() == b"short"


def test_removing_a_file_that_is_gone_is_fine(layout: Layout) -> None:
    """What should be gone is gone."""
    assert remove_unlocked(layout.partial(DIGEST))
