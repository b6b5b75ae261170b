"""Takes the content of an nginx predecessor's cache over, in the background of the first start (contract section 1.8).

The old cache lies in our own directory: its folders `X/YY` and our `content` and `partial` do not meet. What is named
by a digest and hashes to it is copied into the store as if it had been downloaded, except that nothing is known of the
host it came from; tags never are, because their key does not say whose they were. Most recently used first, one file
at a time, at the lowest priority, and only into free room: nothing that is stored goes for it.

A file `adopted` says that it was done, and how; an interrupted run begins anew and passes over what is stored.
"""

import collections
import contextlib
import enum
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from regproxy.oci.wording import shown
from regproxy.policy.adoption import OldCache, budget_bytes, last_use_s
from regproxy.store.content import Store
from regproxy.store.errors import StoreError, StoreFull, translated
from regproxy.store.eviction import free_bytes
from regproxy.store.growing import submit
from regproxy.store.layout import FILE_MODE, Layout
from regproxy.store.nginx_cache import (
    NginxCacheError,
    files_below,
    folders_of,
    named_content,
    parse_answer,
    split_slice,
)
from regproxy.store.old_copy import (
    OldContent,
    OldFile,
    Unreadable,
    Unusable,
    Verified,
    assemble,
    be_unimportant,
    copy_verified,
    first_bytes,
)

_logger = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 10.0
"""Between two lines that say how far it is."""

MARKER = "adopted"
"""The file in the cache directory that says that there is nothing left to do, with the mode in which it was done."""

MISFITS = 16
"""After so many in a row that found no room the rest is not tried: what is left is older than all of them."""

_MIB = 1024 * 1024


class Outcome(enum.Enum):
    """What became of one file of the old cache; the value is how the last line words it."""

    TAKEN = "taken in"
    THERE = "were there already"
    NO_DIGEST = "are not named by a digest (tags and the like)"
    UNKNOWN = "are not in the format that is read"
    WRONG = "do not hold what they are named after"
    UNREADABLE = "cannot be read"
    NO_ROOM = "found no room"


@dataclass(slots=True)
class Tally:
    """Counts over a run."""

    outcomes: collections.Counter[Outcome] = field(default_factory=collections.Counter)
    taken_bytes: int = 0
    left_bytes: int = 0
    """Disk space of the old files that are still there."""

    def add(self, outcome: Outcome, reason: object) -> None:
        """Count one file that was not taken in."""
        self.outcomes[outcome] += 1
        _logger.debug("old cache: %s: %s", outcome.name, reason)

    def summary(self) -> str:
        """Return the last line's words."""
        skipped = [f"{count} {each.value}" for each, count in self.outcomes.items() if each is not Outcome.TAKEN]
        return (
            f"took in {self.outcomes[Outcome.TAKEN]} contents ({self.taken_bytes // _MIB} MiB)"
            f"{'; of the other files ' if skipped else ''}{', '.join(sorted(skipped))}"
        )


async def adopt_old_cache(store: Store, mode: OldCache, inactive_s: float) -> None:
    """Take over what an old cache in the store's directory holds; return when done, or when the store is closed.

    `inactive_s`: after how long without a read content is removed. Errors are logged, not raised.
    """
    if mode is OldCache.IGNORE or _was_done(store.directory, mode):
        return
    adoption = _Adoption(store, mode, inactive_s)
    try:
        await adoption.run()
    except (StoreError, OSError) as error:
        if store.is_open:
            _logger.error("old cache: stopped, the next start goes on: %s", error)  # noqa: TRY400 - it is complete
    finally:
        adoption.stop()


