"""Which bytes of a file are there: a set of half-open byte intervals, merged and in order.

Several connections may fill one blob from several offsets; what readers may see is the prefix without a hole, what is
still to be fetched are the holes. Positions are offsets in bytes; `end` is the first byte that is not included.
"""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Intervals:
    """An immutable set of bytes; every operation returns a new set."""

    spans: tuple[tuple[int, int], ...] = ()
    """Ordered, never empty, never touching: `a_end < b_start` for neighbours."""

    def __post_init__(self) -> None:
        previous_end = -1
        for start, end in self.spans:
            if start < 0 or start >= end or start <= previous_end:
                raise ValueError(f"byte intervals are not ordered, disjoint and non-empty: {self.spans}")
            previous_end = end

    def add(self, start: int, end: int) -> Self:
        """Return the set with the bytes start..end-1 in it."""
        if not 0 <= start <= end:
            raise ValueError(f"no such byte interval: {start}-{end}")
        if start == end:
            return self
        before = tuple(span for span in self.spans if span[1] < start)
        after = tuple(span for span in self.spans if span[0] > end)
        joined = self.spans[len(before) : len(self.spans) - len(after)]
        if joined:
            start, end = min(start, joined[0][0]), max(end, joined[-1][1])
        return type(self)((*before, (start, end), *after))

    def prefix_bytes(self) -> int:
        """Return how many bytes from offset 0 on are there without a hole."""
        return self.spans[0][1] if self.spans and self.spans[0][0] == 0 else 0

    def missing(self, start: int, end: int) -> tuple[tuple[int, int], ...]:
        """Return the holes within start..end-1, in order."""
        holes: list[tuple[int, int]] = []
        position = start
        for span_start, span_end in self.spans:
            if span_start >= end:
                break
            if span_start > position:
                holes.append((position, span_start))
            position = max(position, span_end)
        if position < end:
            holes.append((position, end))
        return tuple(holes)

    def total_bytes(self) -> int:
        """Return how many bytes are there."""
        return sum(end - start for start, end in self.spans)

    def end(self) -> int:
        """Return the offset after the last byte that is there, 0 for the empty set."""
        return self.spans[-1][1] if self.spans else 0
