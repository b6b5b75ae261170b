"""The bucket behind the store, as metrics and as operators see it."""

from collections import Counter

from regproxy.shared.counts import Read
from regproxy.stack.admin.queries import Json
from regproxy.stack.core import Core
from regproxy.stack.metric_families import Families, by_label

READ, WRITE = "read", "write"


class SharedStoreMetrics:
    """What came from the bucket, what goes to it, and whether it answers."""

    def __init__(self, families: Families, core: Core) -> None:
        self._families, self._core = families, core
        self._reads = families.counter(
            "shared_store_reads", "Contents that the disk lacks and the bucket was asked for", "outcome"
        )
        self._read_bytes = families.counter("shared_store_read_bytes", "Bytes of contents that came from the bucket")
        self._writes = families.counter("shared_store_writes", "Contents that were to be written", "outcome")
        self._written_bytes = families.counter("shared_store_written_bytes", "Bytes of contents that were written")
        self._failures = families.counter("shared_store_failures", "Requests that the bucket failed", "direction")
        self._up = families.gauge("shared_store_up", "Whether the bucket is asked", "livemin", "direction")
        self._waiting = families.gauge("shared_store_waiting", "Contents that are to be written", "livesum")
        for outcome in Read:
            self._reads.labels(outcome.value)
        for outcome_of_write in ("written", "failed"):
            self._writes.labels(outcome_of_write)
        for direction in (READ, WRITE):
            self._failures.labels(direction)

    def take_over(self) -> None:
        """Bring them up to date."""
        shared, grow = self._core.shared, self._families.grow
        if shared is None:
            return
        counts = shared.content.counts
        grow(self._reads, by_label(counts.reads))
        grow(self._writes, {("written",): counts.written, ("failed",): counts.not_written})
        grow(self._read_bytes, {(): counts.read_bytes})
        grow(self._written_bytes, {(): counts.written_bytes})
        grow(self._failures, {(READ,): shared.reading.failures, (WRITE,): shared.writing.failures})
        self._up.labels(READ).set(shared.reading.is_up)
        self._up.labels(WRITE).set(shared.writing.is_up)
        self._waiting.set(shared.uploads.pending)


def shared_numbers(core: Core) -> dict[str, Json] | None:
    """Return what there is to know of the bucket, of all workers, since the start; None without one."""
    shared = core.shared
    if shared is None:
        return None
    sums = core.elsewhere.shared_store + Counter(shared.content.counts.sums())
    return {
        "reading": shared.reading.is_up,
        "writing": shared.writing.is_up,
        "waiting": shared.uploads.pending_of_all,
        "reads": {outcome.value: sums[f"reads {outcome.value}"] for outcome in Read},
        "read_bytes": sums["read_bytes"],
        "written": sums["written"],
        "written_bytes": sums["written_bytes"],
    }
