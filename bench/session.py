"""The order of a run: rows one after the other, within a row repeats outside and peers inside.

Each repeat begins with another peer, so that none is always the first after a pause or the last on a warm machine.
A peer that fails at a row is left out of it and the failure is part of the results.
"""

import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.clients import ClientError
from bench.measures import Trial
from bench.peers import Peer
from bench.rows import Metric, Row
from bench.stage import Stage
from lab.programs import LabError

logger = logging.getLogger(__name__)

_FAILURES = (ClientError, LabError, OSError)


@dataclass(slots=True)
class Results:
    """All figures of a run, by row, metric and peer."""

    figures: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    """What went otherwise than planned."""
    seconds: float = 0.0

    def add(self, row: Row, metric: str, peer: str, figure: float) -> None:
        """Add one figure."""
        self.figures.setdefault(row.name, {}).setdefault(metric, {}).setdefault(peer, []).append(figure)

    def median(self, row: Row, metric: Metric, peer: str) -> float | None:
        """Return a peer's median, None when it has no figure."""
        figures = self.figures.get(row.name, {}).get(metric.name, {}).get(peer)
        return statistics.median(figures) if figures else None

    def spread(self, row: Row, metric: Metric, peer: str) -> tuple[float, float] | None:
        """Return the least and the greatest of a peer's figures."""
        figures = self.figures.get(row.name, {}).get(metric.name, {}).get(peer)
        return (min(figures), max(figures)) if figures else None


def run(stage: Stage, peers: Sequence[Peer], rows: Sequence[Row]) -> Results:
    """Run the rows against the peers."""
    results = Results()
    started_s = time.monotonic()
    for row in rows:
        taking_part = [peer for peer in peers if peer.is_proxy or not row.needs_proxy]
        taking_part = [peer for peer in taking_part if _heat(stage, row, peer, results)]
        for repeat in range(1 if row.once else stage.sizes.repeats):
            first = repeat % len(taking_part) if taking_part else 0
            for peer in taking_part[first:] + taking_part[:first]:
                if not _measure(Trial(stage, peer), row, results):
                    taking_part = [other for other in taking_part if other is not peer]
    results.seconds = time.monotonic() - started_s
    return results


def _heat(stage: Stage, row: Row, peer: Peer, results: Results) -> bool:
    """Fill a peer's cache for a row; False when it fails at that."""
    for door, path in row.heats(stage):
        try:
            if not stage.heat(peer, door, path):
                _remark(results, f"{row.name}: {peer.name} goes on asking the upstream for {path[:60]}")
        except _FAILURES as error:
            _remark(results, f"{row.name}: {peer.name} is left out: {error}")
            return False
    return True


def _measure(trial: Trial, row: Row, results: Results) -> bool:
    """Measure once; False when the peer fails."""
    peer = trial.peer.name
    try:
        figures = row.measure(trial)
    except _FAILURES as error:
        _remark(results, f"{row.name}: {peer} is left out from here on: {error}")
        return False
    for metric, figure in figures.items():
        results.add(row, metric, peer, figure)
    logger.info("%s: %s %s", row.name, peer, ", ".join(f"{name} {figure:.4g}" for name, figure in figures.items()))
    return True


def _remark(results: Results, text: str) -> None:
    logger.warning("%s", text)
    results.remarks.append(text)
