"""What was asked of the bucket and what came of it, in numbers that only grow."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Read(StrEnum):
    """What became of looking for a content that the disk lacks."""

    FOUND = "found"
    MISSING = "missing"
    """The bucket does not have it."""
    UNANSWERED = "unanswered"
    """The bucket was not asked, gave no answer, or not all of it."""
    WRONG = "wrong"
    """The bucket had other bytes than it should."""


@dataclass(slots=True)
class SharedCounts:
    """Since the start."""

    reads: Counter[Read] = field(default_factory=Counter)
    read_bytes: int = 0
    """Of content, also of what was wrong."""
    written: int = 0
    """Contents."""
    written_bytes: int = 0
    not_written: int = 0
    """Attempts that failed; what failed is tried again."""

    def sums(self) -> dict[str, int]:
        """Return what operators are shown."""
        reads = {f"reads {outcome.value}": count for outcome, count in self.reads.items()}
        return reads | {
            "read_bytes": self.read_bytes,
            "written": self.written,
            "written_bytes": self.written_bytes,
        }
