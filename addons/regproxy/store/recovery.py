"""After a crash, a power loss or a damaged index: which content may be served, and how rows and files meet again.

A heartbeat file is there while the store is open. Found at the next start, it says that the store was not closed, and
until when it lived. Data is not forced to the disk when content is stored, so what was written shortly before a power
loss may be a file full of zeros under the right name: such content is not served before it was hashed again.
"""

import contextlib
import os
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from regproxy.oci.digest import Digest, RunningHash
from regproxy.store.errors import translated
from regproxy.store.growing import submit
from regproxy.store.layout import FILE_MODE, Layout, on_disk_bytes
from regproxy.store.ledger import Ledger
from regproxy.store.records import content_key, digest_of_key

UNSETTLED_S = 300.0
"""What was older at the crash is on the disk: Linux writes dirty pages back after 30 s, this is ten times that."""

_READ_BYTES = 1024 * 1024
_READS_AT_A_TIME = 64
"""Reads per visit to a thread: closing the store waits for a tenth of a second, not for a whole layer."""

_ROWS_AT_A_TIME = 500


@dataclass(slots=True)
class Doubts:
    """What a crash leaves open."""

    unverified: set[Digest] = field(default_factory=set)
    """Content that is not served before it is hashed again."""

    unindexed: dict[Digest, float] = field(default_factory=dict)
    """Files without a row: digest and Unix time of the last write."""

    check_rows: bool = False
    """Whether there may be rows without a file."""

    def settle(self, digest: Digest) -> None:
        """Forget the doubts about content that was verified, stored anew or removed."""
        self.unverified.discard(digest)
        self.unindexed.pop(digest, None)

    def __bool__(self) -> bool:
        return bool(self.unverified or self.unindexed or self.check_rows)


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a reconciliation did, in numbers of contents."""

    right: int = 0
    """Hashed, right, and in the index now."""

    removed: int = 0
    """Hashed and wrong: removed."""


def find_doubts(layout: Layout, ledger: Ledger) -> Doubts:
    """Look at the files if the store was not closed cleanly or its index is new. Blocks."""
    with translated("look for the end of the last run in", layout.directory, "check the disk"):
        alive_until_s = _last_heartbeat_s(layout)
        if alive_until_s is None and not ledger.rebuilt:
            return Doubts()
        known, doubts, unindexed_bytes = ledger.known_content(), Doubts(check_rows=True), {}
        for digest, status in layout.stored():
            if alive_until_s is not None and status.st_mtime >= alive_until_s - UNSETTLED_S:
                doubts.unverified.add(digest)
            if content_key(digest) not in known:
                doubts.unindexed[digest] = status.st_mtime
                unindexed_bytes[digest] = on_disk_bytes(status.st_size)
        ledger.count_unindexed(unindexed_bytes)
        return doubts


def beat(layout: Layout) -> None:
    """Say that the store is alive now."""
    with translated("write the heartbeat", layout.heartbeat, "check the disk"):
        os.close(os.open(layout.heartbeat, os.O_CREAT | os.O_WRONLY, FILE_MODE))
        os.utime(layout.heartbeat)


def beat_no_more(layout: Layout) -> None:
    """Say that the store was closed cleanly."""
    with translated("remove the heartbeat", layout.heartbeat, "check the disk"):
        layout.heartbeat.unlink(missing_ok=True)


async def reconcile(doubts: Doubts, layout: Layout, ledger: Ledger, hash_pool: Executor) -> Reconciled:
    """Settle all doubts: files without a row are hashed and adopted or removed, rows without a file removed."""
    right = removed = 0
    for digest in [*doubts.unindexed, *doubts.unverified.difference(doubts.unindexed)]:
        written_at_s = doubts.unindexed.get(digest, 0.0)
        is_true = await _is_true_to_name(hash_pool, layout, digest)
        if digest not in doubts.unindexed and digest not in doubts.unverified:
            continue  # stored anew while we looked
        if is_true:
            await ledger.adopt_found(digest, written_at_s)
        else:
            await ledger.drop(digest)
        right, removed = right + is_true, removed + (not is_true)
        doubts.settle(digest)
    rows = [digest_of_key(key) for key in await submit(hash_pool, ledger.known_content)]
    for first in range(0, len(rows), _ROWS_AT_A_TIME):
        await ledger.drop_rows_without_file(rows[first : first + _ROWS_AT_A_TIME])
    doubts.check_rows = False
    return Reconciled(right, removed)


def _last_heartbeat_s(layout: Layout) -> float | None:
    try:
        return layout.heartbeat.stat().st_mtime
    except FileNotFoundError:
        return None


async def _is_true_to_name(hash_pool: Executor, layout: Layout, digest: Digest) -> bool:
    running, hashed_bytes = digest.new_hash(), 0
    while step_bytes := await submit(hash_pool, _hash_some, layout.content(digest), running, hashed_bytes):
        hashed_bytes += step_bytes
    return running.hexdigest() == digest.hex


def _hash_some(path: Path, running: RunningHash, offset: int) -> int:
    """Hash the next part; returns its length, 0 at the end or when the file is gone."""
    start = offset
    with translated("read", path, "check the disk"), contextlib.suppress(FileNotFoundError), path.open("rb") as content:
        content.seek(offset)
        for _ in range(_READS_AT_A_TIME):
            piece = content.read(_READ_BYTES)
            running.update(piece)
            offset += len(piece)
    return offset - start
