"""Max-min fair shares of limits: progressive filling (Bertsekas and Gallager, Data Networks, section 6.5.2)."""

from collections.abc import Sequence
from dataclasses import dataclass

_CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Limit:
    """What some flows have together at most."""

    name: str
    bytes_s: float
    flows: tuple[int, ...]
    """Their numbers."""


def shares(weights: Sequence[float], limits: Sequence[Limit]) -> tuple[list[float], list[str]]:
    """Return what one of each flow gets, in bytes a second, and the name of the limit that holds it.

    `weights` says how many flows of a kind there are. Every flow must be under some limit.
    """
    rates, held_by = [0.0] * len(weights), [""] * len(weights)
    growing = set(range(len(weights)))
    while growing:
        level, tightest = min(
            (
                (_level(limit, weights, rates, growing), limit)
                for limit in limits
                if not growing.isdisjoint(limit.flows)
            ),
            key=lambda found: (found[0], found[1].name),
        )
        for number in growing.intersection(tightest.flows):
            rates[number], held_by[number] = max(level, _CLOSE), tightest.name
        growing.difference_update(tightest.flows)
    return rates, held_by


def _level(limit: Limit, weights: Sequence[float], rates: Sequence[float], growing: set[int]) -> float:
    """Return the rate at which a limit is used up, when all that are under it grow alike."""
    taken = sum(weights[number] * rates[number] for number in limit.flows if number not in growing)
    return max(0.0, limit.bytes_s - taken) / sum(weights[number] for number in limit.flows if number in growing)
