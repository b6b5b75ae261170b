"""Whose credentials come first, the client's own or the operator's (contract A2, wishes 2.2).

A push and whatever may prove a password (`/v2/`, token requests) go with what the client sent. A read may go with the
operator's credentials instead: at once, or after the registry has refused the client's own. The second gives a client
more than it has, so that a login of its own is followed by the operator's only where the operator says so.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

FALLBACK_STATUSES = frozenset({401, 403, 429})
"""After which the operator's credentials may be tried: not logged in, not allowed, or over the client's own quota."""


class Precedence(StrEnum):
    """What the operator chose."""

    CLIENT = "client"
    """The client's own login, and its refusal is the answer."""

    CLIENT_THEN_PROXY = "client-then-proxy"
    """The client's own login, and the operator's after a refusal."""

    PROXY = "proxy"
    """The operator's credentials wherever there are some."""


class Own(Enum):
    """What a client sent in `Authorization`."""

    NOTHING = auto()
    ANONYMOUS = auto()
    """A token that was given to nobody in particular."""
    UNKNOWN = auto()
    """A token that does not say whose it is, and that nobody here has seen given."""
    LOGIN = auto()
    """A password, or a token that was given for one."""


@dataclass(frozen=True, slots=True)
class Turn:
    """In which order a read shows what there is."""

    own_first: bool
    """Whether the client's own comes before the proxy's, which is the operator's or else an anonymous token."""
    then_proxys: bool = False
    """Whether the proxy's follows when the client's own is refused."""


def turn_of(precedence: Precedence, own: Own, *, operator_has_login: bool) -> Turn:
    """Return what a read shows, by whether the operator has a login for that repository."""
    if own is Own.NOTHING:
        return Turn(own_first=False)
    if operator_has_login and (own is Own.ANONYMOUS or precedence is Precedence.PROXY):
        return Turn(own_first=False)
    return Turn(own_first=True, then_proxys=own is not Own.LOGIN or precedence is Precedence.CLIENT_THEN_PROXY)
