"""`process_*` of all workers: prometheus-client has them for a process that is alone only.

Memory and processor time are summed. Of open files the fullest worker counts, for each has a limit of its own.
"""

import os
import resource
from pathlib import Path

from regproxy.stack.metric_families import Families

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class WorkerProcessMetrics:
    """Those of this worker; what is answered is of all."""

    def __init__(self, families: Families) -> None:
        self._resident = families.process_gauge("resident_memory_bytes", "Memory that is in use", "livesum")
        self._virtual = families.process_gauge("virtual_memory_bytes", "Address space", "livesum")
        self._open = families.process_gauge("open_fds", "Open files, of the worker with most of them", "livemax")
        self._most = families.process_gauge("max_fds", "The most open files that a worker may have", "livemax")
        self._started = families.process_gauge("start_time_seconds", "Unix time of the newest start", "livemax")
        self._seconds = families.process_counter("cpu_seconds", "Processor time")
        self._counted_s = 0.0
        self._started.set(_started_at_s())

    def take_over(self) -> None:
        """Bring them up to date."""
        virtual, resident, *_ = map(int, Path("/proc/self/statm").read_text().split())
        self._virtual.set(virtual * _PAGE_BYTES)
        self._resident.set(resident * _PAGE_BYTES)
        self._open.set(len(os.listdir("/proc/self/fd")))  # noqa: PTH208 - names of numbers
        self._most.set(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        spent_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        self._seconds.inc(spent_s - self._counted_s)
        self._counted_s = spent_s


def _started_at_s() -> float:
    """Return when this process was started, as the kernel has it."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    boot_s = next(
        float(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime ")
    )
    return boot_s + ticks / _TICKS_PER_S
