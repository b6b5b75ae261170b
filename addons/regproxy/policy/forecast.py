"""What will happen if things go on as they do: when a quota is used up, when the cache starts to evict.

Straight lines through what was seen, and no answer where too little was. Times are Unix times and seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

SHORTEST_LOOK_S = 3600.0
"""What was fetched in less than an hour says nothing of a day: the first pulls fill an empty cache."""


class Left(NamedTuple):
    """What an answer said of a quota."""

    seen_at_s: float
    remaining: int


def runs_out_at_s(seen: Sequence[Left], passes_at_s: float) -> float | None:
    """Return when a quota is used up; None when it lasts until it is filled up, or nobody can tell.

    `seen` is in the order of time; what was seen before the quota last grew is of an earlier window.
    """
    begin = 0
    for number in range(1, len(seen)):
        if seen[number].remaining > seen[number - 1].remaining:
            begin = number
    if begin >= len(seen):
        return None
    first, last = seen[begin], seen[-1]
    if last.remaining <= 0:
        return last.seen_at_s
    used, in_s = first.remaining - last.remaining, last.seen_at_s - first.seen_at_s
    if used <= 0 or in_s <= 0:
        return None
    at_s = last.seen_at_s + last.remaining * in_s / used
    return at_s if at_s < passes_at_s else None


class Cause(StrEnum):
    """Why the oldest content will go."""

    ROOM = "room"
    UNUSED = "unused"


@dataclass(frozen=True, slots=True)
class Horizon:
    """What becomes of content that nobody reads."""

    oldest_goes_in_s: float
    """When what was read longest ago is evicted."""
    cause: Cause
    unread_stays_s: float
    """How long content stays in the long run if nobody reads it."""


def fill_bytes_per_s(fetched_bytes: int, in_s: float) -> float | None:
    """Return how fast the cache fills; None when too little time was looked at."""
    return fetched_bytes / in_s if in_s >= SHORTEST_LOOK_S else None


def eviction_horizon(
    bytes_per_s: float, *, used_bytes: int, room_bytes: int, oldest_age_s: float, inactive_s: float
) -> Horizon:
    """Return when the oldest entry goes: when the room is used up, or when nobody has read it for `inactive_s`."""
    unused_in_s = max(0.0, inactive_s - oldest_age_s)
    if bytes_per_s <= 0:
        return Horizon(unused_in_s, Cause.UNUSED, inactive_s)
    room_bytes = max(0, room_bytes)
    full_in_s = room_bytes / bytes_per_s
    stays_s = min(inactive_s, (used_bytes + room_bytes) / bytes_per_s)
    if full_in_s < unused_in_s:
        return Horizon(full_in_s, Cause.ROOM, stays_s)
    return Horizon(unused_in_s, Cause.UNUSED, stays_s)
