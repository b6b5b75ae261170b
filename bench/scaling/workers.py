"""One proxy as 1, 2 and 4 workers, everything warm, by both doors.

Two cores cannot show what four workers do on four: clients need as much of a core as the proxy. So each row has the
CPU time of the proxy beside its rate. CPU time per request, or per GiB, says what one core gives: its inverse.
The row `pinned` has one worker on a core of its own and the clients on the others: what one core gives, seen.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench import procfs
from bench.clients import SlowClients, curl, hey
from bench.peers import OURS, Instance, Peer, Target
from bench.peers.base import Site
from bench.sizes import MIB
from bench.stage import Stage
from bench.upstream import Door

_GIB = 1 << 30
_CLIENTS = 4
_WAITING_CLIENTS = 200
_WAITING_RATE_BYTES_PER_S = 50_000


@dataclasses.dataclass(frozen=True, slots=True)
class Subject:
    """A way to run the proxy."""

    name: str
    workers: int
    is_pinned: bool = False
    """True: the proxy has the first core, and nobody else has it."""


SUBJECTS = (
    Subject("pinned", 1, is_pinned=True),
    Subject("1 worker", 1),
    Subject("2 workers", 2),
    Subject("4 workers", 4),
)


def peer_of(subject: Subject) -> Peer:
    """Return the proxy as one of the benchmark's peers."""

    def start(site: Site) -> Instance:
        previous = os.environ.get("LAB_WORKERS")
        os.environ["LAB_WORKERS"] = str(subject.workers)
        try:
            return OURS.start(site)
        finally:
            os.environ.pop("LAB_WORKERS")
            if previous is not None:
                os.environ["LAB_WORKERS"] = previous

    return dataclasses.replace(OURS, name=subject.name.replace(" ", "-"), start=start)


def figures_of(stage: Stage, subject: Subject) -> Mapping[str, float]:
    """Return the figures of one repeat; the peer of the subject must have been started."""
    instance = stage.warm[peer_of(subject).name]
    with _placed(subject, instance.pids()):
        return _measured(stage, instance, subject)


def heat(stage: Stage, subject: Subject) -> None:
    """Fill the cache, and each worker's memory, with what is going to be read."""
    peer, sizes = peer_of(subject), stage.sizes
    instance = stage.warm[peer.name]
    stage.heat(peer, Door.FAST, stage.content.large_blob)
    stage.heat(peer, Door.FAST, stage.content.slowly_read_blob)
    for target, path in _doors(instance, stage.content.manifest).values():
        # A connection that meets something cold leaves the warm way for good: the first ones are thrown away.
        hey(target, path, seconds=1, connections=sizes.hey_connections * subject.workers, keep_alive=False)


def mirror_target(instance: Instance) -> Target:
    """Return how a client reaches the mirror door."""
    proxy = instance.targets[Door.FAST].proxy
    assert proxy is not None
    return Target("http", str(proxy), instance.targets[Door.FAST].ca_file)


def mirrored(path: str) -> str:
    """Return a path as a client of the mirror door asks for it."""
    return f"{path}?ns={Door.FAST.authority}"


def _doors(instance: Instance, path: str) -> Mapping[str, tuple[Target, str]]:
    return {"tls": (instance.targets[Door.FAST], path), "mirror": (mirror_target(instance), mirrored(path))}


def _measured(stage: Stage, instance: Instance, subject: Subject) -> dict[str, float]:
    sizes, figures = stage.sizes, dict[str, float]()
    for door, (target, path) in _doors(instance, stage.content.manifest).items():
        for kind, keep_alive in (("kept", True), ("new", False)):
            before_s = procfs.cpu_s(instance.pids())
            rate = hey(target, path, seconds=sizes.hey_s, connections=sizes.hey_connections, keep_alive=keep_alive)
            used_s = procfs.cpu_s(instance.pids()) - before_s
            figures[f"{door}-{kind}-rate"] = rate
            figures[f"{door}-{kind}-cpu"] = used_s / (rate * sizes.hey_s) * 1e6
    for door, (target, path) in _doors(instance, stage.content.large_blob).items():
        before_s = procfs.cpu_s(instance.pids())
        seconds = curl(target, path, times=_CLIENTS)
        body_bytes = sizes.large_blob_bytes * _CLIENTS
        figures[f"{door}-blob-speed"] = body_bytes / seconds / 1e6
        figures[f"{door}-blob-cpu"] = (procfs.cpu_s(instance.pids()) - before_s) * _GIB / body_bytes
    figures["memory"] = _proportional_bytes(instance.pids()) / MIB
    if not subject.is_pinned:
        for door, (target, path) in _doors(instance, stage.content.slowly_read_blob).items():
            figures[f"{door}-waiting"] = _bytes_of_a_waiting_client(instance, target, path) / 1024
    return figures


def _bytes_of_a_waiting_client(instance: Instance, target: Target, path: str) -> float:
    """Return what the proxy's memory grows by for each client that reads slowly."""
    before_bytes = _proportional_bytes(instance.pids())
    slow = SlowClients(target, path, clients=_WAITING_CLIENTS, rate_bytes_per_s=_WAITING_RATE_BYTES_PER_S)
    with slow:
        grown_bytes = _proportional_bytes(instance.pids()) - before_bytes
        slow.finish()
    return max(0.0, grown_bytes / _WAITING_CLIENTS)


def _proportional_bytes(pids: Sequence[int]) -> int:
    """Return the memory of processes; what some of them share is counted once (proc(5), `Pss`)."""
    found = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    found += int(line.split()[1]) * 1024
    return found


@contextlib.contextmanager
def _placed(subject: Subject, pids: Sequence[int]) -> Iterator[None]:
    """Give the proxy a core of its own, while the block runs."""
    cores = os.sched_getaffinity(0)
    if not subject.is_pinned or len(cores) < 2:
        yield
        return
    first = {min(cores)}
    _place(pids, first)
    os.sched_setaffinity(0, cores - first)  # the clients inherit it
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        _place(pids, cores)


def _place(pids: Sequence[int], cores: set[int]) -> None:
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(task.name), cores)
