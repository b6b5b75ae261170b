"""After a crash, a power loss or a damaged index: which content may be served, and how rows and files meet again.

A heartbeat file is there while the store is open. Found at the next start, it says that the store was not closed, and
until when it lived. Data is not forced to the disk when content is stored, so what was written shortly before a power
loss may be a file full of zeros under the right name: such content is not served before it was hashed again. A power
loss may also follow a clean close, so that leaves a file which names the run of the machine.
"""

import contextlib
import os
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from regproxy.oci.digest import Digest
from regproxy.store.errors import translated
from regproxy.store.growing import submit
from regproxy.store.hashing import Unreadable, hash_some
from regproxy.store.layout import FILE_MODE, Layout, on_disk_bytes
from regproxy.store.ledger import Ledger
from regproxy.store.records import content_key

UNSETTLED_S = 300.0
"""What was older at the crash is on the disk: Linux writes dirty pages back after 30 s, this is ten times that."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

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

    def find(self, unindexed: dict[Digest, float]) -> None:
        """Add files that lost their row while the store was open."""
        if unindexed:
            self.unindexed.update(unindexed)
            self.check_rows = True

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
        alive_until_s = last_seen_alive_s(layout)
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
        if alive_until_s is None and not doubts.unindexed:
            return Doubts()  # the first start
        return doubts


def last_seen_alive_s(layout: Layout) -> float | None:
    """Return the Unix time until which the last run may not have come to the disk; None when all of it has."""
    with contextlib.suppress(FileNotFoundError):
        return layout.heartbeat.stat().st_mtime
    with contextlib.suppress(FileNotFoundError):
        in_this_run = layout.stopped.read_text(errors="replace") == run_of_the_machine() != ""
        return None if in_this_run else layout.stopped.stat().st_mtime
    return None


def beat(layout: Layout) -> None:
    """Say that the store is alive now."""
    with translated("write the heartbeat", layout.heartbeat, "check the disk"):
        os.close(os.open(layout.heartbeat, os.O_CREAT | os.O_WRONLY, FILE_MODE))
        os.utime(layout.heartbeat)
        layout.stopped.unlink(missing_ok=True)


def beat_no_more(layout: Layout) -> None:
    """Say that the store was closed cleanly."""
    with translated("remove the heartbeat", layout.heartbeat, "check the disk"):
        fd = os.open(layout.stopped, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, FILE_MODE)
        with os.fdopen(fd, "w") as stopped:
            stopped.write(run_of_the_machine())
        layout.heartbeat.unlink(missing_ok=True)


def run_of_the_machine() -> str:
    """Return what is another one after each start of the machine (Linux's boot id), "" when it cannot be told."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


async def reconcile(doubts: Doubts, layout: Layout, ledger: Ledger, hash_pool: Executor) -> Reconciled:
    """Settle all doubts: files without a row are hashed and adopted or removed, rows without a file removed."""
    right = removed = 0
    for digest in [*doubts.unindexed, *doubts.unverified.difference(doubts.unindexed)]:
        written_at_s = doubts.unindexed.get(digest, 0.0)
        file = await submit(hash_pool, layout.content_file, digest)
        is_true = await is_true_to_name(hash_pool, layout, digest)
        if digest not in doubts.unindexed and digest not in doubts.unverified:
            continue  # stored anew while we looked
        if is_true:
            await ledger.adopt_found(digest, written_at_s)
            right += 1
        elif await ledger.drop(digest, file):
            removed += 1
        doubts.settle(digest)
    rows = await submit(hash_pool, ledger.indexed_content)
    for first in range(0, len(rows), _ROWS_AT_A_TIME):
        await ledger.drop_rows_without_file(rows[first : first + _ROWS_AT_A_TIME])
    doubts.check_rows = False
    return Reconciled(right, removed)


async def is_true_to_name(hash_pool: Executor, layout: Layout, digest: Digest) -> bool:
    """Hash the file of a digest; False for a wrong one and for none."""
    running, hashed_bytes = digest.new_hash(), 0
    path = layout.content(digest)
    try:
        while step_bytes := await submit(
            hash_pool, hash_some, path, running, hashed_bytes, _READ_BYTES, _READS_AT_A_TIME
        ):
            hashed_bytes += step_bytes
    except Unreadable:
        return False
    return running.hexdigest() == digest.hex
