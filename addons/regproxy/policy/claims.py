"""Who of several workers does what all of them want done once: claims with a holder and those who wait.

The first to claim a key holds it. Whoever claims it then waits, hears what the holder says, and is told when it is
over; if the holder dies before that, the one who has waited longest takes its place. Keys are texts, workers numbers; a
claimant is a worker's claim (a worker may claim a key again before it has heard the end of its last claim).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Claimant(NamedTuple):
    """One worker's claim."""

    worker: int
    number: int
    """The worker's own number for it."""


@dataclass(slots=True)
class _Claimed:
    holder: Claimant
    waiting: list[Claimant] = field(default_factory=list)
    said: object = None


@dataclass(frozen=True, slots=True)
class Passed:
    """A claim that a worker has left behind."""

    heir: Claimant
    said: object
    is_followed: bool
    """Whether others wait still."""


class ClaimBook:
    """All claims. A claimant that is not known is passed over: it may have been told of the end a moment ago."""

    def __init__(self) -> None:
        self._claimed: dict[str, _Claimed] = {}

    def claim(self, key: str, claimant: Claimant) -> bool:
        """Return whether the claimant holds the key now; else it waits."""
        claimed = self._claimed.get(key)
        if claimed is None:
            self._claimed[key] = _Claimed(claimant)
            return True
        claimed.waiting.append(claimant)
        return False

    def holder(self, key: str) -> Claimant | None:
        """Return who holds a key."""
        claimed = self._claimed.get(key)
        return None if claimed is None else claimed.holder

    def said(self, key: str) -> object:
        """Return what the holder said last; None for nothing yet."""
        claimed = self._claimed.get(key)
        return None if claimed is None else claimed.said

    def say(self, key: str, claimant: Claimant, said: object) -> tuple[Claimant, ...]:
        """Note what the holder says; return who waits to hear it."""
        claimed = self._claimed.get(key)
        if claimed is None or claimed.holder != claimant:
            return ()
        claimed.said = said
        return tuple(claimed.waiting)

    def release(self, key: str, claimant: Claimant) -> tuple[Claimant, ...]:
        """End the claim of the holder, and return who waited; or let one who waits leave."""
        claimed = self._claimed.get(key)
        if claimed is None:
            return ()
        if claimed.holder == claimant:
            del self._claimed[key]
            return tuple(claimed.waiting)
        claimed.waiting = _without(claimed.waiting, claimant)
        return ()

    def gone(self, worker: int) -> dict[str, Passed]:
        """Forget a worker that has died; return what has passed on to others, by key."""
        passed: dict[str, Passed] = {}
        for key, claimed in list(self._claimed.items()):
            claimed.waiting = [each for each in claimed.waiting if each.worker != worker]
            if claimed.holder.worker != worker:
                continue
            if not claimed.waiting:
                del self._claimed[key]
                continue
            claimed.holder = claimed.waiting.pop(0)
            passed[key] = Passed(claimed.holder, claimed.said, bool(claimed.waiting))
        return passed


def _without(claimants: Iterable[Claimant], one: Claimant) -> list[Claimant]:
    return [each for each in claimants if each != one]
