"""What the proxy holds when nobody asks for anything: memory, descriptors, threads, tasks, partial files."""

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.programs import LabError
from lab.proxy import Proxy

CLIENT = "client"
UPSTREAM = "upstream"
_LISTENS = "0A"
"""The state of a socket that listens, in /proc/net/tcp."""

_BLOCK_BYTES = 512
"""The unit of st_blocks (stat(2))."""

_CENSUS_LIMIT_S = 60.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Footprint:
    """Figures of one moment."""

    rss_bytes: int
    descriptors: Counter[str]
    """By kind: `client`, `upstream` and other sockets, files, deleted files."""
    threads: int
    tasks: Counter[str]
    objects: int
    partial_files: int
    cache_bytes: int
    """What the files of the cache take on the disk, in bytes."""


def measure(proxy: Proxy, census_file: Path) -> Footprint:
    """Ask the kernel, and the proxy for what only itself knows."""
    tasks, objects = _take_census(proxy, census_file)
    (pid, *_) = proxy.pids()
    return Footprint(
        rss_bytes=proxy.rss_bytes(),
        descriptors=_descriptors(pid, proxy.address.port),
        threads=sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()),
        tasks=tasks,
        objects=objects,
        partial_files=sum(1 for _ in (proxy.cache_directory / "partial").iterdir()),
        cache_bytes=cache_bytes(proxy.cache_directory),
    )


def cache_bytes(directory: Path) -> int:
    """Return what the files below take on the disk; files may come and go meanwhile."""
    # by inode: a file that is renamed meanwhile is met twice
    sizes_bytes: dict[int, int] = {}
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found = path.lstat()
            sizes_bytes[found.st_ino] = found.st_blocks * _BLOCK_BYTES
    return sum(sizes_bytes.values())


def content_files(directory: Path) -> set[str]:
    """Return the names of what is stored."""
    return set(_names(directory / "content"))


def _names(directory: Path) -> Iterator[str]:
    for _, _, files in os.walk(directory):
        yield from files


def _descriptors(pid: int, port: int) -> Counter[str]:
    connections = _connections(pid, port)
    kinds: Counter[str] = Counter()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = str(entry.readlink())
            kinds[connections.get(target) or _kind(target)] += 1
    return kinds


def _connections(pid: int, port: int) -> dict[str, str]:
    """Return the ends of TCP connections by the text of their descriptor's link (proc(5), /proc/net/tcp)."""
    found = {}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *rest = line.split()
        if state != _LISTENS:
            is_client = int(local.partition(":")[2], 16) == port
            found[f"socket:[{rest[5]}]"] = CLIENT if is_client else UPSTREAM
    return found


def _kind(target: str) -> str:
    if target.endswith(" (deleted)"):
        return "deleted file"
    return target.partition(":")[0] if target.startswith(("socket:", "pipe:", "anon_inode:")) else "file"


def _take_census(proxy: Proxy, file: Path) -> tuple[Counter[str], int]:
    """Return the tasks by the name of their coroutine, and the number of objects."""
    file.unlink(missing_ok=True)
    os.kill(proxy.pids()[0], signal.SIGUSR1)
    deadline_s = time.monotonic() + _CENSUS_LIMIT_S
    while not file.exists():
        if time.monotonic() > deadline_s:
            raise LabError(f"the proxy did not write {file} in {_CENSUS_LIMIT_S:g} s")
        time.sleep(_POLL_S)
    census = json.loads(file.read_text())
    return Counter(census["tasks"]), int(census["objects"])
