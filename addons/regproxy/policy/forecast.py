"""What will happen if things go on as they do: when a quota is used up, when the cache starts to evict.

Straight lines through what was seen, and no answer where too little was. Times are Unix times and seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

SHORTEST_LOOK_S = 3600.0
"""What was fetched in less than an hour says nothing of a day: the first pulls fill an empty cache."""

SHORTEST_QUOTA_LOOK_S = 60.0
"""One pull is several requests within seconds: as a rate that would use up any quota."""


class Left(NamedTuple):
    """What an answer said of a quota."""

    seen_at_s: float
    remaining: int


class Outlook(StrEnum):
    """How long a quota will do."""

    UNKNOWN = "unknown"
    """Too little was seen of it."""
    LASTS = "lasts"
    """Until it is filled up."""
    RUNS_OUT = "runs_out"


class QuotaForecast(NamedTuple):
    """What will become of a quota."""

    outlook: Outlook
    runs_out_at_s: float | None = None


def quota_forecast(seen: Sequence[Left], passes_at_s: float) -> QuotaForecast:
    """Return whether a quota is used up before `passes_at_s`, when it is filled up.

    `seen` is in the order of time; what was seen before the quota last grew is of an earlier window.
    """
    if seen and seen[-1].remaining <= 0:
        return QuotaForecast(Outlook.RUNS_OUT, seen[-1].seen_at_s)
    begin = 0
    for number in range(1, len(seen)):
        if seen[number].remaining > seen[number - 1].remaining:
            begin = number
    looked_at = seen[begin:]
    if not looked_at or looked_at[-1].seen_at_s - looked_at[0].seen_at_s < SHORTEST_QUOTA_LOOK_S:
        return QuotaForecast(Outlook.UNKNOWN)
    first, last = looked_at[0], looked_at[-1]
    used, in_s = first.remaining - last.remaining, last.seen_at_s - first.seen_at_s
    if used == 0:
        return QuotaForecast(Outlook.LASTS)
    at_s = last.seen_at_s + last.remaining * in_s / used
    return QuotaForecast(Outlook.RUNS_OUT, at_s) if at_s < passes_at_s else QuotaForecast(Outlook.LASTS)


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
