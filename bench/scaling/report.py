"""What was measured, as results-scaling.md and results-scaling.json."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.report import align, number, pairs
from bench.scaling import replicas
from bench.scaling.figures import Series
from bench.scaling.workers import SUBJECTS

NAME = "results-scaling"

_WORKER_ROWS: Sequence[tuple[str, str, str]] = (
    ("tls-kept-rate", "Manifest, TLS, kept connections", "requests/s"),
    ("tls-kept-cpu", "CPU of the proxy for one", "us"),
    ("tls-new-rate", "Manifest, TLS, a new connection each time", "requests/s"),
    ("tls-new-cpu", "CPU of the proxy for one", "us"),
    ("mirror-kept-rate", "Manifest, mirror door, kept connections", "requests/s"),
    ("mirror-kept-cpu", "CPU of the proxy for one", "us"),
    ("mirror-new-rate", "Manifest, mirror door, a new connection each time", "requests/s"),
    ("mirror-new-cpu", "CPU of the proxy for one", "us"),
    ("tls-blob-speed", "Large blob, TLS, four clients, total", "MB/s"),
    ("tls-blob-cpu", "CPU of the proxy", "s/GiB"),
    ("mirror-blob-speed", "Large blob, mirror door, four clients, total", "MB/s"),
    ("mirror-blob-cpu", "CPU of the proxy", "s/GiB"),
    ("memory", "Memory (PSS) of all processes", "MiB"),
    ("tls-waiting", "More of it for each slow client, TLS", "KiB"),
    ("mirror-waiting", "More of it for each slow client, mirror door", "KiB"),
)
_REPLICA_ROWS: Sequence[tuple[str, str]] = (
    ("cold", "Cold, through the first replica, from the registry"),
    ("bucket", "Cold, through the second replica, from the bucket"),
    ("warm", "Warm, from the second replica's disk"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingReport:
    """One run, ready to be written."""

    date: str
    machine: Mapping[str, str]
    repeats: int
    is_full: bool
    seconds: float
    series: Series

    def write(self, directory: Path) -> None:
        """Write both files."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{NAME}.md").write_text(self.markdown())
        document = {
            "date": self.date,
            "machine": dict(self.machine),
            "repeats": self.repeats,
            "is_full": self.is_full,
            "seconds": round(self.seconds),
            "figures": self.series.of,
        }
        (directory / f"{NAME}.json").write_text(json.dumps(document, indent=1) + "\n")

    def workers(self) -> str:
        """Return the table of 1, 2 and 4 workers."""
        subjects = [subject for subject in SUBJECTS if subject.name in self.series.of]
        lines = [["", "unit", *(subject.name for subject in subjects)]]
        for name, title, unit in _WORKER_ROWS:
            lines.append([title, unit, *(self._cell(subject.name, name) for subject in subjects)])
        return align(lines)

    def replicas(self) -> str:
        """Return the table of two replicas with a bucket."""
        lines = [["", "MB/s", "CPU of the proxy, s/GiB"]]
        for name, title in _REPLICA_ROWS:
            cells = (self._cell(replicas.SUBJECT, f"{name}-{figure}") for figure in ("speed", "cpu"))
            lines.append([title, *cells])
        return align(lines)

    def markdown(self) -> str:
        """Return the page."""
        partly = "" if self.is_full else "\nThis is no full run: its sizes, rows or repeats are fewer.\n"
        return f"""# Workers and replicas

Written by `make bench-scaling` on {self.date}, {self.seconds / 60:.0f} minutes. Do not edit.
{partly}
Median of {self.repeats} repeats, and the least and greatest figure. MB is 10^6 bytes.
What follows from it for a cluster: [docs/scaling.md](../docs/scaling.md).

## Workers

{self.workers()}

- Clients, proxy and registry share the machine's cores. So the rates say what fits beside the clients, not what so many
  workers can do; **CPU for one request, and for one GiB, is what counts**: a core gives one second of it a second.
- `pinned`: one worker has the first core to itself and the clients have the others. This is what one core gives, as
  long as the clients can ask for as much.
- Everything is warm. The mirror door is plain HTTP on the proxy's own port, as containerd uses it.
- Memory is that of all processes, with what they share counted once. A slow client reads 50 kB/s; 200 of them at once.

## Two replicas, one bucket

{self.replicas()}

One blob after the other, by the mirror door, one client. The engine is SeaweedFS on the same cores, the registry nginx.
The second replica asked the registry for nothing. Median time from the first request to the blob being in the bucket:
{self._cell(replicas.SUBJECT, "written")} s.

## Machine

{pairs(self.machine)}
"""

    def _cell(self, subject: str, name: str) -> str:
        median, spread = self.series.median(subject, name), self.series.spread(subject, name)
        if median is None or spread is None:
            return "-"
        return f"{number(median)} ({number(spread[0])} to {number(spread[1])})"
