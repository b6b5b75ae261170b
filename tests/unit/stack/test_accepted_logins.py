"""Which passwords count as right in an outage."""

import pytest

from regproxy.oci.names import Registry
from regproxy.policy.identities import NOBODY, Identity
from regproxy.stack import accepted_logins
from regproxy.stack.accepted_logins import ACCEPTED_S, AcceptedLogins

HOST = Registry("auth.docker.io", 443)
ALICE, BOB = Identity("a1"), Identity("b0")


class Clock:
    """Seconds that a test turns."""

    now_s = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def test_a_login_counts_at_the_host_that_took_it() -> None:
    """Nowhere else, and nobody else's."""
    logins = AcceptedLogins()
    logins.accepted(HOST, ALICE)
    assert logins.is_accepted(HOST, ALICE)
    assert not logins.is_accepted(Registry("auth.docker.io", 5000), ALICE)
    assert not logins.is_accepted(HOST, BOB)


def test_it_counts_for_a_week_after_the_last_time() -> None:
    """Not for ever: it may have been changed since."""
    clock = Clock()
    logins = AcceptedLogins(clock)
    logins.accepted(HOST, ALICE)
    clock.now_s = ACCEPTED_S - 1
    assert logins.is_accepted(HOST, ALICE)
    logins.accepted(HOST, ALICE)
    clock.now_s += ACCEPTED_S - 1
    assert logins.is_accepted(HOST, ALICE)
    clock.now_s += 1
    assert not logins.is_accepted(HOST, ALICE)


def test_a_refusal_is_the_last_word() -> None:
    """Also for a login that was never taken."""
    logins = AcceptedLogins()
    logins.accepted(HOST, ALICE)
    for client in (ALICE, BOB):
        logins.refused(HOST, client)
        assert not logins.is_accepted(HOST, client)


def test_nobody_has_no_login() -> None:
    """A server that lets anybody in has confirmed no password."""
    logins = AcceptedLogins()
    logins.accepted(HOST, NOBODY)
    assert not logins.is_accepted(HOST, NOBODY)


def test_the_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logins that were used last stay."""
    monkeypatch.setattr(accepted_logins, "MOST_LOGINS", 2)
    logins = AcceptedLogins()
    for client in (ALICE, BOB, ALICE, Identity("c2")):
        logins.accepted(HOST, client)
    assert [logins.is_accepted(HOST, client) for client in (ALICE, BOB, Identity("c2"))] == [True, False, True]
