"""The file behind one ingest: allocate, write at offsets, hash what is there, and remember progress in a sidecar.

Everything here blocks and runs in the store's threads. The file is locked (flock) while it is written, so that two
processes on one directory never fill the same file. Which bytes are there is known to the caller (ingest.Ingest) and
handed in as Intervals.

The sidecar `<file>.json` is replaced by rename, always after the data it describes was written. After a power loss it
may still claim more than reached the disk: the digest finds out.
"""

import contextlib
import errno
import fcntl
import json
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Self

from regproxy.oci.digest import Digest, RunningHash
from regproxy.store.errors import StoreError, translated
from regproxy.store.intervals import Intervals
from regproxy.store.layout import FILE_MODE, Layout

_BUFFER_BYTES = 256 * 1024
"""Bytes hashed at a time: small enough for the second-level cache, large enough to let go of the interpreter lock."""

_MAX_VECTORS = 512
"""Below Linux's IOV_MAX of 1024 buffers in one write."""

_NO_ALLOCATION = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class Progress:
    """What a sidecar says."""

    size_bytes: int | None
    """Size of the finished content, if the upstream told."""

    etag: str | None
    """The upstream's entity tag, for `If-Range`."""

    intervals: Intervals
    """Which bytes were written."""

    def to_json(self) -> str:
        """Return the sidecar's text."""
        return json.dumps({"size_bytes": self.size_bytes, "etag": self.etag, "intervals": self.intervals.spans})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a sidecar; ValueError when it is anything else."""
        try:
            fields = json.loads(text)
            size_bytes, etag = fields["size_bytes"], fields["etag"]
            intervals = Intervals(tuple((int(start), int(end)) for start, end in fields["intervals"]))
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"not a record of progress: {text[:80]!r}") from error
        sizes_fit = size_bytes is None or (isinstance(size_bytes, int) and intervals.end() <= size_bytes)
        if not sizes_fit or not isinstance(etag, str | None):
            raise ValueError(f"not a record of progress: {text[:80]!r}")
        return cls(size_bytes, etag, intervals)


class PartialFile:
    """One open file in `partial/`. Methods raise StoreError, StoreFull when the disk is full."""

    def __init__(self, layout: Layout, digest: Digest, *, create: bool) -> None:
        self.path = layout.partial(digest)
        self._sidecar = layout.sidecar(digest)
        self._lock = threading.Lock()
        self._users = 0
        self._closing = False
        self._readable_after = False
        with self._translated("open"):
            flags = os.O_RDWR | (os.O_CREAT if create else 0)
            self._fd = os.open(self.path, flags, FILE_MODE)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # An open file of its own: readers must not inherit the lock, nor keep it when the writer is done.
                self.read_fd = os.open(self.path, os.O_RDONLY)
                self._close_readable = weakref.finalize(self, os.close, self.read_fd)
            except BlockingIOError as error:
                os.close(self._fd)
                raise StoreError(f"{self.path} is being filled by another process") from error
            except OSError:
                os.close(self._fd)
                raise

    @classmethod
    def reopen(cls, layout: Layout, digest: Digest) -> tuple[Self, Progress] | None:
        """Open a file that an earlier ingest left behind, None if there is none whose sidecar can be believed."""
        try:
            progress = Progress.from_json(layout.sidecar(digest).read_text())
            partial = cls(layout, digest, create=False)
        except (OSError, ValueError, StoreError):
            return None
        if os.fstat(partial.read_fd).st_size < progress.intervals.end():
            partial.close()
            return None
        return partial, progress

    @property
    def closed(self) -> bool:
        """Whether the file was let go of."""
        return self._closing

    def allocate(self, size_bytes: int) -> None:
        """Claim the disk space of so many bytes now, so that a full disk is met before anything is promised."""
        if size_bytes == 0:
            return
        with self._in_use() as fd, self._translated("allocate"):
            try:
                os.posix_fallocate(fd, 0, size_bytes)
            except OSError as error:
                if error.errno not in _NO_ALLOCATION:
                    raise

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to so many bytes; a file of that size is left alone."""
        with self._in_use() as fd, self._translated("truncate"):
            if os.fstat(fd).st_size != size_bytes:
                os.ftruncate(fd, size_bytes)

    def write(self, offset: int, chunks: Sequence[bytes | memoryview]) -> None:
        """Write all chunks, one after the other, from the offset on."""
        with self._in_use() as fd, self._translated("write"):
            for vectors in batched(chunks, _MAX_VECTORS):
                offset += _write_all(fd, offset, vectors)

    def hash_into(self, running: RunningHash, start: int, end: int) -> None:
        """Feed the bytes start..end-1, which were written just now and come from the page cache, to the hash."""
        buffer = bytearray(min(_BUFFER_BYTES, end - start))
        view = memoryview(buffer)
        with self._in_use(), self._translated("read"):
            while start < end:
                got = os.preadv(self.read_fd, [view[: end - start]], start)
                if got == 0:
                    raise StoreError(f"{self.path} was cut short by someone else at byte {start}")
                running.update(view[:got])
                start += got

    def save(self, progress: Progress) -> None:
        """Replace the sidecar."""
        draft = self._sidecar.with_suffix(".json.new")
        with self._translated("record the progress of"):
            with open(draft, "w", opener=_private) as sidecar:
                sidecar.write(progress.to_json())
            draft.replace(self._sidecar)

    def forget_progress(self) -> None:
        """Remove the sidecar: the file is finished."""
        with self._translated("remove the sidecar of"):
            self._sidecar.unlink(missing_ok=True)

    def delete(self) -> None:
        """Remove file and sidecar from the directory; whoever has the file open keeps it."""
        with self._translated("remove"):
            self._sidecar.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)

    def close(self, *, readable: bool = False) -> None:
        """Let go of the file and its lock, at once or when the last write in another thread is done.

        With `readable`, `read_fd` stays open as long as this object lives: finished content outlives its own eviction.
        """
        with self._lock:
            if not self._closing:
                self._closing, self._readable_after = True, readable
                self._close_if_unused()

    def _close_if_unused(self) -> None:
        if self._closing and self._users == 0:
            os.close(self._fd)
            if not self._readable_after:
                self._close_readable()

    @contextlib.contextmanager
    def _in_use(self) -> Iterator[int]:
        # A descriptor closed under a running write would be somebody else's file by the time the write happens.
        with self._lock:
            if self._closing:
                raise StoreError(f"{self.path} is closed")
            self._users += 1
        try:
            yield self._fd
        finally:
            with self._lock:
                self._users -= 1
                self._close_if_unused()

    def _translated(self, action: str) -> contextlib.AbstractContextManager[None]:
        return translated(action, self.path, "check the disk and the owner of the cache directory")


def _write_all(fd: int, offset: int, vectors: Sequence[bytes | memoryview]) -> int:
    """Write the buffers completely; returns their length in bytes."""
    remaining = [memoryview(vector) for vector in vectors if len(vector)]
    written_bytes = 0
    while remaining:
        step = os.pwritev(fd, remaining, offset + written_bytes)
        written_bytes += step
        while remaining and step >= len(remaining[0]):
            step -= len(remaining.pop(0))
        if step:
            remaining[0] = remaining[0][step:]
    return written_bytes


def remove_unlocked(path: Path) -> bool:
    """Remove a file unless a process is writing it; returns whether it is gone. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def _private(path: str | Path, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)


def write_scratch(path: Path, body: bytes) -> None:
    """Write content that is in memory to a file that is adopted next; locked while it is incomplete. Raises OSError."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        _write_all(fd, 0, [body])
    finally:
        os.close(fd)
