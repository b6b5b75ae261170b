"""What was served and fetched on each day, and its text form: the counters that outlive the process.

Days are those of UTC, as numbers since 1970-01-01. The text comes from a file that anybody may have changed, so what
cannot be read is an error and never a number.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Self

DAY_S = 86400
KEPT_DAYS = 31

FORM = 1
"""Of the text: a later one is not read."""


@dataclass(slots=True)
class DayCounts:
    """Numbers that only grow within their day. Reads are GET and HEAD of manifests and blobs with a good answer."""

    hits: int = 0
    """Reads that the cache answered: fresh, revalidated or stale."""
    misses: int = 0
    """Reads for which content came from a registry."""
    served_bytes: int = 0
    """Of bodies, to clients."""
    fetched_bytes: int = 0
    """Of bodies, from registries."""
    errors: int = 0

    @property
    def saved_bytes(self) -> int:
        """What clients got and no registry had to send. Not less than none: a download may outrun its clients."""
        return max(0, self.served_bytes - self.fetched_bytes)

    @property
    def hit_ratio(self) -> float | None:
        """From 0 to 1; None when nothing was read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else None

    def add(self, other: "DayCounts") -> None:
        """Add the numbers of another day, or part of one."""
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))


_NAMES = tuple(each.name for each in fields(DayCounts))


@dataclass(slots=True)
class History:
    """The days that are remembered."""

    since_s: float
    """Unix time from which on was counted."""
    days: dict[int, DayCounts] = field(default_factory=dict)

    def day(self, number: int) -> DayCounts:
        """Return the counts of a day, and forget those that are too long ago."""
        counts = self.days.get(number)
        if counts is None:
            counts = self.days[number] = DayCounts()
            for old in [each for each in self.days if each <= number - KEPT_DAYS]:
                del self.days[old]
        return counts

    def sum_of(self, numbers: Iterable[int]) -> DayCounts:
        """Return what was counted on all these days together."""
        total = DayCounts()
        for number in numbers:
            if number in self.days:
                total.add(self.days[number])
        return total

    def to_json(self) -> str:
        """Return the text form; `from_json` reads it back."""
        days = {str(number): {name: getattr(counts, name) for name in _NAMES} for number, counts in self.days.items()}
        return json.dumps({"form": FORM, "since_s": self.since_s, "days": days}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read the text form; ValueError when it is anything else."""
        try:
            told = json.loads(text)
            if told["form"] != FORM:
                raise ValueError(f"form {told['form']!r} of the day counts is not {FORM}")
            days = {int(number): _counts(counts) for number, counts in told["days"].items()}
            since_s = float(told["since_s"])
        except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(f"not day counts: {text[:80]!r}") from error
        newest = sorted(number for number in days if number >= 0)[-KEPT_DAYS:]
        return cls(since_s, {number: days[number] for number in newest})


def _counts(told: Mapping[str, object]) -> DayCounts:
    counts = DayCounts()
    for name in _NAMES:
        number = told[name]
        if type(number) is not int or number < 0:
            raise TypeError(f"{name} is not a count")
        setattr(counts, name, number)
    return counts


def day_of(at_s: float) -> int:
    """Return the day of a Unix time."""
    return int(at_s // DAY_S)
