"""What replicas make of one another's records: whose turn it is to revalidate a tag, and whose answer is the newer.

Times are Unix times in seconds, each by the clock of the replica that wrote it. No request is made here.
"""

from dataclasses import dataclass, replace
from enum import Enum

from regproxy.policy.access import NEVER_S, Openness
from regproxy.policy.freshness import is_fresh
from regproxy.policy.openers import OpenedBy

LEASE_S = 10.0
"""For how long a replica may be the only one that asks: longer than a revalidation may take, short for a crash."""

SKEW_S = 2.0
"""By how much the clocks of replicas may differ."""


def known_at_s(at_s: float, now_s: float) -> float:
    """Return when something happened by the own clock: what another clock put a little ahead has happened now."""
    return min(at_s, now_s) if at_s <= now_s + SKEW_S else at_s


@dataclass(frozen=True, slots=True)
class Lease:
    """Who revalidates a tag now."""

    holder: str
    until_s: float

    def holds(self, now_s: float) -> bool:
        """Whether others wait for it; one that lasts longer than any lease does is a mistake."""
        return 0 < self.until_s - now_s <= LEASE_S + SKEW_S


class Turn(Enum):
    """What a replica does with a tag that is stale by its own record."""

    USE = "another replica has checked it in time"
    WAIT = "another replica is checking it"
    TAKE = "this replica checks it"


def turn(
    checked_at_s: float | None, lease: Lease | None, lifetime_s: float, now_s: float, *, unused: str | None = None
) -> Turn:
    """Decide; `checked_at_s` is the shared record's, None without one.

    A lease of the holder `unused` holds nobody up: it is one's own, of a write whose answer got lost.
    """
    if checked_at_s is not None and is_fresh(known_at_s(checked_at_s, now_s), lifetime_s, now_s):
        return Turn.USE
    if lease is None or lease.holder == unused or not lease.holds(now_s):
        return Turn.TAKE
    return Turn.WAIT


@dataclass(frozen=True, slots=True)
class Answered:
    """A registry's last answer to one that may stand for everybody: nobody's request, or the operator's."""

    at_s: float = NEVER_S
    let_in: bool = False

    def or_newer(self, other: "Answered") -> "Answered":
        """Return the later of the two; a refusal if they are of one time."""
        if other.at_s == self.at_s:
            return replace(self, let_in=self.let_in and other.let_in)
        return max(self, other, key=lambda answered: answered.at_s)

    def correct(self, own_at_s: float, now_s: float) -> float:
        """Return when the repository was last open, as `Openness` has it, by this answer and what is known here."""
        at_s = known_at_s(self.at_s, now_s)
        if at_s <= own_at_s:
            return own_at_s
        return at_s if self.let_in else NEVER_S


@dataclass(frozen=True, slots=True)
class SharedOpenness:
    """How open a repository is, by the answers to all replicas."""

    public: Answered = Answered()
    shared: Answered = Answered()

    @classmethod
    def of_answer(cls, opened_by: OpenedBy, *, let_in: bool, at_s: float) -> "SharedOpenness":
        """Return what one answer says; nothing for the answer to a client's own login."""
        answered = Answered(at_s, let_in)
        match opened_by:
            case OpenedBy.NOBODY:
                return cls(public=answered)
            case OpenedBy.OPERATOR:
                return cls(shared=answered)
            case OpenedBy.CLIENT:
                return cls()

    @classmethod
    def of_known(cls, openness: Openness) -> "SharedOpenness":
        """Return what is known to be open."""
        times = (openness.public_at_s, openness.shared_at_s)
        public, shared = (Answered(at_s, let_in=at_s != NEVER_S) for at_s in times)
        return cls(public, shared)

    def merged(self, other: "SharedOpenness") -> "SharedOpenness":
        """Return the newer answer of each kind."""
        return SharedOpenness(self.public.or_newer(other.public), self.shared.or_newer(other.shared))

    def adds_to(self, stored: "SharedOpenness", worth_s: float) -> bool:
        """Whether it is worth writing: another answer, or the same one so much later."""
        pairs = ((self.public, stored.public), (self.shared, stored.shared))
        return any(
            ours.at_s > theirs.at_s and (ours.let_in != theirs.let_in or ours.at_s - theirs.at_s >= worth_s)
            for ours, theirs in pairs
        )

    def correct(self, own: Openness, now_s: float) -> Openness:
        """Return what is known here after this."""
        return Openness(self.public.correct(own.public_at_s, now_s), self.shared.correct(own.shared_at_s, now_s))
