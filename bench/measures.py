"""How each row is measured, once, against one peer. Returns figures by the names of the row's metrics."""

import shutil
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench import procfs
from bench.clients import ClientError, SlowClients, curl, hey, stream
from bench.peers import Instance, Peer, Target
from bench.pulls import pull_often
from bench.sizes import MIB, UPSTREAM_RATE_BYTES_PER_S
from bench.stage import TAG, Stage
from bench.upstream import Door
from lab.skopeo import Skopeo

type Figures = Mapping[str, float]

_GIB = 1 << 30
_SETTLE_S = 0.1
_READINGS = 40


@dataclass(frozen=True, slots=True)
class Trial:
    """One row's turn at one peer."""

    stage: Stage
    peer: Peer

    @property
    def instance(self) -> Instance:
        """The instance that is warm."""
        return self.stage.warm[self.peer.name]

    def target(self, door: Door = Door.FAST) -> Target:
        """Return how to reach a door through the warm instance."""
        return self.instance.targets[door]


class _CpuMeter:
    """CPU seconds of a peer between two moments."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count while the block runs."""
        pids = self._trial.instance.pids()
        before_s = procfs.cpu_s(pids)
        yield
        self.seconds = procfs.cpu_s(pids) - before_s

    def figures(self, body_bytes: int) -> Figures:
        """Return the row's CPU metric; none where there is no proxy."""
        return {"cpu": self.seconds * _GIB / body_bytes} if self._trial.peer.is_proxy else {}


def blob(trial: Trial, door: Door, clients: int) -> Figures:
    """Pull the large blob with so many clients at once."""
    sizes, meter = trial.stage.sizes, _CpuMeter(trial)
    with meter.running():
        seconds = curl(trial.target(door), trial.stage.content.large_blob, times=clients)
    body_bytes = sizes.large_blob_bytes * clients
    return {"speed": body_bytes / seconds / 1e6, **meter.figures(body_bytes)}


def requests(trial: Trial, *, keep_alive: bool) -> Figures:
    """Ask for a manifest by tag as often as possible."""
    sizes = trial.stage.sizes
    rate = hey(
        trial.target(),
        trial.stage.content.manifest,
        seconds=sizes.hey_s,
        connections=sizes.hey_connections,
        keep_alive=keep_alive,
    )
    return {"rate": rate}


def cold(trial: Trial) -> Figures:
    """Pull a blob that is not cached from the slow upstream."""
    with trial.stage.fresh(trial.peer) as instance:
        return {"time": curl(instance.targets[Door.SLOW], trial.stage.content.cold_blob)}


def followers(trial: Trial) -> Figures:
    """Let several clients want the same cold blob at the same moment."""
    stage = trial.stage
    with stage.fresh(trial.peer) as instance:
        mark = stage.upstream.mark()
        streamed = stream(instance.targets[Door.SLOW], stage.content.cold_blob, times=stage.sizes.followers)
        fetches = stage.upstream.gets_since(mark, stage.content.cold_blob)
    return {
        "time": max(one.last_byte_s for one in streamed),
        "first-byte": max(one.first_byte_s for one in streamed),
        "fetches": fetches,
    }


def skopeo_pull(trial: Trial, name: str, times: int) -> Figures:
    """Pull a whole image with skopeo, so many times one after the other; the time is that of one."""
    target, home = trial.target(), trial.stage.directory / "skopeo"
    seconds = 0.0
    for _ in range(times):
        skopeo = Skopeo(home, target.ca_file, target.proxy)  # a new home: it remembers which blobs it has met
        started_s = time.monotonic()
        skopeo.pull(f"{target.authority}/{name}:{TAG}", home / "image")
        seconds += time.monotonic() - started_s
        shutil.rmtree(home)
    return {"time": seconds / times}


def beside_slow_clients(trial: Trial) -> Figures:
    """Compare a fast client's speed alone and while many slow ones are served."""
    sizes, content, target = trial.stage.sizes, trial.stage.content, trial.target()
    alone_s = curl(target, content.large_blob)
    slow = SlowClients(
        target, content.slowly_read_blob, clients=sizes.slow_clients, rate_bytes_per_s=sizes.slow_rate_bytes_per_s
    )
    with slow:
        beside_s = curl(target, content.large_blob)
        threads = procfs.threads(trial.instance.pids())
        slow_bytes_per_s = slow.finish()
    figures = {"share": alone_s / beside_s, "slow": slow_bytes_per_s / 1000}
    return {**figures, "threads": threads} if trial.peer.is_proxy else figures


def memory(trial: Trial) -> Figures:
    """Read the memory after all rows, before and after many pulls.

    Memory goes up and down by some MiB with the garbage collector, and what the rows before have left is given back
    late. So growth is the slope of a line through many readings, not the difference of two.
    """
    stage, target, instance = trial.stage, trial.target(), trial.instance
    curl(target, stage.content.cold_blob)  # the warm instance has met it never: its cold path is run, too
    pull_often(target, stage.content.small_pull, times=stage.sizes.warm_pulls)
    readings: list[int] = []
    for _ in range(_READINGS):
        pull_often(target, stage.content.small_pull, times=stage.sizes.pulls // _READINGS)
        time.sleep(_SETTLE_S)
        readings.append(procfs.rss_bytes(instance.pids()))
    growth_scale = _READINGS * 1000 / stage.sizes.pulls  # readings in 1,000 pulls
    slope = statistics.linear_regression(range(_READINGS), readings).slope
    return {
        "rss": statistics.median(readings) / MIB,
        "highest": max(readings) / MIB,
        "growth": slope * growth_scale / MIB,
    }


def check_slow_upstream(stage: Stage) -> float:
    """Return how fast the slow upstream gives the cold blob, in MB/s; ClientError when it is not slow."""
    target = Target("https", str(stage.upstream.addresses[Door.SLOW]), stage.upstream.pki.ca_file)
    speed = stage.sizes.cold_blob_bytes / curl(target, stage.content.cold_blob)
    if speed > 2 * UPSTREAM_RATE_BYTES_PER_S:
        raise ClientError(f"the slow upstream gives {speed / 1e6:.0f} MB/s")
    return speed / 1e6