class _Adoption:
    """One run."""

    def __init__(self, store: Store, mode: OldCache, inactive_s: float) -> None:
        self._store, self._mode, self._inactive_s = store, mode, inactive_s
        self._tally = Tally()
        self._stopped = threading.Event()
        self._said_at_s = time.monotonic()
        # Two threads: one copies while the other one hashes.
        self._pool = ThreadPoolExecutor(2, "store-adopt", initializer=be_unimportant)

    async def run(self) -> None:
        """Look, take in, say so."""
        folders = await submit(self._pool, folders_of, self._store.directory)
        if not folders:
            return
        _logger.info("old cache: found one of nginx in %s, looking at it", self._store.directory)
        contents = await self._look(folders)
        _logger.info(
            "old cache: %d contents (%d MiB) to be verified and taken in (OLD_CACHE=%s)",
            len(contents),
            sum(content.size_bytes for content in contents) // _MIB,
            self._mode,
        )
        await self._take_in_all(contents)
        if self._mode is OldCache.MOVE:
            await submit(self._pool, _remove_empty, folders)
        await submit(self._pool, _mark_done, self._store.directory, self._mode)
        _logger.info("old cache: done, %s%s", self._tally.summary(), self._what_is_left())

    def stop(self) -> None:
        """Let the threads end, after the step they are at."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _look(self, folders: list[Path]) -> list[OldContent]:
        """Return the content that is there by its name, most recently used first."""
        files: list[OldFile] = []
        for number, folder in enumerate(folders):
            files += await submit(self._pool, self._look_into, folder)
            self._say_if_due(f"looked at {number + 1} of {len(folders)} folders")
        contents, incomplete = await submit(self._pool, assemble, files)
        for key in incomplete:
            self._tally.add(Outcome.WRONG, f"{shown(key)} lacks a slice")
        return sorted(contents, key=lambda content: content.used_at_s, reverse=True)

    async def _take_in_all(self, contents: list[OldContent]) -> None:
        budget = budget_bytes(self._mode, free_bytes(Layout(self._store.directory)))
        misfits = 0
        for number, content in enumerate(contents):
            if misfits >= MISFITS:
                self._tally.outcomes[Outcome.NO_ROOM] += len(contents) - number
                _logger.info("old cache: stopped, the cache or the disk is full")
                return
            try:
                await self._take_in(content, budget)
                misfits = 0
            except StoreFull as error:
                misfits += 1
                self._tally.add(Outcome.NO_ROOM, error)
            except Unusable as error:
                self._tally.add(Outcome.WRONG, error)
            except Unreadable as error:
                self._tally.add(Outcome.UNREADABLE, error)
            done = f"{number + 1} of {len(contents)} contents"
            self._say_if_due(f"{done}, {self._tally.taken_bytes // _MIB} MiB taken in")

    async def _take_in(self, content: OldContent, budget: int | None) -> None:
        if self._store.holds(content.digest):
            self._tally.add(Outcome.THERE, content)
        elif budget is not None and self._tally.taken_bytes + content.size_bytes > budget:
            raise StoreFull(f"copies would take more than half of the free space: {content.size_bytes} bytes")
        else:
            await self._store.set_aside(content.size_bytes)
            try:
                await self._copy(content)
            except BaseException:
                if self._store.is_open:
                    await self._store.set_aside(0)
                raise
            self._tally.outcomes[Outcome.TAKEN] += 1
            self._tally.taken_bytes += content.size_bytes
        if self._mode is OldCache.MOVE:
            self._tally.left_bytes -= await submit(self._pool, _remove, content)

    async def _copy(self, content: OldContent) -> None:
        verified = await submit(self._pool, self._copy_verified, content)
        if verified is None:
            raise StoreError("the store is closed")
        try:
            await self._store.adopt(content.digest, verified.path, verified.media_type, content.used_at_s)
        finally:
            await submit(self._pool, _discard, verified)

    def _copy_verified(self, content: OldContent) -> Verified | None:
        directory = self._store.directory / "partial"
        with translated("copy to", directory, "check the disk and the owner of the cache directory"):
            # On the disk before the old file goes: a power loss must not take both.
            return copy_verified(content, directory, self._pool, self._is_stopped, durable=self._mode is OldCache.MOVE)

    def _is_stopped(self) -> bool:
        return self._stopped.is_set() or not self._store.is_open

    def _look_into(self, folder: Path) -> list[OldFile]:
        """Return what the names in one folder promise, and count the rest. Blocks."""
        files: list[OldFile] = []
        try:
            for entry in files_below(folder):
                file = self._promise(entry)
                if file is not None:
                    files.append(file)
        except OSError as error:
            self._tally.add(Outcome.UNREADABLE, error)
        return files

    def _promise(self, entry: os.DirEntry[str]) -> OldFile | None:
        try:
            status = entry.stat(follow_symlinks=False)
            self._tally.left_bytes += status.st_blocks * 512
            answer = parse_answer(first_bytes(entry.path))
        except NginxCacheError as error:
            self._tally.add(Outcome.UNKNOWN, error)
            return None
        except Unreadable as error:
            self._tally.add(Outcome.UNREADABLE, error)
            return None
        key, offset = split_slice(answer.key)
        named = named_content(key)
        if named is None:
            self._tally.add(Outcome.NO_DIGEST, shown(answer.key))
            return None
        return OldFile(
            path=entry.path,
            key=key if key == answer.key else f"{key} in slices",
            digest=named[0],
            is_manifest=named[1],
            offset=offset,
            head_start=answer.head_start,
            body_start=answer.body_start,
            size_bytes=max(0, status.st_size - answer.body_start),
            used_at_s=last_use_s(status.st_atime, status.st_mtime, time.time(), self._inactive_s),
        )

    def _what_is_left(self) -> str:
        if self._tally.left_bytes <= 0:
            return ""
        left = f"; its files still take {self._tally.left_bytes // _MIB} MiB in {self._store.directory}"
        return f"{left}, OLD_CACHE=move would free them" if self._mode is OldCache.COPY else left

    def _say_if_due(self, words: str) -> None:
        if time.monotonic() - self._said_at_s >= PROGRESS_INTERVAL_S:
            self._said_at_s = time.monotonic()
            _logger.info("old cache: %s", words)


def _was_done(directory: Path, mode: OldCache) -> bool:
    try:
        return (directory / MARKER).read_text().strip() == mode
    except (OSError, ValueError):
        return False


def _mark_done(directory: Path, mode: OldCache) -> None:
    fd = os.open(directory / MARKER, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE)
    with os.fdopen(fd, "w") as marker:
        marker.write(f"{mode}\n")


def _remove(content: OldContent) -> int:
    """Remove the files of old content; returns the bytes that are free now."""
    freed_bytes = 0
    for path in (Path(file.path) for file in content.files):
        with contextlib.suppress(OSError):  # a folder of another user: what is in stays in, the file stays, too
            taken_bytes = path.stat().st_blocks * 512
            path.unlink()
            freed_bytes += taken_bytes
    return freed_bytes


def _remove_empty(folders: list[Path]) -> None:
    for folder in (*folders, *{folder.parent for folder in folders}):
        with contextlib.suppress(OSError):
            folder.rmdir()


def _discard(verified: Verified) -> None:
    verified.path.unlink(missing_ok=True)
