"""One content out of the files of an old nginx cache: copied by the kernel, hashed while it is copied.

A body starts at an offset inside its file, so neither a rename nor a hard link would do. What is hashed is the copy,
read back from the page cache, so it is the bytes that will be served. Everything here blocks and runs in threads of
lowest priority.
"""

import contextlib
import errno
import fcntl
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
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
class OldFile:
    """A file of an old cache that promises to hold content, or a slice of it."""

    path: str
    key: str
    """Without its slice: what the files of one content have in common."""
    digest: Digest
    is_manifest: bool
    offset: int
    """Of its body in the content, bytes."""
    head_start: int
    body_start: int
    size_bytes: int
    """Of the body."""
    used_at_s: float
    """When it counts as used last, Unix time."""


@dataclass(frozen=True, slots=True)
class OldContent:
    """Content that is promised by one file, or by all its slices in order."""

    files: tuple[OldFile, ...]

    @property
    def digest(self) -> Digest:
        """What it must hash to."""
        return self.files[0].digest

    @property
    def size_bytes(self) -> int:
        """Of the whole content."""
        return self.files[-1].offset + self.files[-1].size_bytes

    @property
    def used_at_s(self) -> float:
        """When it counts as used last, Unix time."""
        return max(file.used_at_s for file in self.files)

    def __str__(self) -> str:
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0].path}{more} ({self.digest})"


def assemble(files: Iterable[OldFile]) -> tuple[list[OldContent], list[str]]:
    """Put slices together; returns the contents and the keys of those that lack a slice."""
    by_key: dict[str, list[OldFile]] = {}
    for file in files:
        by_key.setdefault(file.key, []).append(file)
    contents, incomplete = [], []
    for key, parts in by_key.items():
        parts.sort(key=lambda part: part.offset)
        ends = [0, *(part.offset + part.size_bytes for part in parts)]
        if all(part.offset == end for part, end in zip(parts, ends, strict=False)):
            contents.append(OldContent(tuple(parts)))
        else:
            incomplete.append(key)
    return contents, incomplete


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
    """Copy the content to a new file in `directory`; None if stopped.

    `copier` runs the copying beside the hashing: one free thread. `durable`: the copy is on the disk at the return.
    Raises Unusable, Unreadable, and OSError when the copy cannot be written. Nothing is left behind then.
    """
    target, name = tempfile.mkstemp(prefix="adoption-", suffix=".tmp", dir=directory)
    path = Path(name)
    try:
        fcntl.flock(target, fcntl.LOCK_EX)  # another process on the directory removes unlocked leftovers
        is_right = _copy_hashing(old, target, copier, is_stopped)
        if is_stopped():
            path.unlink()
            return None
        if not is_right:
            raise Unusable(f"{old}: its {old.size_bytes} bytes hash to something else")  # noqa: TRY301 - cleaned up below
        media_type = _manifest_type(old, target) if old.files[0].is_manifest else ""
        if durable:
            os.fdatasync(target)
        return Verified(path, media_type)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(target)


def _copy_hashing(old: OldContent, target: int, copier: Executor, is_stopped: Callable[[], bool]) -> bool:
    """Copy step by step, and hash each step while the next is copied; returns whether it is the right content."""
    running, end, steps = old.digest.new_hash(), 0, _steps(old)
    step = copier.submit(_copy_some, next(steps, None), target)
    try:
        while end < old.size_bytes and not is_stopped():
            arrived = step.result()
            if arrived <= end:
                break
            step = copier.submit(_copy_some, next(steps, None), target)
            _hash_some(target, running, end, arrived)
            end = arrived
    finally:
        wait([step])  # it must not write to what the descriptor means next
    return end == old.size_bytes and running.hexdigest() == old.digest.hex


def _steps(old: OldContent) -> Iterator[tuple[OldFile, int, int]]:
    """Yield what to copy at a time: a file, where in its body to begin, and how many bytes."""
    for file in old.files:
        for start in range(0, file.size_bytes, STEP_BYTES):
            yield file, start, min(STEP_BYTES, file.size_bytes - start)


def _copy_some(step: tuple[OldFile, int, int] | None, target: int) -> int:
    """Copy one step; returns the offset in the content where what was copied ends, 0 for no step.

    What is missing at the end of a step leaves a hole, which does not hash to the digest.
    """
    if step is None:
        return 0
    file, start, count = step
    offset, position = file.body_start + start, file.offset + start
    with opened(file.path) as source:
        while count > 0:
            copied_bytes = _copy_once(source, target, count, offset, position)
            if copied_bytes == 0:
                break
            offset, position, count = offset + copied_bytes, position + copied_bytes, count - copied_bytes
        os.posix_fadvise(source, file.body_start + start, offset - file.body_start - start, os.POSIX_FADV_DONTNEED)
    return position


def _copy_once(source: int, target: int, count: int, offset: int, position: int) -> int:
    """Copy up to `count` bytes in the kernel; returns how many, 0 at the end of the source. Raises Unreadable."""
    with contextlib.suppress(OSError):  # not between these file systems, or not in this kernel
        copied_bytes = os.copy_file_range(source, target, count, offset, position)
        if copied_bytes:
            return copied_bytes
    os.lseek(target, position, os.SEEK_SET)
    try:
        return os.sendfile(target, source, offset, count)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise
        raise Unreadable(f"offset {offset} of an old file: {error.strerror}") from error


def _hash_some(fd: int, running: RunningHash, start: int, end: int) -> None:
    view = memoryview(bytearray(min(_BUFFER_BYTES, end - start)))
    while start < end:
        got = os.preadv(fd, [view[: end - start]], start)
        running.update(view[:got])
        start += got


def _manifest_type(old: OldContent, target: int) -> str:
    """Return the media type of a verified manifest. Raises Unusable if it is none, Unreadable."""
    first = old.files[0]
    if old.size_bytes <= LARGEST_MANIFEST_BYTES:
        with opened(first.path) as source:
            head = _read(source, first.path, first.body_start - first.head_start, first.head_start)
        media_type = manifest_media_type(content_type(head), os.pread(target, old.size_bytes, 0))
        if media_type is not None:
            return media_type
    raise Unusable(f"{old} is not a manifest of a known type")


def _read(fd: int, path: str, count: int, offset: int) -> bytes:
    try:
        return os.pread(fd, count, offset)
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error
