"""Figures of one kind of proxy, over several repeats."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Series:
    """All figures of a run, by what was run and by the name of the figure."""

    of: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, subject: str, figures: Mapping[str, float]) -> None:
        """Add the figures of one repeat."""
        known = self.of.setdefault(subject, {})
        for name, figure in figures.items():
            known.setdefault(name, []).append(figure)

    def median(self, subject: str, name: str) -> float | None:
        """Return a median, None when there is no figure."""
        figures = self.of.get(subject, {}).get(name)
        return statistics.median(figures) if figures else None

    def spread(self, subject: str, name: str) -> tuple[float, float] | None:
        """Return the least and the greatest figure."""
        figures = self.of.get(subject, {}).get(name)
        return (min(figures), max(figures)) if figures else None
