"""Whose credentials come first: the whole table."""

import pytest

from regproxy.policy.precedence import Own, Precedence, Turn, turn_of

OURS, OWN, OWN_THEN_OURS = Turn(own_first=False), Turn(own_first=True), Turn(own_first=True, then_proxys=True)

# what the client sent, whether the operator has a login, and the turn by client, client-then-proxy, proxy
TABLE = [
    (Own.NOTHING, False, OURS, OURS, OURS),
    (Own.NOTHING, True, OURS, OURS, OURS),
    (Own.ANONYMOUS, False, OWN_THEN_OURS, OWN_THEN_OURS, OWN_THEN_OURS),
    (Own.ANONYMOUS, True, OURS, OURS, OURS),
    (Own.UNKNOWN, False, OWN_THEN_OURS, OWN_THEN_OURS, OWN_THEN_OURS),
    (Own.UNKNOWN, True, OWN_THEN_OURS, OWN_THEN_OURS, OURS),
    (Own.LOGIN, False, OWN, OWN_THEN_OURS, OWN),
    (Own.LOGIN, True, OWN, OWN_THEN_OURS, OURS),
]


@pytest.mark.parametrize(
    ("precedence", "own", "operator_has_login", "expected"),
    [
        (precedence, own, has_login, turns[column])
        for own, has_login, *turns in TABLE
        for column, precedence in enumerate(Precedence)
    ],
)
def test_whose_turn_it_is(precedence: Precedence, own: Own, operator_has_login: bool, expected: Turn) -> None:
    """A real login is followed by the operator's only where the operator says so."""
    assert turn_of(precedence, own, operator_has_login=operator_has_login) == expected
