"""What the kernel says about a program and its children: CPU time, memory, threads (proc(5)).

A program that ends while it is read counts as nothing.
"""

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return `pid` and all its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        found.append(parent)
        waiting.extend(children.get(parent, []))
    return found


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds that these processes and their children that have ended used so far."""
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _stat(pid))) / _TICKS_PER_S


def rss_bytes(pids: Iterable[int]) -> int:
    """Return the memory that these processes hold, in bytes; pages that they share count once for each."""
    return sum(_status(pid, "VmRSS:") for pid in pids) * 1024


def threads(pids: Iterable[int]) -> int:
    """Return how many threads these processes have."""
    return sum(_status(pid, "Threads:") for pid in pids)


def _stat(pid: int) -> list[str]:
    """Return the fields after the name, from field 3 on; none when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # the name in field 2 may contain blanks and brackets: count from its last bracket
    return text.rpartition(")")[2].split()


def _status(pid: int, name: str) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(name))
