"""Who may read stored content: what upstream answers have shown, and for how long that counts.

The unit is the repository, as registries give rights by repository. Content is readable through a repository that is
known to have it (a digest alone opens nothing) by whom the registry lets read there: everybody, if it answered a
request without a login; everybody whom the operator serves, if it answered his; else the login that it answered. Each
of these is asked about again when it is older than the lifetime; while the registry does not answer an older one may
count (`AccessRules.allows_in_outage`). A refusal ends what it refuses. docs/privacy.md tells it to operators.

Times are Unix times in seconds and come from the caller. No request is made here.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntFlag, StrEnum

from regproxy.oci.names import Registry
from regproxy.policy.freshness import is_fresh
from regproxy.policy.openers import OpenedBy

NEVER_S = 0.0

LONG_AGO_S = 1.0
"""The time of an answer whose age is not known, or that the operator gave himself by an import: it is not fresh, so the
registry is asked first, but what was given is read while it does not answer."""


class PrivateImages(StrEnum):
    """What becomes of content that only some clients may read at its registry."""

    STRICT = "strict"
    """Only they get it from the cache."""
    SHARE = "share"
    """Everybody who reaches the proxy gets it, as with the predecessors."""


class Given(IntFlag):
    """To whom a repository gave a content; without a flag it is not known to have it."""

    NOWHERE = 0
    TO_NOBODY = 1
    """To a request without a login."""
    TO_OPERATOR = 2
    TO_CLIENT = 4
    """To a client's own login."""


GIVEN_TO = {
    OpenedBy.NOBODY: Given.TO_NOBODY,
    OpenedBy.OPERATOR: Given.TO_OPERATOR,
    OpenedBy.CLIENT: Given.TO_CLIENT,
}


@dataclass(frozen=True, slots=True)
class Repository:
    """Where rights are given."""

    registry: Registry
    name: str


@dataclass(frozen=True, slots=True)
class Openness:
    """When a repository last answered those who may stand for everybody; `NEVER_S` also after a refusal."""

    public_at_s: float = NEVER_S
    shared_at_s: float = NEVER_S

    def after(self, opened_by: OpenedBy, *, let_in: bool, now_s: float) -> "Openness":
        """Return what is known after an answer or a refusal to somebody."""
        at_s = now_s if let_in else NEVER_S
        match opened_by:
            case OpenedBy.NOBODY:
                return replace(self, public_at_s=at_s)
            case OpenedBy.OPERATOR:
                return replace(self, shared_at_s=at_s)
            case OpenedBy.CLIENT:
                return self

    def set_back(self, by_s: float) -> "Openness":
        """Return it by a clock that was set back by so many seconds."""
        return Openness(set_back(self.public_at_s, by_s), set_back(self.shared_at_s, by_s))


def set_back(at_s: float, by_s: float) -> float:
    """Return the time of an answer by a clock that was set back by so many seconds: it is as old as before."""
    return NEVER_S if at_s == NEVER_S else max(at_s - by_s, LONG_AGO_S)


CLOSED = Openness()


@dataclass(frozen=True, slots=True)
class Known:
    """What is known about one client that wants one content through one repository."""

    openness: Openness = CLOSED
    proven_at_s: float = NEVER_S
    """When the registry last answered this client's own login."""
    given: int = Given.NOWHERE
    """The content, by this repository (`Given`)."""


class Ground(StrEnum):
    """Why a client may read."""

    PUBLIC = "the registry gives it to everybody"
    SHARED = "the operator shares what his login opens"
    OWN = "the registry gives it to this client"


@dataclass(frozen=True, slots=True)
class AccessRules:
    """How long what is known counts, in seconds."""

    lifetime_s: float
    grace_s: float

    def allows(self, known: Known, now_s: float) -> Ground | None:
        """Return why the client may read without asking; None when the registry has to be asked."""
        if not known.given:
            return None
        if is_fresh(known.openness.public_at_s, self.lifetime_s, now_s):
            return Ground.PUBLIC
        if is_fresh(known.openness.shared_at_s, self.lifetime_s, now_s):
            return Ground.SHARED
        return Ground.OWN if is_fresh(known.proven_at_s, self.lifetime_s, now_s) else None

    def allows_in_outage(self, known: Known, now_s: float) -> Ground | None:
        """Return why the client may read although the registry, which was asked, gave no answer.

        Content that was itself given to everybody counts as long as no refusal has followed: who could read it then
        may have it. Content that the registry gave to logins only may be younger than the last answer to everybody,
        and the repository may have become private in between: there the grace is the limit, as it is for each login.
        """
        if not known.given:
            return None
        if self._still_open(known.openness.public_at_s, known.given & Given.TO_NOBODY, now_s):
            return Ground.PUBLIC
        if self._still_open(known.openness.shared_at_s, known.given & Given.TO_OPERATOR, now_s):
            return Ground.SHARED
        return Ground.OWN if self._in_grace(known.proven_at_s, now_s) else None

    def _still_open(self, at_s: float, given: int, now_s: float) -> bool:
        return at_s != NEVER_S and (bool(given) or self._in_grace(at_s, now_s))

    def _in_grace(self, at_s: float, now_s: float) -> bool:
        return at_s != NEVER_S and is_fresh(at_s, max(self.grace_s, self.lifetime_s), now_s)


@dataclass(frozen=True, slots=True)
class Holder:
    """A repository that is known to have a content."""

    registry: Registry
    given: int


def may_take_at_its_word(registry: Registry, holders: Iterable[Holder]) -> bool:
    """Whether a registry is believed that one of its repositories has a stored content, without sending it.

    Of its own content, of what is public somewhere, and of content of unknown origin. Else a registry that somebody
    controls could say yes to any digest, and the cache would hand out what only another registry's clients may read.
    """
    known = list(holders)
    return not known or any(holder.registry == registry or holder.given & Given.TO_NOBODY for holder in known)
