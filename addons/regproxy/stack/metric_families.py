"""How metrics are made, kept to few label values, and written out in Prometheus' text format.

With PROMETHEUS_MULTIPROC_DIR set, several processes count together (prometheus-client, "Multiprocess Mode"): each
writes files in that directory, and whoever is asked answers for all of them.
"""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

PREFIX = "registry_proxy_"

MOST_REGISTRIES = 200
"""Wildcards could otherwise let clients make any number of label values; the rest is `other`."""

OTHER = "other"

_GAUGE_OF_THE_LIVING = re.compile(r"gauge_live[a-z]+_([0-9]+)\.db")


class Families:
    """The metrics of one process. Constructing it makes the shared directory, if there is to be one; OSError."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._shared = shared_directory()
        self._names: set[str] = set()
        self._taken: dict[Counter, dict[tuple[str, ...], int]] = {}
        if self._shared is None:
            ProcessCollector(registry=self.registry)
        else:
            self._shared.mkdir(mode=0o700, parents=True, exist_ok=True)

    def counter(self, name: str, meaning: str, *labels: str) -> Counter:
        """Return a new counter; its name gets our prefix and `_total`."""
        return Counter(f"{PREFIX}{name}", meaning, labels, registry=self.registry)

    def gauge(self, name: str, meaning: str, mode: str, *labels: str) -> Gauge:
        """Return a new gauge; `mode` says what several processes make of it."""
        return Gauge(f"{PREFIX}{name}", meaning, labels, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def process_gauge(self, name: str, meaning: str, mode: str) -> Gauge:
        """Return a gauge of the names that all programs have."""
        return Gauge(f"process_{name}", meaning, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def process_counter(self, name: str, meaning: str) -> Counter:
        """Return a counter of the names that all programs have."""
        return Counter(f"process_{name}", meaning, registry=self.registry)

    def histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        """Return a new histogram."""
        return Histogram(f"{PREFIX}{name}", meaning, labels, buckets=buckets, registry=self.registry)

    def bounded(self, registry: str) -> str:
        """Return what stands for a registry, or an upstream, in a label: itself for the first `MOST_REGISTRIES`."""
        if registry not in self._names:
            if len(self._names) >= MOST_REGISTRIES:
                return OTHER
            self._names.add(registry)
        return registry

    def grow(self, counter: Counter, counts: Mapping[tuple[str, ...], int]) -> None:
        """Add what a number has grown by since it was looked at last."""
        taken = self._taken.setdefault(counter, {})
        for labels, count in counts.items():
            grown = count - taken.get(labels, 0)
            if grown > 0:
                (counter.labels(*labels) if labels else counter).inc(grown)
                taken[labels] = count

    def text(self) -> bytes:
        """Return all metrics, of all processes that count together."""
        if self._shared is None:
            return generate_latest(self.registry)
        _bury_the_dead(self._shared)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def shared_directory() -> Path | None:
    """Return where several processes count together; None for a process on its own."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    return Path(directory) if directory else None


def by_label[Name: str](counts: Mapping[Name, int]) -> dict[tuple[str, ...], int]:
    """Return counts by their one label; the copy is made in one step, for another thread may be counting."""
    return {(str(name),): count for name, count in list(counts.items())}


def _bury_the_dead(directory: Path) -> None:
    """Take out what processes that are gone had under way; what they have counted stays."""
    pids = {int(found[1]) for path in directory.iterdir() if (found := _GAUGE_OF_THE_LIVING.fullmatch(path.name))}
    for pid in pids:
        if not Path(f"/proc/{pid}").exists():
            with suppress(FileNotFoundError):  # another process is at it, too
                mark_process_dead(pid)  # type: ignore[no-untyped-call]
