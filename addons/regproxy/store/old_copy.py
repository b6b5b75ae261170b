"""One content out of a file of an old nginx cache: copied by the kernel, hashed while it is copied.

The body starts at an offset inside the file, so neither a rename nor a hard link would do. What is hashed is the copy,
read back from the page cache, so it is the bytes that will be served. Everything here blocks and runs in threads of
lowest priority.
"""

import contextlib
import errno
import fcntl
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, wait
from dataclasses import dataclass
from pathlib import Path

from regproxy.oci.digest import Digest, RunningHash
from regproxy.policy.adoption import manifest_media_type
from regproxy.store.nginx_cache import FIRST_BYTES, content_type

STEP_BYTES = 4 * 1024 * 1024
"""Copied and hashed between two looks at whether to stop: tens of milliseconds."""

LARGEST_MANIFEST_BYTES = 4 * 1024 * 1024
"""OCI distribution-spec 1.1, "Pushing Manifests": registries take at least so much, and no more in practice."""

_BUFFER_BYTES = 256 * 1024
_LOWEST_PRIORITY = 19


class Unusable(Exception):  # noqa: N818 - a verdict on the old file, not a failure of ours
    """The old file does not hold the content that its key names."""


class Unreadable(Exception):  # noqa: N818 - a verdict on the old file, not a failure of ours
    """The system does not let us read the old file."""


@dataclass(frozen=True, slots=True)
class OldContent:
    """Content that a file of an old cache promises to hold."""

    path: str
    digest: Digest
    is_manifest: bool
    head_start: int
    body_start: int
    size_bytes: int
    """Of the body."""
    used_at_s: float
    """When it counts as used last, Unix time."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A copy that hashes to its digest; whoever gets it stores or removes the file."""

    path: Path
    media_type: str
    """Empty for a blob."""


def be_unimportant() -> None:
    """Give the calling thread the lowest priority, for the processor and so, with most schedulers, for the disk."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """Open an old file for reading, leaving its access time alone where that is allowed. Raises Unreadable."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            fd = os.open(path, flags | os.O_NOATIME)
        except PermissionError:
            fd = os.open(path, flags)  # only a file's owner may leave its access time alone
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def first_bytes(path: str) -> bytes:
    """Return the beginning of an old file. Raises Unreadable."""
    with opened(path) as fd:
        return _read(fd, path, FIRST_BYTES, 0)


def copy_verified(
    old: OldContent, directory: Path, copier: Executor, is_stopped: Callable[[], bool], *, durable: bool
) -> Verified | None:
    """Copy the body to a new file in `directory`; None if stopped.

    `copier` runs the copying beside the hashing: one free thread. `durable`: the copy is on the disk at the return.
    Raises Unusable, Unreadable, and OSError when the copy cannot be written. Nothing is left behind then.
    """
    target, name = tempfile.mkstemp(prefix="adoption-", suffix=".tmp", dir=directory)
    path = Path(name)
    try:
        fcntl.flock(target, fcntl.LOCK_EX)  # another process on the directory removes unlocked leftovers
        with opened(old.path) as source:
            is_right = _Copying(old, source, target, copier, is_stopped).run()
            if is_stopped():
                path.unlink()
                return None
            media_type = _media_type(old, source, target) if old.is_manifest and is_right else ""
            os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
        _require_usable(old, is_right=is_right, media_type=media_type)
        if durable:
            os.fdatasync(target)
        return Verified(path, media_type or "")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(target)


@dataclass(frozen=True, slots=True)
class _Copying:
    """One body on its way between two descriptors."""

    old: OldContent
    source: int
    target: int
    copier: Executor
    is_stopped: Callable[[], bool]

    def run(self) -> bool:
        """Copy step by step, and hash each step while the next is copied; returns whether it is the right content."""
        running, end = self.old.digest.new_hash(), 0
        step = self.copier.submit(self._copy_some, 0)
        try:
            while end < self.old.size_bytes and not self.is_stopped():
                arrived = step.result()
                if arrived == end:
                    break
                step = self.copier.submit(self._copy_some, arrived)
                self._hash_some(running, end, arrived)
                end = arrived
        finally:
            wait([step])  # it must not write to what the descriptors mean next
        return running.hexdigest() == self.old.digest.hex

    def _copy_some(self, start: int) -> int:
        """Copy the next step; returns where it ends, `start` at the end of the body."""
        count, offset = min(STEP_BYTES, self.old.size_bytes - start), self.old.body_start + start
        if count <= 0:
            return start
        with contextlib.suppress(OSError):  # not between these file systems, or not in this kernel
            copied_bytes = os.copy_file_range(self.source, self.target, count, offset, start)
            if copied_bytes:
                return start + copied_bytes
        os.lseek(self.target, start, os.SEEK_SET)
        try:
            return start + os.sendfile(self.target, self.source, offset, count)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise
            raise Unreadable(f"{self.old.path}: {error.strerror}") from error

    def _hash_some(self, running: RunningHash, start: int, end: int) -> None:
        view = memoryview(bytearray(min(_BUFFER_BYTES, end - start)))
        while start < end:
            got = os.preadv(self.target, [view[: end - start]], start)
            running.update(view[:got])
            start += got


def _require_usable(old: OldContent, *, is_right: bool, media_type: str | None) -> None:
    if not is_right:
        raise Unusable(f"{old.path}: its {old.size_bytes} bytes do not hash to {old.digest}")
    if media_type is None:
        raise Unusable(f"{old.path}: {old.digest} is not a manifest of a known type")


def _media_type(old: OldContent, source: int, target: int) -> str | None:
    """Return the media type of a verified manifest, None if it is none."""
    if old.size_bytes > LARGEST_MANIFEST_BYTES:
        return None
    head = _read(source, old.path, old.body_start - old.head_start, old.head_start)
    return manifest_media_type(content_type(head), os.pread(target, old.size_bytes, 0))


def _read(fd: int, path: str, count: int, offset: int) -> bytes:
    try:
        return os.pread(fd, count, offset)
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
